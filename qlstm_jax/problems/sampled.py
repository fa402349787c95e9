"""The base of the synthetic problems: sequences drawn at one length to train, and at several to evaluate."""

import abc
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Key
from ml_collections import ConfigDict

from qlstm_jax.problems import plots
from qlstm_jax.problems.base import Batch, Model, Problem, Sums
from qlstm_jax.shardings import split_rows, whole_rows

POSITIONS = 2**16  # of the sequences that are evaluated at once


class SampledProblem(Problem):
    """A task whose `sample(key, batch_size, length)` draws batches of sequences.

    Args:
        config: of the run.
        task: one of `qlstm_jax.data`.
        length: of training.
        chance: accuracy of guessing.
        title: of the picture.
    """

    validation_metrics = ("accuracy", "loss")
    least = 0.25  # of the training length: what is reported goes from here on, doubling
    shortest = 1  # length
    evaluates = ("sequences", "longest")

    def __init__(self, config: ConfigDict, task: Any, *, length: int, chance: float, title: str) -> None:
        self.config, self.task, self.length, self.chance, self.title = config, task, length, chance, title
        self._rows = jax.jit(self._evaluate, static_argnames=("graphdef", "batch_size", "length"))

    def sample(self, key: Key[Array, ""], batch_size: int, step: Any) -> Batch:
        """Draws sequences of the training length."""
        return self.task.sample(key, batch_size, self.length)

    @abc.abstractmethod
    def rows(self, model: Model, batch: Batch, rngs: nnx.Rngs | None) -> Sums:
        """Returns the sums of `loss` for each row by itself, (B,) each."""

    def loss(self, model: Model, batch: Batch, rngs: nnx.Rngs | None) -> Sums:
        """Returns the sums of `rows`."""
        sums: Sums = jax.tree.map(jnp.sum, self.rows(model, batch, rngs))
        return sums

    def positions(self, length: int) -> int:
        """Returns the steps of a sequence of that length."""
        return length

    def _evaluate(
        self, graphdef: nnx.GraphDef[Any], params: Any, key: Key[Array, ""], batch_size: int, length: int
    ) -> Any:
        batch = split_rows(self.task.sample(key, batch_size, length))
        return whole_rows(self.rows(nnx.merge(graphdef, params), batch, None))

    def figures(self, model: Model, key: Key[Array, ""], length: int, sequences: int) -> dict[str, float]:
        """Returns accuracy and loss over `sequences` new sequences."""
        graphdef, params = nnx.split(model, nnx.Param)
        batch = max(1, min(sequences, POSITIONS // self.positions(length)))
        keys = jax.random.split(key, -(-sequences // batch))
        parts = [self._rows(graphdef, params, k, batch_size=batch, length=length) for k in keys]
        rows = jax.tree.map(lambda *a: np.concatenate(a)[:sequences], *jax.device_get(parts))
        sums = {name: float(np.sum(values, dtype=np.float64)) for name, values in rows.items()}
        return {"accuracy": sums["correct"] / sums["count"], "loss": sums["loss"] / sums["weight"]}

    def accuracy(self, model: Model, key: Key[Array, ""], length: int, sequences: int) -> float:
        """Returns the accuracy over `sequences` new sequences."""
        return self.figures(model, key, length, sequences)["accuracy"]

    def validate(self, model: Model, key: Key[Array, ""]) -> dict[str, float]:
        """Returns accuracy and loss on 256 sequences."""
        return self.figures(model, key, self.length, 256)

    def lengths(self, longest: int) -> list[int]:
        """Returns the lengths of a report: fractions and multiples of the training length, up to `longest` times."""
        doublings = range(int(math.log2(longest / self.least)) + 1)
        return sorted({max(self.shortest, int(self.length * self.least * 2**n)) for n in doublings})

    def report(self, model: Model, key: Key[Array, ""], folder: Path, options: ConfigDict) -> dict[str, Any]:
        """Reports accuracy and loss at `lengths`, with a picture."""
        trained, sequences, lengths = self.length, max(options.sequences, 256), self.lengths(options.longest)
        figures = {n: self.figures(model, jax.random.fold_in(key, n), n, sequences) for n in lengths}
        accuracy = {n: f["accuracy"] for n, f in figures.items()}
        title = f"{self.title}, {self.config.model.cell}: {accuracy[trained]:.3f}"
        plots.accuracy_by_length(accuracy, (trained, trained), self.chance, title, folder / "accuracy_by_length.png")
        return {
            "accuracy": accuracy[trained],
            "loss": figures[trained]["loss"],
            "length": trained,
            "sequences": sequences,
            "accuracy_by_length": {str(n): a for n, a in accuracy.items()},
            "loss_by_length": {str(n): f["loss"] for n, f in figures.items()},
        }
