"""Long-range recall: name the class that was seen first, after any number of noise tokens."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from qlstm_jax.data.checks import at_least, check_key


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RecallBatch:
    """Labelled sequences of one length (a pytree).

    Attributes:
        ids: (B, length + 1) int32, the class symbol, then noise symbols.
        lengths: (B,) int32, length + 1 in every row.
        labels: (B,) int32, the class of each row, in 0..num_classes-1.
    """

    ids: Int[Array, "batch time"]
    lengths: Int[Array, " batch"]
    labels: Int[Array, " batch"]


@dataclasses.dataclass(frozen=True)
class Recall:
    """The class at the start is the answer at the end: ids = [label, noise_1, ..., noise_length].

    Labels are uniform over the classes 0..num_classes-1; the noise is uniform over the num_noise symbols that
    follow them and says nothing about the label, so nothing but memory of the first token solves the task.

    Attributes:
        num_classes: number of class symbols, at least 2.
        num_noise: number of noise symbols, at least 1.

    Raises:
        ValueError: if one of the two is no integer or too small.
    """

    num_classes: int = 8
    num_noise: int = 8

    def __post_init__(self) -> None:
        at_least("num_classes", self.num_classes, 2)
        at_least("num_noise", self.num_noise, 1)

    @property
    def vocab_size(self) -> int:
        """The number of symbols: num_classes + num_noise."""
        return self.num_classes + self.num_noise

    def sample(self, key: Key[Array, ""], batch_size: int, length: int) -> RecallBatch:
        """Draws a batch; can be jitted with `batch_size` and `length` static.

        Args:
            key: a typed PRNG key, `jax.random.key(seed)`.
            batch_size: B, at least 1.
            length: the number of noise tokens between class and answer, at least 0.

        Returns:
            A `RecallBatch` with ids (B, length + 1).

        Raises:
            TypeError: if `key` is no PRNG key.
            ValueError: if a size is no integer or too small.
        """
        check_key(key)
        at_least("batch_size", batch_size, 1)
        at_least("length", length, 0)
        class_key, noise_key = jax.random.split(key)
        labels = jax.random.randint(class_key, (batch_size,), 0, self.num_classes, jnp.int32)
        noise = jax.random.randint(noise_key, (batch_size, length), self.num_classes, self.vocab_size, jnp.int32)
        ids = jnp.concatenate([labels[:, None], noise], axis=1)
        return RecallBatch(ids, jnp.full(batch_size, length + 1, jnp.int32), labels)
