"""Long-range recall: a classifier reads T tokens of noise and names the class that it saw first."""

import jax.numpy as jnp

from qlstm_jax.data.recall import Recall
from qlstm_jax.training.problems.base import classification_rows
from qlstm_jax.training.problems.models import classifier
from qlstm_jax.training.problems.sampled import SampledProblem


class RecallProblem(SampledProblem):
    """`qlstm_jax.data.recall` at the config's length."""

    def __init__(self, config, workdir):
        options = config.recall
        task = Recall(num_classes=options.num_classes, num_noise=options.num_noise)
        title = f"recall after {options.length} tokens"
        super().__init__(config, task, length=options.length, chance=1 / options.num_classes, title=title)

    def model(self, rngs):
        """A `Classifier` of the task's symbols."""
        return classifier(self.config.model, self.task.vocab_size, self.task.num_classes, rngs)

    def positions(self, length):
        """The class, and the noise."""
        return length + 1

    def rows(self, model, batch, rngs):
        """Cross-entropy and accuracy of the class."""
        logits = model(batch.ids, seq_lengths=batch.lengths, rngs=rngs)
        return classification_rows(logits, batch.labels, jnp.ones(batch.labels.shape), batch.lengths)
