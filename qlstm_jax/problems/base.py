"""The interface between a problem and the training loop and evaluation."""

import abc
import contextlib
from collections.abc import Generator, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Key
from ml_collections import ConfigDict

from qlstm_jax.problems.config import ConfigError, Rule

Model: TypeAlias = Any  # an nnx.Module, called as its problem calls it
Batch: TypeAlias = Any  # a pytree of (batch_size, ...) arrays
Sums: TypeAlias = dict[str, Array]  # scalars, or one number for each row: see `Problem.loss`


class Interface(NamedTuple):
    """What a program that runs an exported model must know of its inputs and outputs."""

    about: dict[str, Any]  # names of labels, units: what JSON has
    files: dict[str, str] = {}  # noqa: RUF012 - texts by the names of the files that `about` names


class Problem(abc.ABC):
    """Data, model and measure of a run. Randomness comes in as keys; the methods keep nothing that training changes.

    A problem that configs can name declares its section of the config, `defaults` and `rules`, and has one line in
    `qlstm_jax.problems.PROBLEMS`. One that is handed to `train` from Python needs neither.

    Args:
        config: of the run, checked.
        workdir: the run's folder, which keeps what belongs to a run, such as a tokenizer.
    """

    name: ClassVar[str] = ""  # of the problem in configs, and of its section
    rules: ClassVar[Mapping[str, Rule]] = {}  # for the keys of its section

    on_device = True  # whether `sample` draws the batches, or `stream` brings them from the host
    select = "accuracy"  # the validation metric that names the best checkpoint
    select_mode = "max"  # whether a higher one is better, or "min": a lower one
    evaluates: ClassVar[tuple[str, ...] | None] = None  # the keys of `eval` that `report` reads
    validation_metrics: ClassVar[tuple[str, ...]] = ()  # all that `validate` gives, where a config may select by them
    higher_is_better: ClassVar[frozenset[str]] = frozenset({"accuracy", "macro_f1"})  # of these; of others, lower is

    @classmethod
    def defaults(cls) -> ConfigDict:
        """Returns the problem's section of a config, each key with its default value."""
        return ConfigDict()

    @classmethod  # noqa: B027 - nothing to check is the common case
    def check(cls, config: ConfigDict) -> None:
        """Checks what goes beyond `rules`, of a config that names this problem: keys that must fit each other.

        Raises:
            ConfigError: naming the key, what it is and what was expected.
        """

    @classmethod
    def unused(cls, config: ConfigDict) -> list[str]:
        """Notes on keys that were changed but that such a run does not use."""
        return []

    @abc.abstractmethod
    def model(self, rngs: nnx.Rngs) -> nnx.Module:
        """Returns a new model."""

    def sample(self, key: Key[Array, ""], batch_size: int, step: Any) -> Batch:
        """Draws a batch for step `step` on the device: a pytree of (batch_size, ...). Only where `on_device`."""
        raise TypeError(f"{type(self).__name__} has no sampler; its batches come from stream()")

    def stream(self, start: int) -> Generator[Batch, None, None]:
        """Yields the host's batches from position `start` on, (batch_size, ...) each. Only where not `on_device`."""
        raise TypeError(f"{type(self).__name__} has no stream; its batches are drawn by sample()")

    @abc.abstractmethod
    def loss(self, model: Model, batch: Batch, rngs: nnx.Rngs | None) -> Sums:
        """Returns the sums over a batch or a device's part of one, all scalars.

        `loss` divided by `weight` is what is minimised; `correct` divided by `count` is the accuracy, and both are left
        out where nothing is right or wrong; `tokens` are the valid positions, for the speed.
        """

    def initial_carry(self, model: Model, batch_size: int) -> Any:
        """Returns the carry from batch to batch before step 0: a pytree of (batch_size, ...), row by row.

        None where batches have nothing to do with each other.
        """
        return None

    def continued_loss(self, model: Model, batch: Batch, rngs: nnx.Rngs | None, carry: Any) -> tuple[Sums, Any]:
        """Returns `loss` from the carry of the batch before, and the next carry. Only for problems that have one."""
        raise TypeError(f"{type(self).__name__} has no carry from batch to batch; its loss is loss()")

    @abc.abstractmethod
    def validate(self, model: Model, key: Key[Array, ""]) -> dict[str, float]:
        """Returns figures on the validation data, cheap enough to take now and then."""

    @abc.abstractmethod
    def report(self, model: Model, key: Key[Array, ""], folder: Path, options: ConfigDict) -> dict[str, Any]:
        """Evaluates in full: returns the figures, which are written as JSON, and writes pictures to `folder`.

        Args:
            model: in evaluation mode.
            key: randomness of the evaluation.
            folder: an existing directory.
            options: the `eval` section of the config.
        """

    def predict(self, model: Model, lines: list[str]) -> list[dict[str, Any]]:
        """Predicts one record for each line of text."""
        raise ConfigError(
            f"{type(self).__name__} has no predictions for lines of text; train on problem='text' for those"
        )

    def predict_file(self, model: Model, path: Path) -> Iterable[dict[str, Any]]:
        """Yields the records of a file, one by one as they are read and computed: of a file of any size."""
        raise ConfigError(
            f"{type(self).__name__} has no predictions for a file; train on problem='text' or 'series' for those"
        )

    def score_file(self, model: Model, path: Path, folder: Path) -> dict[str, Any]:
        """Reports as `report` on a labelled file that is no part of the run; writes pictures to `folder`."""
        raise ConfigError(f"{type(self).__name__} scores no other file; train on problem='text' for that")

    def generate(self, model: Model, prompts: list[str], steps: int, key: Key[Array, ""], **options: Any) -> list[str]:
        """Continues each prompt by `steps` tokens; options as for `qlstm_jax.models.generate.generate`."""
        raise ConfigError(f"{type(self).__name__} generates no text; train on problem='lm' for that (configs/lm.py)")

    def interface(self) -> Interface:
        """What a program that runs the exported model must know besides shapes; by default nothing."""
        return Interface({})

    def largest_batch(self) -> Any:
        """Returns the shapes of the largest batch of training; None where the problem draws its own in the step."""
        if self.on_device:
            return None
        with contextlib.closing(self.stream(0)) as batches:
            return shapes(next(batches))

    def notes(self) -> list[str]:
        """Notes for the log before training, a line each: rows skipped, texts cut, padding."""
        return []


