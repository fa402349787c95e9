"""The adding problem (Hochreiter and Schmidhuber, Neural Computation 9, 1997): add two marked numbers of a long row."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from qlstm_jax.data.checks import at_least, check_key

BASELINE = 1 / 6  # mean squared error of always answering 1: twice the variance of a uniform number, 1/12


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AddingBatch:
    """Sequences of one length and a number for each (a pytree).

    Attributes:
        inputs: (B, T, 2) float32; channel 0 holds the numbers, channel 1 is 1 at the two to add, and 0 elsewhere.
        targets: (B,) float32, the sum of the marked numbers, in [0, 2).
    """

    inputs: Float[Array, "batch time 2"]
    targets: Float[Array, " batch"]


@dataclasses.dataclass(frozen=True)
class Adding:
    """Numbers uniform in [0, 1), one marked in each half: target = x_i + x_j, 0 ≤ i < ⌊T/2⌋ ≤ j < T.

    i and j are uniform over their halves. This is the form of Le, Jaitly and Hinton (arXiv 1504.00941, section 4.1);
    the original draws from [-1, 1), marks early positions and scales the target.
    """

    def sample(self, key: Key[Array, ""], batch_size: int, length: int) -> AddingBatch:
        """Draws a batch; can be jitted with `batch_size` and `length` static.

        Args:
            key: a typed PRNG key, `jax.random.key(seed)`.
            batch_size: B, at least 1.
            length: T, at least 2.

        Returns:
            An `AddingBatch`.

        Raises:
            TypeError: if `key` is no PRNG key.
            ValueError: if a size is no integer or too small.
        """
        check_key(key)
        at_least("batch_size", batch_size, 1)
        at_least("length", length, 2)
        k_numbers, k_first, k_second = jax.random.split(key, 3)
        numbers = jax.random.uniform(k_numbers, (batch_size, length))
        first = jax.random.randint(k_first, (batch_size,), 0, length // 2)
        second = jax.random.randint(k_second, (batch_size,), length // 2, length)
        marks = jax.nn.one_hot(first, length) + jax.nn.one_hot(second, length)
        return AddingBatch(jnp.stack([numbers, marks], axis=2), jnp.sum(numbers * marks, axis=1))
