"""The copying problem: a model reads symbols and says them again after a long blank stretch."""

from pathlib import Path
from typing import ClassVar

import jax.numpy as jnp
from flax import nnx
from ml_collections import ConfigDict, config_dict

from qlstm_jax.data.copying import Copying
from qlstm_jax.problems.base import Batch, Model, Sums, classification_rows
from qlstm_jax.problems.config import at_least, not_negative, positive
from qlstm_jax.problems.models import token_model
from qlstm_jax.problems.sampled import SampledProblem


class CopyingProblem(SampledProblem):
    """`qlstm_jax.data.copying` at the config's length."""

    name = "copying"
    rules: ClassVar = {"length": not_negative, "num_symbols": positive, "alphabet": at_least(2)}

    @classmethod
    def defaults(cls) -> ConfigDict:
        """Returns the section of the config."""
        return config_dict.create(
            length=100,  # blanks between the symbols and go
            num_symbols=10,
            alphabet=8,
        )

    def __init__(self, config: ConfigDict, workdir: str | Path) -> None:
        options = config.copying
        task = Copying(num_symbols=options.num_symbols, alphabet=options.alphabet)
        title = f"{options.num_symbols} symbols copied after {options.length} blanks"
        super().__init__(config, task, length=options.length, chance=1 / options.alphabet, title=title)

    def model(self, rngs: nnx.Rngs) -> nnx.Module:
        """Returns a `TokenModel` from the task's symbols to its alphabet."""
        return token_model(self.config.model, self.task.vocab_size, self.task.alphabet, rngs)

    def positions(self, length: int) -> int:
        """Returns the symbols twice, the blanks and go."""
        return 2 * int(self.task.num_symbols) + length + 1

    def rows(self, model: Model, batch: Batch, rngs: nnx.Rngs | None) -> Sums:
        """Returns the cross-entropy and accuracy of the answers."""
        logits = model(batch.ids, rngs=rngs)[:, -self.task.num_symbols :]
        tokens = jnp.full(batch.ids.shape[0], batch.ids.shape[1])
        return classification_rows(logits, batch.targets, jnp.ones(batch.targets.shape), tokens)
