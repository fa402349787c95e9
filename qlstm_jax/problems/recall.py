"""Long-range recall: a classifier reads T tokens of noise and names the class that it saw first."""

from pathlib import Path
from typing import ClassVar

import jax.numpy as jnp
from flax import nnx
from ml_collections import ConfigDict, config_dict

from qlstm_jax.data.recall import Recall
from qlstm_jax.problems.base import Batch, Model, Sums, classification_rows
from qlstm_jax.problems.config import at_least, not_negative, positive
from qlstm_jax.problems.models import classifier
from qlstm_jax.problems.sampled import SampledProblem


class RecallProblem(SampledProblem):
    """`qlstm_jax.data.recall` at the config's length."""

    name = "recall"
    rules: ClassVar = {"length": not_negative, "num_classes": at_least(2), "num_noise": positive}

    @classmethod
    def defaults(cls) -> ConfigDict:
        """Returns the section of the config."""
        return config_dict.create(
            length=1024,  # tokens of noise
            num_classes=8,
            num_noise=8,
        )

    def __init__(self, config: ConfigDict, workdir: str | Path) -> None:
        options = config.recall
        task = Recall(num_classes=options.num_classes, num_noise=options.num_noise)
        title = f"recall after {options.length} tokens"
        super().__init__(config, task, length=options.length, chance=1 / options.num_classes, title=title)

    def model(self, rngs: nnx.Rngs) -> nnx.Module:
        """Returns a `Classifier` of the task's symbols."""
        return classifier(self.config.model, self.task.vocab_size, self.task.num_classes, rngs)

    def positions(self, length: int) -> int:
        """Returns the positions of the class and the noise."""
        return length + 1

    def rows(self, model: Model, batch: Batch, rngs: nnx.Rngs | None) -> Sums:
        """Returns the cross-entropy and accuracy of the class."""
        logits = model(batch.ids, seq_lengths=batch.lengths, rngs=rngs)
        return classification_rows(logits, batch.labels, jnp.ones(batch.labels.shape), batch.lengths)