def shapes(batch: Any) -> Any:
    """Returns a pytree of arrays as one of their shapes and dtypes."""
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), batch)


def classification_rows(
    logits: ArrayLike, labels: ArrayLike, weights: ArrayLike, tokens: ArrayLike, *, smoothing: float = 0.0
) -> Sums:
    """Returns the sums that `Problem.loss` returns, for each row by itself: (B,) each.

    Args:
        logits: (B, C), or (B, M, C) for M answers a row.
        labels, weights: (B,) or (B, M).
        tokens: (B,).
        smoothing: ε of label smoothing (arXiv 1512.00567, section 7): the target is 1 − ε on the label and ε / C on
            every class besides.
    """
    logits, labels = jnp.asarray(logits, jnp.float32), jnp.asarray(labels)
    losses = (1 - smoothing) * optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    if smoothing:
        losses = losses - smoothing * jnp.mean(jax.nn.log_softmax(logits), axis=-1)
    correct = (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32)
    weights, tokens = jnp.asarray(weights, jnp.float32), jnp.asarray(tokens, jnp.float32)
    loss, weight, correct = (
        jnp.sum(a.reshape(a.shape[0], -1), axis=1) for a in (weights * losses, weights, weights * correct)
    )
    return {"loss": loss, "weight": weight, "correct": correct, "count": weight, "tokens": tokens}


def classification_sums(
    logits: ArrayLike, labels: ArrayLike, weights: ArrayLike, tokens: ArrayLike, *, smoothing: float = 0.0
) -> Sums:
    """Returns the sums that `Problem.loss` returns, over the rows of `classification_rows`."""
    rows = classification_rows(logits, labels, weights, tokens, smoothing=smoothing)
    sums: Sums = jax.tree.map(jnp.sum, rows)
    return sums
