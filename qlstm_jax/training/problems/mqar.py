"""Multi-query associative recall: a model reads pairs, and names the value of each key that it meets again."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from qlstm_jax import registry
from qlstm_jax.data.mqar import MQAR
from qlstm_jax.models import TokenModel
from qlstm_jax.training import plots
from qlstm_jax.training.problems.base import Problem

POSITIONS = 2**16  # of the sequences that are evaluated at once


class MQARProblem(Problem):
    """`qlstm_jax.data.mqar` at the config's length."""

    def __init__(self, config, workdir):
        self.config = config
        options = config.mqar
        self.task = MQAR(num_pairs=options.num_pairs, num_keys=options.num_keys, num_values=options.num_values)
        self._right = jax.jit(self._count, static_argnames=("graphdef", "batch_size", "length"))

    def model(self, rngs):
        """A `TokenModel` from the task's symbols to its values."""
        model = self.config.model
        return TokenModel(
            self.task.vocab_size,
            self.task.num_values,
            registry.build_layer(model, model.embedding_size, rngs=rngs),
            embedding_size=model.embedding_size,
            dropout=model.dropout,
            embedding_dropout=model.embedding_dropout,
            rngs=rngs,
        )

    def sample(self, key, batch_size, step):
        """Sequences of the config's length and number of pairs."""
        return self.task.sample(key, batch_size, self.config.mqar.length)

    def loss(self, model, batch, rngs):
        """Cross-entropy and accuracy of the values asked for."""
        logits = model(batch.ids, rngs=rngs).astype(jnp.float32)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.targets)
        right = (jnp.argmax(logits, axis=-1) == batch.targets).astype(jnp.float32)
        return {
            "loss": jnp.sum(batch.mask * losses),
            "weight": jnp.sum(batch.mask),
            "correct": jnp.sum(batch.mask * right),
            "count": jnp.sum(batch.mask),
            "tokens": jnp.float32(batch.ids.size),
        }

    def _count(self, graphdef, params, key, batch_size, length):
        batch = self.task.sample(key, batch_size, length)
        right = jnp.argmax(nnx.merge(graphdef, params)(batch.ids), axis=-1) == batch.targets
        return jnp.sum(batch.mask * right.astype(jnp.float32)) / jnp.sum(batch.mask)

    def accuracy(self, model, key, length: int, sequences: int) -> float:
        """The share of questions answered rightly, over at least `sequences` new sequences."""
        graphdef, params = nnx.split(model, nnx.Param)
        batch = max(1, min(sequences, POSITIONS // length))
        keys = jax.random.split(key, -(-sequences // batch))
        return float(np.mean([self._right(graphdef, params, k, batch_size=batch, length=length) for k in keys]))

    def validate(self, model, key):
        """Accuracy on 256 sequences."""
        return {"accuracy": self.accuracy(model, key, self.config.mqar.length, 256)}

    def report(self, model, key, folder, options):
        """Accuracy at the training length and at its double and quadruple, with a picture."""
        trained, sequences = self.config.mqar.length, max(options.sequences, 256)
        accuracy = {
            n: self.accuracy(model, jax.random.fold_in(key, n), n, sequences)
            for n in (trained, 2 * trained, 4 * trained)
        }
        pairs, chance = self.task.num_pairs, 1 / self.task.num_values
        title = f"{pairs} pairs, {self.config.model.cell}: {accuracy[trained]:.3f} at {trained}"
        plots.accuracy_by_length(accuracy, (trained, trained), chance, title, folder / "accuracy_by_length.png")
        return {
            "accuracy": accuracy[trained],
            "length": trained,
            "pairs": pairs,
            "sequences": sequences,
            "accuracy_by_length": {str(n): a for n, a in accuracy.items()},
        }
