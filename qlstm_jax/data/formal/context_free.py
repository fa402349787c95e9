"""The deterministic context-free tasks: an automaton with a stack answers each of them."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from qlstm_jax.data.formal import draws, expressions
from qlstm_jax.data.formal.base import TERMINATOR, FormalTask, Lengths, Outputs, Symbols, valid_mask


class ModularArithmeticBrackets(FormalTask):
    """The value mod 5 of an expression in brackets: 0-4, 5 +, 6 -, 7 *, 8 (, 9 ); 10 is never used.

    The grammar is in `qlstm_jax.data.formal.expressions`.
    """

    name, level, input_size, output_size = "modular_arithmetic_brackets", "dcf", 11, expressions.MODULUS

    def _draw(self, key: Key[Array, ""], lengths: Lengths, width: int) -> Symbols:
        return expressions.draw(draws.words(key, lengths.shape[0], width), lengths, 3)

    def _label(self, ids: Symbols, lengths: Lengths, width: int) -> Outputs:
        return expressions.evaluate(ids, lengths, 3)[:, None]


class SolveEquation(FormalTask):
    """The x in 0..4 that solves `expression = digit` mod 5: 0-4, 5 +, 6 -, 7 (, 8 ), 9 x, 10 =.

    The expression has n - 2 symbols and one of its digits, uniformly chosen, is x. Strings of one and two
    symbols are zeros with label 0.

    There is no product, so the left side is c + s x with s = 1 or -1, and x = s (digit - c) is unique. For
    the same reason drawing the right side uniformly gives the same distribution as drawing x and evaluating.
    """

    name, level, input_size, output_size = "solve_equation", "dcf", 11, expressions.MODULUS

    def _draw(self, key: Key[Array, ""], lengths: Lengths, width: int) -> Symbols:
        words = draws.words(key, lengths.shape[0], width + 2)
        place = jnp.arange(width, dtype=jnp.int32)[None, :]
        size = lengths[:, None] - 2
        ids = expressions.draw(words[:, :width], lengths - 2, 2)

        is_digit = (ids < expressions.MODULUS) & (place < size)
        ordinal = jnp.cumsum(is_digit.astype(jnp.int32), axis=1)
        chosen = draws.integers(words[:, width], jnp.maximum(ordinal[:, -1], 1))[:, None] + 1
        ids = jnp.where(is_digit & (ordinal == chosen), 9, ids)

        right = draws.integers(words[:, width + 1], expressions.MODULUS)[:, None]
        ids = jnp.where(place == size, 10, jnp.where(place == size + 1, right, ids))
        return jnp.where(size > 0, ids, 0)

    def _label(self, ids: Symbols, lengths: Lengths, width: int) -> Outputs:
        batch = ids.shape[0]
        both = jnp.concatenate([jnp.where(ids == 9, 0, ids), jnp.where(ids == 9, 1, ids)])
        values = expressions.evaluate(both, jnp.tile(lengths - 2, 2), 2)
        constant, sign = values[:batch], values[batch:] - values[:batch]
        right = jnp.take_along_axis(ids, lengths[:, None] - 1, axis=1)[:, 0]
        x = (right - constant) * sign % expressions.MODULUS
        return jnp.where(lengths > 2, x, 0)[:, None]


class StackManipulation(FormalTask):
    """The stack after some actions, top first, then the terminator 2, then zeros; m(n) = n + 1.

    The input is a stack, bottom to top (0 and 1), then actions: 2 POP (nothing on an empty stack), 3 PUSH 0,
    4 PUSH 1. The stack's initial size is uniform in 1..n-1 and the actions are uniform; a single symbol is a
    bit.

    With s_t the pushes less the pops up to t, the height is h_t = s_t - min(0, min_{u<=t} s_u), since a pop
    on an empty stack is ignored. What t pushed is still there iff no later height falls below h_t, and then
    lies h_end - h_t below the top.
    """

    name, level, input_size, output_size, terminated = "stack_manipulation", "dcf", 5, 3, True
    answer = (1, 1)

    def _draw(self, key: Key[Array, ""], lengths: Lengths, width: int) -> Symbols:
        words = draws.words(key, lengths.shape[0], width + 1)
        size = 1 + draws.integers(words[:, width], jnp.maximum(lengths - 1, 1))
        action = draws.integers(words[:, :width], 3) + 2
        bit = (words[:, :width] & 1).astype(jnp.int32)
        return jnp.where(valid_mask(size, width), bit, action)

    def _label(self, ids: Symbols, lengths: Lengths, width: int) -> Outputs:
        valid = valid_mask(lengths, ids.shape[1])
        pops = ids == 2
        steps = jnp.cumsum(jnp.where(valid, jnp.where(pops, -1, 1), 0), axis=1)
        height = steps - jnp.minimum(jax.lax.cummin(steps, axis=1), 0)
        lowest_after = jax.lax.cummin(height, axis=1, reverse=True)
        end = height[:, -1:]
        # One slot beyond the output takes what is gone.
        slot = jnp.where(valid & ~pops & (lowest_after == height), end - height, width)
        pushed = (ids == 1) | (ids == 4)
        rows = jnp.arange(ids.shape[0], dtype=jnp.int32)[:, None]
        stack = jnp.zeros((ids.shape[0], width + 1), jnp.int32).at[rows, slot].set(pushed.astype(jnp.int32))
        place = jnp.arange(width, dtype=jnp.int32)[None, :]
        return jnp.where(place == end, TERMINATOR, jnp.where(place < end, stack[:, :width], 0))


class ReverseString(FormalTask):
    """The bits from last to first; m(n) = n."""

    name, level, input_size, output_size = "reverse_string", "dcf", 2, 2
    answer = (1, 0)

    def _label(self, ids: Symbols, lengths: Lengths, width: int) -> Outputs:
        place = jnp.arange(width, dtype=jnp.int32)[None, :]
        return jnp.take_along_axis(ids, jnp.maximum(lengths[:, None] - 1 - place, 0), axis=1)
