"""The copying problem (Arjovsky et al., arXiv 1511.06464, section 4.1): say symbols again after many blanks."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from qlstm_jax.data.checks import at_least, check_key


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CopyingBatch:
    """Sequences of one length whose last positions have an answer (a pytree).

    Attributes:
        ids: (B, 2S + T + 1) int32.
        targets: (B, S) int32, the symbols to output at the last S positions, in 0..K-1.
    """

    ids: Int[Array, "batch time"]
    targets: Int[Array, "batch symbols"]


@dataclasses.dataclass(frozen=True)
class Copying:
    """S symbols, T blanks, a go marker, S more blanks: ids = [s_1, .., s_S, _, .., _, go, _, .., _].

    At the n-th blank after go, s_n is to be said. Symbols are uniform over 0..K-1; the blank is K, go is K + 1. The S
    answers alone count. (The paper has T - 1 blanks, and counts the blanks that are due before the answers too.)

    Attributes:
        num_symbols: S, at least 1.
        alphabet: K, at least 2.

    Raises:
        ValueError: if one of the two is no integer or too small.
    """

    num_symbols: int = 10
    alphabet: int = 8

    def __post_init__(self) -> None:
        at_least("num_symbols", self.num_symbols, 1)
        at_least("alphabet", self.alphabet, 2)

    @property
    def vocab_size(self) -> int:
        """The number of ids: the alphabet, blank and go."""
        return self.alphabet + 2

    def sample(self, key: Key[Array, ""], batch_size: int, length: int) -> CopyingBatch:
        """Draws a batch; can be jitted with `batch_size` and `length` static.

        Args:
            key: a typed PRNG key, `jax.random.key(seed)`.
            batch_size: B, at least 1.
            length: T, the blanks between symbols and go, at least 0.

        Returns:
            A `CopyingBatch`.

        Raises:
            TypeError: if `key` is no PRNG key.
            ValueError: if a size is no integer or too small.
        """
        check_key(key)
        at_least("batch_size", batch_size, 1)
        at_least("length", length, 0)
        symbols = jax.random.randint(key, (batch_size, self.num_symbols), 0, self.alphabet, jnp.int32)
        rest = jnp.full((batch_size, length + 1 + self.num_symbols), self.alphabet, jnp.int32)
        return CopyingBatch(jnp.concatenate([symbols, rest.at[:, length].set(self.alphabet + 1)], axis=1), symbols)
