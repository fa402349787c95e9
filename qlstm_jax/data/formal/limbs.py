"""Exact arithmetic on long naturals in int32, vectorised over a batch, without a loop over carries.

A number is a (B, K) array of limbs, the lowest first, in base 2^w; bits are limbs with w = 1.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


def to_limbs(bits: Int[Array, "batch n"], limb_bits: int) -> Int[Array, "batch k"]:
    """(B, N) bits, lowest first -> (B, ceil(N / limb_bits)) limbs."""
    batch, count = bits.shape
    padded = jnp.pad(bits, ((0, 0), (0, -count % limb_bits)))
    weights = jnp.left_shift(1, jnp.arange(limb_bits, dtype=jnp.int32))[None, None, :]
    return jnp.sum(padded.reshape(batch, -1, limb_bits) * weights, axis=2)


def to_bits(limbs: Int[Array, "batch k"], limb_bits: int, count: int) -> Int[Array, "batch count"]:
    """Returns the lowest `count` bits of (B, K) limbs, lowest first: (B, count)."""
    shifts = jnp.arange(limb_bits, dtype=jnp.int32)[None, None, :]
    bits = ((limbs[:, :, None] >> shifts) & 1).reshape(limbs.shape[0], -1)[:, :count]
    return jnp.pad(bits, ((0, 0), (0, count - bits.shape[1])))


def chain(generates: Bool[Array, "a b"], passes: Bool[Array, "a b"], axis: int = 1) -> Int[Array, "a b"]:
    """Returns the carry (or borrow) out of each place, as int32.

    out_i = generates_i or (passes_i and out_{i-1}), with no carry into place 0. The carry out of place i is
    decided by the nearest place j <= i that does not pass one on, so a running maximum of 2 j + generates_j
    finds it.
    """
    place = jax.lax.broadcasted_iota(jnp.int32, generates.shape, axis)
    decided = jnp.where(passes, 0, 2 * place + generates.astype(jnp.int32))
    return jax.lax.cummax(decided, axis=axis) & 1


def settle(columns: Int[Array, "batch k"], limb_bits: int, largest: int) -> Int[Array, "batch k"]:
    """Column sums (B, K), each in 0..largest < 2^31, -> limbs in 0..2^w-1; the last carry is dropped."""
    top = (1 << limb_bits) - 1
    # Each round adds the high part of a column to the next one, until a column carries at most 1.
    while largest > top + 1:
        columns = (columns & top) + _shifted(columns >> limb_bits)
        largest = top + (largest >> limb_bits)
    carry = chain(columns > top, columns == top)
    return (columns + _shifted(carry)) & top


def multiply(a: Int[Array, "batch k"], b: Int[Array, "batch k"], limb_bits: int) -> Int[Array, "batch k"]:
    """Returns the product of (B, K) limbs modulo 2^(w K); exact while K (2^w - 1)^2 < 2^31."""

    def step(columns: Int[Array, "batch k"], limb: Int[Array, " batch"]) -> tuple[Int[Array, "batch k"], None]:
        return _shifted(columns) + limb[:, None] * b, None

    columns, _ = jax.lax.scan(step, jnp.zeros_like(b), a.T, reverse=True)
    return settle(columns, limb_bits, largest=b.shape[1] * (2**limb_bits - 1) ** 2)


def length_in_bits(bits: Int[Array, "batch n"]) -> Int[Array, " batch"]:
    """(B, N) bits, lowest first -> (B,) the place of the highest one plus 1, at least 1."""
    place = jnp.arange(bits.shape[1], dtype=jnp.int32)[None, :]
    return jnp.max(jnp.where(bits == 1, place, 0), axis=1) + 1


def square_root(pairs: Int[Array, "batch m"], limb_bits: int = 24) -> Int[Array, "batch m"]:
    """Returns floor(sqrt(x)) digit by digit from the base-4 digits of x, the highest first.

    With remainder r and root q so far, each digit gives r' = 4 r + digit and tries t = 4 q + 1: the next bit
    of the root is 1, and t is subtracted, iff t <= r'. Always r <= 2 q, so r' takes at most two bits more
    than the root.

    Args:
        pairs: (B, M) int32 in 0..3.
        limb_bits: width of a limb, at most 28.

    Returns:
        (B, M) bits of the root, the highest first; the first m of them are the root of the first m digits.
    """
    batch, count = pairs.shape
    shape = (-(-(count + 2) // limb_bits), batch)
    low = jax.lax.broadcasted_iota(jnp.int32, shape, 0) == 0
    top = (1 << limb_bits) - 1

    def quadruple(x: Int[Array, "k batch"], digit: Int[Array, " batch"]) -> Int[Array, "k batch"]:
        raised = x << 2
        carried = jnp.concatenate([digit[None, :], raised[:-1] >> limb_bits])
        return (raised & top) | carried

    def step(
        state: tuple[Int[Array, "k batch"], Int[Array, "k batch"]], digit: Int[Array, " batch"]
    ) -> tuple[tuple[Int[Array, "k batch"], Int[Array, "k batch"]], Bool[Array, " batch"]]:
        remainder, twice_root = state
        candidate = quadruple(remainder, digit)
        # 4 q + 1 from 2 q: one more doubling.
        trial = (twice_root << 1 & top) | jnp.concatenate(
            [jnp.ones((1, batch), jnp.int32), twice_root[:-1] >> (limb_bits - 1)]
        )
        difference = candidate - trial
        borrow = chain(difference < 0, difference == 0, axis=0)
        fits = borrow[-1:] == 0
        settled = (difference - jnp.concatenate([jnp.zeros_like(borrow[:1]), borrow[:-1]])) & top
        # 2 q' = 2 (2 q + bit) = trial - 1 + 2 bit, and trial ends in the bits 01.
        doubled = jnp.where(low, trial - 1, trial) + jnp.where(low & fits, 2, 0)
        return (jnp.where(fits, settled, candidate), doubled), fits[0]

    zeros = jnp.zeros(shape, jnp.int32)
    return jax.lax.scan(step, (zeros, zeros), pairs.T)[1].T.astype(jnp.int32)


def _shifted(x: Int[Array, "batch k"]) -> Int[Array, "batch k"]:
    """(B, K) limbs moved one place up."""
    return jnp.pad(x, ((0, 0), (1, 0)))[:, :-1]
