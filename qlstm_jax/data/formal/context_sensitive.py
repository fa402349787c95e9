"""The context-sensitive tasks on strings; those on binary numbers are in `binary`."""

import jax.numpy as jnp
from jaxtyping import Array, Key

from qlstm_jax.data.formal import draws
from qlstm_jax.data.formal.base import FormalTask, Lengths, Outputs, Symbols, valid_mask


class DuplicateString(FormalTask):
    """The bits twice; m(n) = 2 n."""

    name, level, input_size, output_size = "duplicate_string", "cs", 2, 2
    answer = (2, 0)

    def _label(self, ids: Symbols, lengths: Lengths, width: int) -> Outputs:
        place = jnp.arange(width, dtype=jnp.int32)[None, :]
        source = jnp.where(place < lengths[:, None], place, place - lengths[:, None])
        return jnp.take_along_axis(ids, jnp.minimum(source, ids.shape[1] - 1), axis=1)


class MissingDuplicateString(FormalTask):
    """The bit that is missing from a string s s of bits, where 2 marks its place.

    If n is odd the last symbol is 3, which means nothing. The hidden place is uniform. A single symbol is 1,
    with label 1.
    """

    name, level, input_size, output_size = "missing_duplicate_string", "cs", 4, 2

    def _draw(self, key: Key[Array, ""], lengths: Lengths, width: int) -> Symbols:
        place = jnp.arange(width, dtype=jnp.int32)[None, :]
        half = lengths[:, None] // 2
        words = draws.words(key, lengths.shape[0], 1 + draws.words_for(width))
        bits = draws.unpack(words[:, 1:], width)
        hidden = draws.integers(words[:, :1], jnp.maximum(2 * half, 1))

        ids = jnp.take_along_axis(bits, jnp.where(place < half, place, jnp.maximum(place - half, 0)), axis=1)
        ids = jnp.where(place == hidden, 2, jnp.where(place >= 2 * half, 3, ids))
        return jnp.where(half > 0, ids, 1)

    def _label(self, ids: Symbols, lengths: Lengths, width: int) -> Outputs:
        hidden, half = jnp.argmax(ids == 2, axis=1), lengths // 2
        twin = jnp.where(hidden < half, hidden + half, hidden - half)
        # A single symbol has no twin and is its own answer.
        return jnp.take_along_axis(ids, jnp.where(half > 0, twin, 0)[:, None], axis=1)


class OddsFirst(FormalTask):
    """The bits at odd places, then those at even places, counted from 0; m(n) = n."""

    name, level, input_size, output_size = "odds_first", "cs", 2, 2
    answer = (1, 0)

    def _label(self, ids: Symbols, lengths: Lengths, width: int) -> Outputs:
        place = jnp.arange(width, dtype=jnp.int32)[None, :]
        half = lengths[:, None] // 2
        source = jnp.where(place < half, 2 * place + 1, 2 * (place - half))
        return jnp.take_along_axis(ids, jnp.minimum(source, width - 1), axis=1)


class BucketSort(FormalTask):
    """The symbols 0-4 in ascending order; m(n) = n.

    The symbol at place j is the number of symbols v in 0..3 with at most j occurrences of 0..v together.
    """

    name, level, input_size, output_size = "bucket_sort", "cs", 5, 5
    answer = (1, 0)

    def _label(self, ids: Symbols, lengths: Lengths, width: int) -> Outputs:
        valid = valid_mask(lengths, width)
        place = jnp.arange(width, dtype=jnp.int32)[None, :]
        ranked = jnp.zeros(ids.shape, jnp.int32)
        for symbol in range(self.input_size - 1):
            up_to = jnp.sum(valid & (ids <= symbol), axis=1, keepdims=True, dtype=jnp.int32)
            ranked += (place >= up_to).astype(jnp.int32)
        return ranked
