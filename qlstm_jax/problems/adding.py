"""The adding problem: a model reads numbers of which two are marked, and answers their sum."""

from pathlib import Path
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Key
from ml_collections import ConfigDict, config_dict

from qlstm_jax.data.adding import BASELINE, Adding
from qlstm_jax.problems.base import Batch, Model, Sums
from qlstm_jax.problems.config import at_least
from qlstm_jax.problems.models import predictor
from qlstm_jax.problems.sampled import SampledProblem

NEAR = 0.04  # an answer within this of the sum is right


class AddingProblem(SampledProblem):
    """`qlstm_jax.data.adding` at the config's length; the loss is the squared error."""

    name = "adding"
    rules: ClassVar = {"length": at_least(2)}
    select, select_mode = "loss", "min"
    shortest = 2

    @classmethod
    def defaults(cls) -> ConfigDict:
        """Returns the section of the config."""
        return config_dict.create(
            length=200,  # numbers, two of them marked
        )

    def __init__(self, config: ConfigDict, workdir: str | Path) -> None:
        length = config.adding.length
        # Of always answering 1: the sum of two uniform numbers has the density 1 - |s - 1|.
        chance = 1 - (1 - NEAR) ** 2
        super().__init__(config, Adding(), length=length, chance=chance, title=f"adding within {length} steps")

    def model(self, rngs: nnx.Rngs) -> nnx.Module:
        """Returns a `Predictor` of one number."""
        return predictor(self.config.model, 2, 1, rngs)

    def rows(self, model: Model, batch: Batch, rngs: nnx.Rngs | None) -> Sums:
        """Returns the squared error, and whether the answer is within 0.04 of the sum."""
        errors = jnp.abs(model(batch.inputs, rngs=rngs)[:, 0] - batch.targets)
        ones = jnp.ones(errors.shape)
        right = (errors <= NEAR).astype(jnp.float32)
        tokens = batch.inputs.shape[1] * ones
        return {"loss": errors**2, "weight": ones, "correct": right, "count": ones, "tokens": tokens}

    def report(self, model: Model, key: Key[Array, ""], folder: Path, options: ConfigDict) -> dict[str, Any]:
        """Reports accuracy and squared error at several lengths, with a picture; beside the error of answering 1."""
        return super().report(model, key, folder, options) | {"baseline_loss": BASELINE}
