"""The formal languages: sampled on the device, read by a transducer, evaluated length by length."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from qlstm_jax import registry
from qlstm_jax.data.formal import TASKS
from qlstm_jax.models import Transducer
from qlstm_jax.training import plots
from qlstm_jax.training.problems.base import Problem

POSITIONS = 2**16  # of the tapes that are evaluated at once


class FormalProblem(Problem):
    """One of the fifteen tasks of `qlstm_jax.data.formal`."""

    def __init__(self, config, workdir):
        self.config = config
        self.task = TASKS[config.task]
        self.single = self.task.output_length(1000) == 1
        self._counts = jax.jit(self._count, static_argnames=("graphdef", "max_length"))

    def model(self, rngs):
        """A `Transducer` over the task's tape."""
        layer = registry.build_layer(self.config.model, self.task.input_size + 1, rngs=rngs)
        return Transducer(
            layer,
            self.task.output_size,
            readout=self.config.model.readout,
            dropout=self.config.model.dropout,
            rngs=rngs,
        )

    def sample(self, key, batch_size):
        """Strings of lengths drawn uniformly from the training range."""
        lengths = self.config.formal
        k_length, k_string = jax.random.split(key)
        shape = (batch_size,) if lengths.mixed_lengths else ()
        drawn = jax.random.randint(k_length, shape, lengths.min_length, lengths.max_length + 1)
        return self.task.sample(k_string, batch_size, drawn, max_length=lengths.max_length)

    def logits(self, model, batch, rngs=None):
        """Logits (B, M, output_size) at the positions of the answer. A single answer takes the last state alone."""
        xs, total = self.task.frame(batch)
        if self.single:
            return model.last(xs, lengths=total, rngs=rngs)[:, None]
        return self.task.outputs(model(xs, lengths=total, rngs=rngs), batch)

    def loss(self, model, batch, rngs):
        """Cross-entropy by sequence; accuracy by token."""
        logits = self.logits(model, batch, rngs)
        correct, counted = self.task.correct(logits, batch)
        rows = batch.lengths.shape[0]
        return {
            "loss": rows * self.task.loss(logits, batch),
            "weight": jnp.float32(rows),
            "correct": jnp.sum(correct),
            "count": jnp.sum(counted),
            "tokens": jnp.sum(batch.lengths + batch.target_lengths).astype(jnp.float32),
        }

    def _count(self, graphdef, params, key, lengths, max_length):
        batch = self.task.sample(key, lengths.shape[0], lengths, max_length=max_length)
        return self.task.correct(self.logits(nnx.merge(graphdef, params), batch), batch)

    def accuracy_by_length(self, model, key, lengths, sequences: int) -> np.ndarray:
        """The accuracy of each length, from `sequences` strings each.

        Lengths share a few compiled programs: each is padded to the next power of two (of 64 or more, and no longer
        than the longest), and rows of different lengths stand in one batch.

        Args:
            model: in evaluation mode.
            key: randomness of the strings; the same key gives the same strings.
            lengths: ascending lengths.
            sequences: strings of each length.

        Returns:
            (len(lengths),) float64, sum of mask · correct by sum of mask.
        """
        graphdef, params = nnx.split(model, nnx.Param)
        rows = np.repeat(np.asarray(lengths, np.int32), sequences)
        width = np.minimum(2 ** np.ceil(np.log2(np.maximum(rows, 64))).astype(int), rows.max())
        pending = []
        for max_length in np.unique(width):
            tape = int(max_length) + int(self.task.output_length(int(max_length)))
            batch = max(1, POSITIONS // tape)
            mine = rows[width == max_length]
            for i, part in enumerate(np.split(mine, range(batch, len(mine), batch))):
                part_key = jax.random.fold_in(jax.random.fold_in(key, int(max_length)), i)
                padded = np.concatenate([part, np.ones(batch - len(part), np.int32)])
                counts = self._counts(graphdef, params, part_key, padded, max_length=int(max_length))
                pending.append((part, counts))
        correct, counted = np.zeros(rows.max() + 1), np.zeros(rows.max() + 1)
        for part, (row_correct, row_counted) in pending:
            np.add.at(correct, part, np.asarray(row_correct, np.float64)[: len(part)])
            np.add.at(counted, part, np.asarray(row_counted, np.float64)[: len(part)])
        return correct[list(lengths)] / counted[list(lengths)]

    def validate(self, model, key):
        """Mean accuracy over the training lengths, 32 strings each."""
        lengths = range(self.config.formal.min_length, self.config.formal.max_length + 1)
        return {"accuracy": float(np.mean(self.accuracy_by_length(model, key, lengths, 32)))}

    def report(self, model, key, folder, options):
        """`accuracy_by_length`, `score` (its mean over the lengths asked for), the same in range, and a picture."""
        train = range(self.config.formal.min_length, self.config.formal.max_length + 1)
        test = range(options.min_length, options.max_length + 1)
        measure = partial(self.accuracy_by_length, model, sequences=options.sequences)
        k_train, k_test = jax.random.split(key)
        in_range, beyond = measure(k_train, train), measure(k_test, test)
        by_length = dict(zip(train, in_range, strict=True)) | dict(zip(test, beyond, strict=True))
        chance = 1 / self.task.output_size
        title = f"{self.config.task}, {self.config.model.cell}: score {beyond.mean():.3f}"
        plots.accuracy_by_length(by_length, (train[0], train[-1]), chance, title, folder / "accuracy_by_length.png")
        return {
            "score": float(beyond.mean()),
            "score_lengths": [options.min_length, options.max_length],
            "solved": bool(beyond.mean() >= 0.9),
            "in_range_accuracy": float(in_range.mean()),
            "train_lengths": [train[0], train[-1]],
            "sequences_per_length": options.sequences,
            "accuracy_by_length": {str(length): float(a) for length, a in sorted(by_length.items())},
        }
