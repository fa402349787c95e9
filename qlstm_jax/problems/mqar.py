"""Multi-query associative recall: a model reads pairs, and names the value of each key that it meets again."""

from pathlib import Path
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Key
from ml_collections import ConfigDict, config_dict

from qlstm_jax.data.mqar import MQAR
from qlstm_jax.problems.base import Batch, Model, Sums, classification_rows
from qlstm_jax.problems.config import ConfigError, positive
from qlstm_jax.problems.models import token_model
from qlstm_jax.problems.sampled import SampledProblem


class MQARProblem(SampledProblem):
    """`qlstm_jax.data.mqar` at the config's length; shorter ones may have no room for its pairs and questions."""

    name = "mqar"
    rules: ClassVar = {"num_pairs": positive}
    least = 1

    @classmethod
    def defaults(cls) -> ConfigDict:
        """Returns the section of the config."""
        return config_dict.create(
            length=64,  # tokens, pairs and questions together
            num_pairs=4,
            num_keys=64,
            num_values=64,
        )

    @classmethod
    def check(cls, config: ConfigDict) -> None:
        """Checks that the keys, pairs and questions have room.

        Raises:
            ConfigError: where they do not.
        """
        mqar = config.mqar
        if not (mqar.num_pairs <= mqar.num_keys and mqar.num_values >= 2):
            raise ConfigError(
                f"mqar.num_keys is {mqar.num_keys} and mqar.num_values {mqar.num_values}; expected at least "
                f"mqar.num_pairs={mqar.num_pairs} keys, and 2 values"
            )
        if mqar.length < 3 * mqar.num_pairs:
            raise ConfigError(
                f"mqar.length is {mqar.length}; expected at least {3 * mqar.num_pairs}, room for {mqar.num_pairs} "
                "pairs and as many questions"
            )

    def __init__(self, config: ConfigDict, workdir: str | Path) -> None:
        options = config.mqar
        task = MQAR(num_pairs=options.num_pairs, num_keys=options.num_keys, num_values=options.num_values)
        title = f"{options.num_pairs} pairs in {options.length} tokens"
        super().__init__(config, task, length=options.length, chance=1 / options.num_values, title=title)

    def model(self, rngs: nnx.Rngs) -> nnx.Module:
        """Returns a `TokenModel` from the task's symbols to its values."""
        return token_model(self.config.model, self.task.vocab_size, self.task.num_values, rngs)

    def rows(self, model: Model, batch: Batch, rngs: nnx.Rngs | None) -> Sums:
        """Returns the cross-entropy and accuracy of the values asked for."""
        tokens = jnp.full(batch.ids.shape[0], batch.ids.shape[1])
        return classification_rows(model(batch.ids, rngs=rngs), batch.targets, batch.mask, tokens)

    def report(self, model: Model, key: Key[Array, ""], folder: Path, options: ConfigDict) -> dict[str, Any]:
        """Reports accuracy and loss from the training length on, with a picture."""
        return super().report(model, key, folder, options) | {"pairs": self.task.num_pairs}
