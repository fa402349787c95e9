"""The formal languages: sampled on the device, read by a transducer, evaluated length by length."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Key
from ml_collections import ConfigDict, config_dict

from qlstm_jax.data.formal import TASKS
from qlstm_jax.models import Transducer
from qlstm_jax.models.layers import build_layer
from qlstm_jax.problems import plots
from qlstm_jax.problems.base import Batch, Model, Problem, Sums
from qlstm_jax.problems.config import ConfigError, check_lengths, fraction, not_negative, one_of, positive
from qlstm_jax.shardings import split_rows, whole_rows

POSITIONS = 2**16  # of the tapes that are evaluated at once
SOLVED = 0.9  # of the score, the mean accuracy over the lengths beyond those of training


class FormalProblem(Problem):
    """One of the fifteen tasks of `qlstm_jax.data.formal`."""

    name = "formal"
    evaluates = ("min_length", "max_length", "stride", "sequences")
    validation_metrics = ("accuracy",)
    rules: ClassVar = {
        "task": one_of(*TASKS),
        "min_length": positive,
        "curriculum": fraction,
        "associativity": not_negative,
    }

    @classmethod
    def defaults(cls) -> ConfigDict:
        """Returns the section of the config."""
        return config_dict.create(
            task="parity_check",  # a formal language
            min_length=1,  # training lengths, drawn uniformly
            max_length=40,
            mixed_lengths=True,  # one length for each sequence, or one for each batch as in the paper
            curriculum=0.0,  # share of the steps over which the longest length grows evenly from min to max
            associativity=0.0,  # weight of the penalty of qlstm_jax.cells.pr_lstm.regularization, for pr_lstm
        )

    @classmethod
    def check(cls, config: ConfigDict) -> None:
        """Checks the lengths, and that the model has a penalty that is wanted.

        Raises:
            ConfigError: where it has none, or there is no length to draw.
        """
        check_lengths("formal", config.formal)
        if config.formal.associativity and (config.model.cell != "pr_lstm" or config.model.bidirectional):
            raise ConfigError(
                f"formal.associativity is {config.formal.associativity}, but only a pr_lstm that reads forward has "
                "such a penalty: --config.model.cell=pr_lstm, or --config.formal.associativity=0"
            )

    def __init__(self, config: ConfigDict, workdir: str | Path) -> None:
        self.config = config
        self.task = TASKS[config.formal.task]
        self.single = self.task.output_length(1000) == 1
        self._counts = jax.jit(self._count, static_argnames=("graphdef", "max_length"))

    def model(self, rngs: nnx.Rngs) -> nnx.Module:
        """Returns a `Transducer` over the task's tape."""
        layer = build_layer(self.config.model, self.task.input_size + 1, rngs=rngs)
        return Transducer(
            layer,
            self.task.output_size,
            readout=self.config.model.readout,
            dropout=self.config.model.dropout,
            rngs=rngs,
        )

    def sample(self, key: Key[Array, ""], batch_size: int, step: Any) -> Batch:
        """Draws strings of uniform lengths from the training range, as far as the curriculum has reached."""
        lengths = self.config.formal
        longest = lengths.max_length
        if lengths.curriculum:
            done = jnp.minimum(step / (lengths.curriculum * self.config.train.steps), 1)
            longest = jnp.round(lengths.min_length + done * (longest - lengths.min_length)).astype(jnp.int32)
        k_length, k_string = jax.random.split(key)
        shape = (batch_size,) if lengths.mixed_lengths else ()
        drawn = jax.random.randint(k_length, shape, lengths.min_length, longest + 1)
        return self.task.sample(k_string, batch_size, drawn, max_length=lengths.max_length)

    def logits(self, model: Model, batch: Batch, rngs: nnx.Rngs | None = None) -> Array:
        """Returns the logits (B, M, output_size) of the answer. A single answer takes the last state alone."""
        ids, total = self.task.tape(batch)
        inputs = jnp.eye(self.task.input_size + 1), ids
        if self.single:
            last: Array = model.last_from_tokens(*inputs, seq_lengths=total, rngs=rngs)
            return last[:, None]
        return self.task.outputs(model.from_tokens(*inputs, seq_lengths=total, rngs=rngs), batch)

    def loss(self, model: Model, batch: Batch, rngs: nnx.Rngs | None) -> Sums:
        """Returns cross-entropy by sequence, and the associativity penalty if there is one; accuracy by token."""
        logits = self.logits(model, batch, rngs)
        correct, counted = self.task.correct(logits, batch)
        rows, loss = batch.lengths.shape[0], self.task.loss(logits, batch)
        if self.config.formal.associativity:
            xs, total = self.task.frame(batch)
            loss = loss + self.config.formal.associativity * model.layer.associativity(xs, seq_lengths=total, rngs=rngs)
        return {
            "loss": rows * loss,
            "weight": jnp.float32(rows),
            "correct": jnp.sum(correct),
            "count": jnp.sum(counted),
            "tokens": jnp.sum(batch.lengths + batch.target_lengths).astype(jnp.float32),
        }

    def _count(
        self, graphdef: nnx.GraphDef[Any], params: Any, key: Key[Array, ""], lengths: Array, max_length: int
    ) -> Any:
        batch = split_rows(self.task.sample(key, lengths.shape[0], lengths, max_length=max_length))
        return whole_rows(self.task.correct(self.logits(nnx.merge(graphdef, params), batch), batch))

    def accuracy_by_length(
        self, model: Model, key: Key[Array, ""], lengths: Sequence[int], sequences: int
    ) -> np.ndarray:
        """Returns the accuracy of each length, from `sequences` strings each.

        Lengths share 1 to 8 compiled programs, the more the more there is to evaluate: each is padded to the longest
        of its group, and rows of different lengths stand in one batch.

        Args:
            model: in evaluation mode.
            key: randomness of the strings; the same key gives the same strings.
            lengths: ascending lengths.
            sequences: strings of each length.

        Returns:
            (len(lengths),) float64, sum of mask · correct by sum of mask.
        """
        graphdef, params = nnx.split(model, nnx.Param)
        wanted = np.asarray(lengths, np.int32)
        count = min(max(int(wanted.sum()) * sequences // 2**19, 1), 8, len(wanted))
        pending = []
        for group in np.array_split(wanted, count):
            mine, max_length = np.repeat(group, sequences), int(group[-1])
            tape = max_length + int(self.task.output_length(max_length))
            batch = min(max(1, POSITIONS // tape), len(mine))
            for i, part in enumerate(np.split(mine, range(batch, len(mine), batch))):
                part_key = jax.random.fold_in(jax.random.fold_in(key, max_length), i)
                padded = np.concatenate([part, np.ones(batch - len(part), np.int32)])
                counts = self._counts(graphdef, params, part_key, padded, max_length=max_length)
                pending.append((part, counts))
        correct, counted = np.zeros(wanted[-1] + 1), np.zeros(wanted[-1] + 1)
        for part, (row_correct, row_counted) in pending:
            np.add.at(correct, part, np.asarray(row_correct, np.float64)[: len(part)])
            np.add.at(counted, part, np.asarray(row_counted, np.float64)[: len(part)])
        return correct[wanted] / counted[wanted]

    def validate(self, model: Model, key: Key[Array, ""]) -> dict[str, float]:
        """Returns the mean accuracy over the training lengths, 32 strings each."""
        lengths = range(self.config.formal.min_length, self.config.formal.max_length + 1)
        return {"accuracy": float(np.mean(self.accuracy_by_length(model, key, lengths, 32)))}

    def measure(self, model: Model, key: Key[Array, ""], options: ConfigDict) -> dict[str, Any]:
        """Measures `accuracy_by_length` in range and at the given lengths; their mean is the score, solved from 0.9.

        Args:
            model: in evaluation mode.
            key: randomness of the strings.
            options: the `eval` section of the config.
        """
        train = range(self.config.formal.min_length, self.config.formal.max_length + 1)
        test = range(options.min_length, options.max_length + 1, options.stride)
        k_train, k_test = jax.random.split(key)
        in_range = self.accuracy_by_length(model, k_train, train, options.sequences)
        beyond = self.accuracy_by_length(model, k_test, test, options.sequences)
        by_length = dict(zip(train, in_range, strict=True)) | dict(zip(test, beyond, strict=True))
        return {
            "score": float(beyond.mean()),
            "score_lengths": [options.min_length, options.max_length, options.stride],
            "solved": bool(beyond.mean() >= SOLVED),
            "in_range_accuracy": float(in_range.mean()),
            "train_lengths": [train[0], train[-1]],
            "sequences_per_length": options.sequences,
            "accuracy_by_length": {str(length): round(float(a), 4) for length, a in sorted(by_length.items())},
        }

    def report(self, model: Model, key: Key[Array, ""], folder: Path, options: ConfigDict) -> dict[str, Any]:
        """Reports what `measure` gives, with a picture."""
        report = self.measure(model, key, options)
        by_length = {int(length): accuracy for length, accuracy in report["accuracy_by_length"].items()}
        title = f"{self.config.formal.task}, {self.config.model.cell}: score {report['score']:.3f}"
        chance, path = 1 / self.task.output_size, folder / "accuracy_by_length.png"
        plots.accuracy_by_length(by_length, tuple(report["train_lengths"]), chance, title, path)
        return report
