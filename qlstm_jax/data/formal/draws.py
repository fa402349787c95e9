"""Random symbols from random words: few words, no rejection loop."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Int, Key, UInt

WORD_BITS = 32


def words(key: Key[Array, ""], batch: int, count: int) -> UInt[Array, "batch count"]:
    """(batch, count) uint32, uniform."""
    return jax.random.bits(key, (batch, count), jnp.uint32)


def integers(word: UInt[Array, "..."], bound: ArrayLike) -> Int[Array, "..."]:
    """Returns uniform integers in 0..bound-1 from uint32 words, int32.

    floor(u * bound) with u = (word >> 8) / 2^24. The product never rounds up to `bound`, because bound *
    2^-24 is at least half the spacing of float32 just below `bound`; the probabilities are off by a factor of
    at most 1 + bound / 2^24.
    """
    u = (word >> 8).astype(jnp.float32) * jnp.float32(2**-24)
    return jnp.floor(u * jnp.asarray(bound, jnp.float32)).astype(jnp.int32)


def bits(key: Key[Array, ""], batch: int, count: int) -> Int[Array, "batch count"]:
    """(batch, count) int32 of fair bits, 32 from each random word."""
    return unpack(words(key, batch, words_for(count)), count)


def words_for(count: int) -> int:
    """Returns the number of words that hold `count` bits."""
    return -(-count // WORD_BITS)


def unpack(packed: UInt[Array, "batch k"], count: int) -> Int[Array, "batch count"]:
    """(B, K) uint32 -> the first `count` of their 32 K bits, (B, count) int32."""
    shifts = jnp.arange(WORD_BITS, dtype=jnp.uint32)[None, None, :]
    return ((packed[:, :, None] >> shifts) & 1).astype(jnp.int32).reshape(packed.shape[0], -1)[:, :count]


def symbols(key: Key[Array, ""], batch: int, count: int, bound: int) -> Int[Array, "batch count"]:
    """(batch, count) int32, uniform in 0..bound-1."""
    return integers(words(key, batch, count), bound)


def without_zero(
    bits: Int[Array, "batch n"], start: Int[Array, " batch"], stop: Int[Array, " batch"], word: UInt[Array, " batch"]
) -> Int[Array, "batch n"]:
    """Turns uniform bits into bits of a uniform value >= 1, between `start` and `stop` of each row.

    Where the k = stop - start bits are all 0, they are replaced by those of an independent uniform value in
    1..2^min(k, 16)-1. For k <= 16 the result is uniform over the 2^k - 1 values: each has 2^-k + 2^-k / (2^k
    - 1). Beyond, it is so but for an event of probability 2^-k.

    Args:
        bits: (B, N) int32 of 0 and 1.
        start: (B,) int32.
        stop: (B,) int32, above `start`.
        word: (B,) uint32, independent of `bits`.

    Returns:
        (B, N) int32, equal to `bits` outside start..stop-1.
    """
    place = jnp.arange(bits.shape[1], dtype=jnp.int32)[None, :] - start[:, None]
    size = (stop - start)[:, None]
    inside = (place >= 0) & (place < size)
    zero = ~jnp.any(inside & (bits == 1), axis=1, keepdims=True)
    value = 1 + integers(word[:, None], (1 << jnp.clip(size, 1, 16)) - 1)
    spare = (value >> jnp.clip(place, 0, 31)) & 1
    return jnp.where(inside & zero, spare, bits)
