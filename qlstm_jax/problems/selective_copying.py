"""Selective copying (Gu and Dao 2023, arXiv 2312.00752, section 4.1.1): symbols scattered among blanks, said in order.

Of T tokens, S at random places are symbols, uniform over 0..K-1; the others are blanks, K. S go tokens, K + 1, follow;
at the n-th of them the n-th symbol is to be said. A model must choose what it keeps by its content: unlike in the
copying problem, no place tells.
"""

from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Key
from ml_collections import ConfigDict, config_dict

from qlstm_jax.data.copying import CopyingBatch
from qlstm_jax.models import TokenModel
from qlstm_jax.problems.base import classification_rows
from qlstm_jax.problems.config import ConfigError, at_least, positive
from qlstm_jax.problems.models import token_model
from qlstm_jax.problems.sampled import SampledProblem


class SelectiveCopying(NamedTuple):
    """The sampler.

    Attributes:
        num_symbols: S.
        alphabet: K.
    """

    num_symbols: int
    alphabet: int

    def sample(self, key: Key[Array, ""], batch_size: int, length: int) -> CopyingBatch:
        """Draws ids (B, T + S) and targets (B, S)."""
        k_place, k_symbol = jax.random.split(key)
        places = jnp.argsort(jax.random.uniform(k_place, (batch_size, length)), axis=1)[:, : self.num_symbols]
        symbols = jax.random.randint(k_symbol, (batch_size, self.num_symbols), 0, self.alphabet, jnp.int32)
        blanks = jnp.full((batch_size, length), self.alphabet, jnp.int32)
        rows = jnp.arange(batch_size)[:, None]
        go = jnp.full((batch_size, self.num_symbols), self.alphabet + 1, jnp.int32)
        return CopyingBatch(jnp.concatenate([blanks.at[rows, jnp.sort(places)].set(symbols), go], axis=1), symbols)


class SelectiveCopyingProblem(SampledProblem):
    """S symbols among blanks at the config's length."""

    name = "selective_copying"
    rules: ClassVar = {"length": positive, "num_symbols": positive, "alphabet": at_least(2)}
    least = 1  # a shorter sequence may have no room for the symbols

    @classmethod
    def defaults(cls) -> ConfigDict:
        """Returns the section of the config."""
        return config_dict.create(
            length=256,  # tokens, symbols and blanks together
            num_symbols=16,
            alphabet=14,
        )

    @classmethod
    def check(cls, config: ConfigDict) -> None:
        """Checks that the symbols have room.

        Raises:
            ConfigError: where they do not.
        """
        section = config.selective_copying
        if section.length < section.num_symbols:
            raise ConfigError(
                f"selective_copying.length is {section.length}; expected at least {section.num_symbols}, the number of "
                "symbols"
            )

    def __init__(self, config: ConfigDict, workdir: Path) -> None:
        options = config.selective_copying
        task = SelectiveCopying(options.num_symbols, options.alphabet)
        title = f"{options.num_symbols} symbols among {options.length} tokens"
        super().__init__(config, task, length=options.length, chance=1 / options.alphabet, title=title)

    def model(self, rngs: nnx.Rngs) -> TokenModel:
        """Returns a `TokenModel` from symbols, blank and go to the symbols."""
        return token_model(self.config.model, self.task.alphabet + 2, self.task.alphabet, rngs)

    def positions(self, length: int) -> int:
        """Returns the positions of the tokens, and of a go for each symbol."""
        return length + int(self.task.num_symbols)

    def rows(self, model: Any, batch: CopyingBatch, rngs: nnx.Rngs | None) -> dict[str, Array]:
        """Returns the cross-entropy and accuracy of the answers."""
        logits = model(batch.ids, rngs=rngs)[:, -self.task.num_symbols :]
        tokens = jnp.full(batch.ids.shape[0], batch.ids.shape[1])
        return classification_rows(logits, batch.targets, jnp.ones(batch.targets.shape), tokens)
