"""Multi-query associative recall (MQAR; Arora et al., Zoology, arXiv 2312.04927): pairs first, then questions."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from qlstm_jax.data.checks import at_least, check_key


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MQARBatch:
    """Sequences of one length with an answer at some positions (a pytree).

    Attributes:
        ids: (B, T) int32.
        targets: (B, T) int32, the value asked for where `mask` is 1, and 0 elsewhere.
        mask: (B, T) float32, 1 where a key is asked.
    """

    ids: Int[Array, "batch time"]
    targets: Int[Array, "batch time"]
    mask: Float[Array, "batch time"]


@dataclasses.dataclass(frozen=True)
class MQAR:
    """Each key is asked once, and its value is the answer there: ids = [k_1, v_1, .., k_P, v_P, then T - 2P more].

    The P keys of a sequence are distinct and drawn from num_keys symbols, the values from num_values further ones,
    with replacement. The P questions are at distinct positions drawn uniformly from the T - 2P after the pairs; all
    other positions hold one blank symbol, the last. (Zoology draws nearby positions more often and fills the gaps with
    random symbols.)

    Attributes:
        num_pairs: P, at least 1.
        num_keys: symbols for keys, at least P.
        num_values: symbols for values, at least 2.

    Raises:
        ValueError: if one of them is no integer or too small.
    """

    num_pairs: int = 8
    num_keys: int = 64
    num_values: int = 64

    def __post_init__(self) -> None:
        at_least("num_pairs", self.num_pairs, 1)
        at_least("num_keys", self.num_keys, self.num_pairs)
        at_least("num_values", self.num_values, 2)

    @property
    def vocab_size(self) -> int:
        """The number of symbols: num_keys + num_values + 1."""
        return self.num_keys + self.num_values + 1

    def sample(self, key: Key[Array, ""], batch_size: int, length: int) -> MQARBatch:
        """Draws a batch; can be jitted with `batch_size` and `length` static.

        Args:
            key: a typed PRNG key, `jax.random.key(seed)`.
            batch_size: B, at least 1.
            length: T, at least 3P.

        Returns:
            An `MQARBatch` of (B, T); targets count the values from 0.

        Raises:
            TypeError: if `key` is no PRNG key.
            ValueError: if a size is no integer or too small.
        """
        check_key(key)
        at_least("batch_size", batch_size, 1)
        at_least("length", length, 3 * self.num_pairs)
        pairs, rest = self.num_pairs, length - 2 * self.num_pairs
        k_keys, k_values, k_places = jax.random.split(key, 3)
        keys = _distinct(k_keys, batch_size, self.num_keys, pairs)
        values = jax.random.randint(k_values, (batch_size, pairs), 0, self.num_values, jnp.int32)
        places = _distinct(k_places, batch_size, rest, pairs)
        rows = jnp.arange(batch_size)[:, None]
        start = jnp.stack([keys, self.num_keys + values], axis=2).reshape(batch_size, 2 * pairs)
        blank = jnp.full((batch_size, rest), self.vocab_size - 1, jnp.int32)
        ids = jnp.concatenate([start, blank.at[rows, places].set(keys)], axis=1)
        nothing = jnp.zeros((batch_size, length), jnp.int32)
        targets = nothing.at[rows, 2 * pairs + places].set(values)
        mask = nothing.at[rows, 2 * pairs + places].set(1).astype(jnp.float32)
        return MQARBatch(ids, targets, mask)


def _distinct(key: Key[Array, ""], batch_size: int, choices: int, count: int) -> Int[Array, "batch count"]:
    """(B, count) int32, distinct numbers of 0 .. choices - 1 in each row, every choice and order alike likely."""
    return jnp.argsort(jax.random.uniform(key, (batch_size, choices)), axis=1)[:, :count].astype(jnp.int32)
