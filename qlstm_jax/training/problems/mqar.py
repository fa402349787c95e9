"""Multi-query associative recall: a model reads pairs, and names the value of each key that it meets again."""

import jax.numpy as jnp

from qlstm_jax.data.mqar import MQAR
from qlstm_jax.training.problems.base import classification_rows
from qlstm_jax.training.problems.models import token_model
from qlstm_jax.training.problems.sampled import SampledProblem


class MQARProblem(SampledProblem):
    """`qlstm_jax.data.mqar` at the config's length; shorter ones may have no room for its pairs and questions."""

    least = 1

    def __init__(self, config, workdir):
        options = config.mqar
        task = MQAR(num_pairs=options.num_pairs, num_keys=options.num_keys, num_values=options.num_values)
        title = f"{options.num_pairs} pairs in {options.length} tokens"
        super().__init__(config, task, length=options.length, chance=1 / options.num_values, title=title)

    def model(self, rngs):
        """A `TokenModel` from the task's symbols to its values."""
        return token_model(self.config.model, self.task.vocab_size, self.task.num_values, rngs)

    def rows(self, model, batch, rngs):
        """Cross-entropy and accuracy of the values asked for."""
        tokens = jnp.full(batch.ids.shape[0], batch.ids.shape[1])
        return classification_rows(model(batch.ids, rngs=rngs), batch.targets, batch.mask, tokens)

    def report(self, model, key, folder, options):
        """Accuracy and loss from the training length on, with a picture."""
        return super().report(model, key, folder, options) | {"pairs": self.task.num_pairs}
