"""Long-range recall: a classifier reads T tokens of noise and names the class that it saw first."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from qlstm_jax import registry
from qlstm_jax.data.recall import Recall
from qlstm_jax.models import Classifier
from qlstm_jax.training import plots
from qlstm_jax.training.problems.base import Problem, classification_sums

POSITIONS = 2**16  # of the sequences that are evaluated at once


class RecallProblem(Problem):
    """`qlstm_jax.data.recall` at the config's length."""

    def __init__(self, config, workdir):
        self.config = config
        self.task = Recall(num_classes=config.recall.num_classes, num_noise=config.recall.num_noise)
        self._predict = jax.jit(self._evaluate, static_argnames=("graphdef", "batch_size", "length"))

    def model(self, rngs):
        """A `Classifier` of the task's symbols."""
        model = self.config.model
        return Classifier(
            self.task.vocab_size,
            self.task.num_classes,
            registry.build_layer(model, model.embedding_size, rngs=rngs),
            embedding_size=model.embedding_size,
            pooling=model.pooling,
            dropout=model.dropout,
            embedding_dropout=model.embedding_dropout,
            rngs=rngs,
        )

    def sample(self, key, batch_size, step):
        """Sequences of one class symbol and `length` noise symbols."""
        return self.task.sample(key, batch_size, self.config.recall.length)

    def loss(self, model, batch, rngs):
        """Cross-entropy and accuracy of the class."""
        logits = model(batch.ids, lengths=batch.lengths, rngs=rngs)
        return classification_sums(logits, batch.labels, jnp.ones(batch.labels.shape), batch.lengths)

    def _evaluate(self, graphdef, params, key, batch_size, length):
        batch = self.task.sample(key, batch_size, length)
        return jnp.argmax(nnx.merge(graphdef, params)(batch.ids, lengths=batch.lengths), -1) == batch.labels

    def accuracy(self, model, key, length: int, sequences: int) -> float:
        """The share of `sequences` new sequences whose class is named."""
        graphdef, params = nnx.split(model, nnx.Param)
        batch = max(1, min(sequences, POSITIONS // (length + 1)))
        keys = jax.random.split(key, -(-sequences // batch))
        right = [self._predict(graphdef, params, k, batch_size=batch, length=length) for k in keys]
        return float(np.mean(np.concatenate([np.asarray(r) for r in right])[:sequences]))

    def validate(self, model, key):
        """Accuracy on 256 sequences."""
        return {"accuracy": self.accuracy(model, key, self.config.recall.length, 256)}

    def report(self, model, key, folder, options):
        """Accuracy at the training length and at quarters, halves and multiples of it."""
        trained = self.config.recall.length
        lengths = sorted({max(1, int(trained * f)) for f in (0.25, 0.5, 1, 2, 4)})
        sequences = max(options.sequences, 256)
        accuracy = {n: self.accuracy(model, jax.random.fold_in(key, n), n, sequences) for n in lengths}
        title = f"recall after {trained} tokens, {self.config.model.cell}: {accuracy[trained]:.3f}"
        chance = 1 / self.task.num_classes
        plots.accuracy_by_length(accuracy, (trained, trained), chance, title, folder / "accuracy_by_length.png")
        return {
            "accuracy": accuracy[trained],
            "length": trained,
            "sequences": sequences,
            "accuracy_by_length": {str(n): a for n, a in accuracy.items()},
        }
