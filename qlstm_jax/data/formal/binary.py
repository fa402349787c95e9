"""The context-sensitive tasks on binary numbers: sum, product and square root of any length, exactly."""

import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from qlstm_jax.data.formal import draws, limbs
from qlstm_jax.data.formal.base import TERMINATOR, FormalTask, Length, Lengths, Outputs, Symbols

OPERATOR = 2


class _TwoOperands(FormalTask):
    """a, the operator 2, b; the answer, then the terminator, then zeros; numbers are little-endian.

    The operator's place is uniform in 1..n-2, each operand uniform among the values >= 1 with its number of
    bits. A string of one symbol is 0, one of two symbols a value in 0..2 without an operator.
    """

    level, input_size, output_size, terminated = "cs", 3, 3, True

    def _draw(self, key: Key[Array, ""], lengths: Lengths, width: int) -> Symbols:
        batch = lengths.shape[0]
        words = draws.words(key, batch, 4 + draws.words_for(width))
        bits = draws.unpack(words[:, 4:], width)
        split = 1 + draws.integers(words[:, 0], jnp.maximum(lengths - 2, 1))
        bits = draws.without_zero(bits, jnp.zeros_like(split), split, words[:, 1])
        bits = draws.without_zero(bits, split + 1, lengths, words[:, 2])
        place = jnp.arange(width, dtype=jnp.int32)[None, :]
        ids = jnp.where(place == split[:, None], OPERATOR, bits)

        value = jnp.where(lengths == 2, draws.integers(words[:, 3], 3), 0)[:, None]
        return jnp.where(lengths[:, None] > 2, ids, (value >> jnp.minimum(place, 2)) & 1)

    def _operands(
        self, ids: Int[Array, "batch n"], lengths: Int[Array, " batch"]
    ) -> tuple[Int[Array, "batch n"], Int[Array, "batch n"]]:
        """(B, N) symbols -> the bits of a and b, (B, N) each; without an operator b is 0."""
        width = ids.shape[1]
        is_operator = ids == OPERATOR
        split = jnp.where(jnp.any(is_operator, axis=1), jnp.argmax(is_operator, axis=1), lengths)[:, None]
        place = jnp.arange(width, dtype=jnp.int32)[None, :]
        a = jnp.where(place < split, ids, 0)
        source = place + split + 1
        b = jnp.take_along_axis(ids, jnp.minimum(source, width - 1), axis=1)
        return a, jnp.where(source < lengths[:, None], b, 0)


def _terminate(bits: Int[Array, "batch m"]) -> Int[Array, "batch m"]:
    """(B, M) bits of a value below 2^(M-1) -> its bits without zeros on top, the terminator, zeros."""
    place = jnp.arange(bits.shape[1], dtype=jnp.int32)[None, :]
    return jnp.where(place == limbs.length_in_bits(bits)[:, None], TERMINATOR, bits)


class BinaryAddition(_TwoOperands):
    """a + b, then 2, then zeros; m(n) = n + 1. Strings of one or two symbols are their own value."""

    name = "binary_addition"
    answer = (1, 1)

    def _label(self, ids: Symbols, lengths: Lengths, width: int) -> Outputs:
        a, b = (jnp.pad(x, ((0, 0), (0, 1))) for x in self._operands(ids, lengths))
        return _terminate(limbs.settle(a + b, 1, largest=2))


class BinaryMultiplication(_TwoOperands):
    """a * b, then 2, then zeros; m(n) = n. A string of two symbols gives 0 2, one of one symbol 2."""

    name = "binary_multiplication"
    answer = (1, 0)

    def _label(self, ids: Symbols, lengths: Lengths, width: int) -> Outputs:
        a, b = (limbs.to_limbs(x, 8) for x in self._operands(ids, lengths))
        product = limbs.to_bits(limbs.multiply(a, b, 8), 8, width)
        return jnp.where(lengths[:, None] > 1, _terminate(product), TERMINATOR)


class ComputeSqrt(FormalTask):
    """floor(sqrt(x)) of a big-endian x >= 1, big-endian, filled with zeros in front; m(n) = ceil(n / 2)."""

    name, level, input_size, output_size = "compute_sqrt", "cs", 2, 2

    def output_length(self, n: Length) -> Length:
        """Returns ceil(n / 2)."""
        return (n + 1) // 2

    def _draw(self, key: Key[Array, ""], lengths: Lengths, width: int) -> Symbols:
        words = draws.words(key, lengths.shape[0], 1 + draws.words_for(width))
        bits = draws.unpack(words[:, 1:], width)
        return draws.without_zero(bits, jnp.zeros_like(lengths), lengths, words[:, 0])

    def _label(self, ids: Symbols, lengths: Lengths, width: int) -> Outputs:
        # A zero in front of an odd number of bits makes every pair of bits one digit in base 4.
        spare = 2 * width - ids.shape[1]
        even = jnp.pad(ids, ((0, 0), (0, spare)))
        odd = jnp.pad(ids, ((0, 0), (1, spare)))[:, : 2 * width]
        bits = jnp.where((lengths % 2 == 1)[:, None], odd, even)
        return limbs.square_root(2 * bits[:, 0::2] + bits[:, 1::2])
