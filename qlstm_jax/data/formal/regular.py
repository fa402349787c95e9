"""The regular tasks: a finite automaton answers each of them."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key

from qlstm_jax.data.formal import draws
from qlstm_jax.data.formal.base import FormalTask, Length, Lengths, Outputs, Symbols, valid_mask

MODULUS = 5


class EvenPairs(FormalTask):
    """1 iff 01 and 10 together occur an odd number of times: iff the first bit differs from the last."""

    name, level, input_size, output_size = "even_pairs", "regular", 2, 2

    def _label(self, ids: Symbols, lengths: Lengths, width: int) -> Outputs:
        last = jnp.take_along_axis(ids, lengths[:, None] - 1, axis=1)
        return (ids[:, :1] != last).astype(jnp.int32)


class ParityCheck(FormalTask):
    """The number of ones mod 2."""

    name, level, input_size, output_size = "parity_check", "regular", 2, 2

    def _label(self, ids: Symbols, lengths: Lengths, width: int) -> Outputs:
        return jnp.sum(ids, axis=1, keepdims=True) % 2


class CycleNavigation(FormalTask):
    """The place on a cycle of five after steps back (0), none (1) and forward (2): sum(id - 1) mod 5."""

    name, level, input_size, output_size = "cycle_navigation", "regular", 3, MODULUS

    def _label(self, ids: Symbols, lengths: Lengths, width: int) -> Outputs:
        return (jnp.sum(ids, axis=1) - lengths)[:, None] % MODULUS


class ModularArithmetic(FormalTask):
    """The value mod 5 of d op d ... op d, * before + and -: digits 0-4, then 5 +, 6 -, 7 *; 8 is never used.

    A string has an odd length; a nominal length that is even gives one symbol less.

    With acc the sum of the finished terms and term the unfinished one, each pair of an operator and a digit d
        maps + d: (acc, term) -> (acc + term, d)     - d: (acc + term, -d)     * d: (acc, term * d).
    These maps are affine and closed under composition, so that a balanced tree composes them in log n rounds.
    """

    name, level, input_size, output_size = "modular_arithmetic", "regular", 9, MODULUS

    def input_length(self, length: Length) -> Length:
        """Returns the largest odd number up to `length`."""
        return length - 1 + length % 2

    def _draw(self, key: Key[Array, ""], lengths: Lengths, width: int) -> Symbols:
        digits = draws.words(key, lengths.shape[0], width)
        is_digit = (jnp.arange(width) % 2 == 0)[None, :]
        return jnp.where(is_digit, draws.integers(digits, MODULUS), 5 + draws.integers(digits, 3))

    def _label(self, ids: Symbols, lengths: Lengths, width: int) -> Outputs:
        digits = ids[:, 0::2]
        # A plus before the first digit makes every digit one of a pair.
        operators = jnp.pad(ids[:, 1::2], ((0, 0), (1, 0)), constant_values=5)[:, : digits.shape[1]]
        valid = valid_mask((lengths + 1) // 2, digits.shape[1])
        total = _compose_all(_as_maps(operators, digits, valid))
        return ((total.s + total.t) % MODULUS)[:, None]


class _Map(NamedTuple):
    """The affine map acc' = acc + a * term + s, term' = m * term + t."""

    a: Int[Array, "*rows"]
    s: Int[Array, "*rows"]
    m: Int[Array, "*rows"]
    t: Int[Array, "*rows"]


def _as_maps(operators: Int[Array, "batch k"], digits: Int[Array, "batch k"], valid: Bool[Array, "batch k"]) -> _Map:
    """Returns the map of each pair; the identity where it is not valid."""
    times = valid & (operators == 7)
    adds = valid & (operators != 7)
    zero = jnp.zeros_like(digits)
    signed = jnp.where(operators == 6, -digits, digits)
    m = jnp.where(times, digits, jnp.where(valid, 0, 1))
    return _Map(adds.astype(jnp.int32), zero, m, jnp.where(adds, signed, 0))


def _compose(f: _Map, g: _Map) -> _Map:
    """Returns the map that applies f, then g, with coefficients mod 5."""
    composed = (f.a + g.a * f.m, f.s + g.a * f.t + g.s, g.m * f.m, g.m * f.t + g.t)
    return _Map(*(coefficient % MODULUS for coefficient in composed))


def _compose_all(maps: _Map) -> _Map:
    """Composes (B, K) maps in order along axis 1; returns coefficients of shape (B,)."""
    while maps.a.shape[1] > 1:
        if maps.a.shape[1] % 2:
            padded = (
                jnp.pad(x, ((0, 0), (0, 1)), constant_values=identity)
                for x, identity in zip(maps, (0, 0, 1, 0), strict=True)
            )
            maps = _Map(*padded)
        maps = _compose(_Map(*(x[:, 0::2] for x in maps)), _Map(*(x[:, 1::2] for x in maps)))
    return _Map(*(x[:, 0] for x in maps))
