"""A trained run in Python: `qlstm_jax.load_run(workdir)` predicts whole sequences and reads streams."""

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike
from ml_collections import ConfigDict

from qlstm_jax.problems.base import Problem
from qlstm_jax.training.config import ConfigError
from qlstm_jax.training.evaluate import restore
from qlstm_jax.training.opening import OwnModel, OwnProblem


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained run, from `load_run`.

    run = qlstm_jax.load_run("runs/reviews")
    run.predict(["a fine film"])                    # texts, for a problem that reads them
    run.predict(ids, seq_lengths=seq_lengths)       # arrays, as the model reads them
    stream = run.stream()
    for token in tokens:
        outputs = stream.step(token)

    Attributes:
        workdir: the run's folder.
        config: of the run.
        problem: its problem, whose tokenizer and label names may be of use.
        model: in evaluation mode.
        step: the training step of the checkpoint.
    """

    workdir: Path
    config: ConfigDict
    problem: Problem
    model: Any
    step: int

    def predict(self, inputs: str | Sequence[str] | ArrayLike, *, seq_lengths: ArrayLike | None = None) -> Any:
        """Returns the model's predictions.

        Args:
            inputs: a text or several, of which the problem makes predictions (`Problem.predict`); or what the model
                reads: (B, T) tokens or (B, T, D) numbers, scaled as in training.
            seq_lengths: of arrays, optional (B,) number of valid positions.

        Returns:
            A record a text, such as {"text", "label", "probabilities"}, and of a single text that one; of arrays the
            model's outputs as a numpy array.

        Raises:
            ConfigError: of a problem that makes no predictions of texts, or for seq_lengths with texts.
        """
        texts = [inputs] if isinstance(inputs, str) else inputs
        if isinstance(texts, Sequence) and all(isinstance(text, str) for text in texts):
            if seq_lengths is not None:
                raise ConfigError("seq_lengths is given with texts; expected None, as a text has its own length")
            records = self.problem.predict(self.model, list(texts))
            return records[0] if isinstance(inputs, str) else records
        array = jnp.asarray(inputs)
        lengths = jnp.full(array.shape[:1], array.shape[1], jnp.int32) if seq_lengths is None else seq_lengths
        return np.asarray(self._call(self._parts[1], array, jnp.asarray(lengths)))

    def stream(self, batch_size: int = 1) -> "Stream":
        """Starts a stream of `batch_size` rows that have read nothing yet.

        Raises:
            ValueError: for a model without a carry, such as a bidirectional one or a Transformer.
        """
        return Stream(self, self.model.initialize_carry(batch_size))

    @cached_property
    def _parts(self) -> tuple[nnx.GraphDef[Any], Any]:
        return nnx.split(self.model)

    @cached_property
    def _call(self) -> Any:
        return jax.jit(lambda params, xs, lengths: nnx.merge(self._parts[0], params)(xs, seq_lengths=lengths))

    @cached_property
    def _step(self) -> Any:
        return jax.jit(lambda params, carry, x, reset: nnx.merge(self._parts[0], params).step(carry, x, reset=reset))


class Stream:
    """Rows that are read one token at a time; `carry` is what they have read."""

    def __init__(self, run: Run, carry: Any) -> None:
        self.run, self.carry = run, carry

    def step(self, x: ArrayLike, *, reset: ArrayLike | None = None) -> np.ndarray:
        """Reads one more token per row; returns the outputs (B, K) that `predict` gives for all tokens so far.

        Args:
            x: a token of each row, (B,) integers, or (B, D) numbers, as the model reads them; a stream of one row may
                leave the axis B out of tokens.
            reset: optional (B,) booleans, true where a row begins anew with this token.

        Raises:
            ValueError: if x or the reset does not fit.
        """
        array = jnp.asarray(x)
        array = array[None] if array.ndim == 0 else array
        self.carry, outputs = self.run._step(self.run._parts[1], self.carry, array, reset)
        return np.asarray(outputs)


def load_run(
    workdir: str | Path,
    *,
    checkpoint: str | None = None,
    problem: OwnProblem | None = None,
    model: OwnModel | None = None,
) -> Run:
    """Loads a trained run, ready to predict.

    Args:
        workdir: its folder.
        checkpoint: "last", "best", or None for what the run's config selects.
        problem, model: your own, as the run was trained with.

    Raises:
        ConfigError: if there is no run or no such checkpoint.
    """
    config, made, trained, step = restore(workdir, checkpoint=checkpoint, problem=problem, model=model)
    return Run(Path(workdir), config, made, trained, step)
