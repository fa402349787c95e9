"""Handwritten digits as sequences: images pixel by pixel, or clips of two digits that move."""

from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Key
from ml_collections import ConfigDict, config_dict

from qlstm_jax.data import digits
from qlstm_jax.problems import metrics, plots
from qlstm_jax.problems.base import Batch, Model, Problem, Sums, classification_rows
from qlstm_jax.problems.config import at_least, check_split, fraction, not_negative, one_of, positive
from qlstm_jax.problems.models import predictor
from qlstm_jax.shardings import split_rows, whole_rows

CLIPS = 256  # that are evaluated at once


class DigitsProblem(Problem):
    """`qlstm_jax.data.digits`: the images of each part are kept on the device, where batches are drawn from them."""

    name = "digits"
    evaluates = ("sequences",)
    validation_metrics = ("accuracy", "loss")
    rules: ClassVar = {
        "mode": one_of("pixels", "clips"),
        "validation": fraction,
        "test": fraction,
        "split_seed": not_negative,
        "frames": positive,
        "canvas": at_least(9),
        "speed": not_negative,
    }

    @classmethod
    def defaults(cls) -> ConfigDict:
        """Returns the section of the config."""
        return config_dict.create(
            mode="pixels",  # pixels: an image of 64 steps; clips: two digits that move, a frame a step
            validation=0.1,  # shares of the images
            test=0.2,
            split_seed=0,
            frames=20,  # clips
            canvas=16,  # clips: pixels of a side
            speed=1.0,  # clips: pixels a frame
        )

    @classmethod
    def check(cls, config: ConfigDict) -> None:
        """Checks the shares of the parts."""
        check_split("digits", config.digits)

    def __init__(self, config: ConfigDict, workdir: str | Path) -> None:
        self.config = config
        options = config.digits
        self.clips = options.mode == "clips"
        sizes = {"frames": options.frames, "canvas": options.canvas, "speed": options.speed}
        self.task: Any = digits.Clips(**sizes) if self.clips else digits.Pixels()
        shares = {"validation": options.validation, "test": options.test}
        parts = digits.split(*digits.load(), **shares, seed=options.split_seed)
        self.parts = {name: tuple(map(jnp.asarray, part)) for name, part in parts.items()}
        self._read = jax.jit(self._evaluate, static_argnames="graphdef")
        self._draw = jax.jit(self.task.sample, static_argnums=1)

    def model(self, rngs: nnx.Rngs) -> nnx.Module:
        """Returns a `Predictor` of the classes."""
        return predictor(self.config.model, self.task.channels, self.task.num_classes, rngs)

    def sample(self, key: Key[Array, ""], batch_size: int, step: Any) -> Batch:
        """Draws sequences made of training images."""
        return self.task.sample(key, batch_size, *self.parts["train"])

    def _rows(self, model: Model, batch: Batch, rngs: nnx.Rngs | None) -> tuple[Sums, Array]:
        """Returns the sums of `loss` for each row by itself, and the classes that the model says."""
        logits = model(batch.inputs, rngs=rngs)
        rows = logits.shape[0]
        sums = classification_rows(logits, batch.labels, jnp.ones(rows), jnp.full(rows, self.task.length))
        return sums, jnp.argmax(logits, axis=-1)

    def loss(self, model: Model, batch: Batch, rngs: nnx.Rngs | None) -> Sums:
        """Returns the cross-entropy and accuracy of the class."""
        sums: Sums = jax.tree.map(jnp.sum, self._rows(model, batch, rngs)[0])
        return sums

    def _evaluate(self, graphdef: nnx.GraphDef[Any], params: Any, batch: Batch) -> tuple[Array, Array, Array]:
        batch = split_rows(batch)
        rows, predicted = self._rows(nnx.merge(graphdef, params), batch, None)
        loss, labels, predicted = whole_rows((rows["loss"], batch.labels, predicted))
        return loss, labels, predicted

    def confusion(self, model: Model, key: Key[Array, ""], part: str, sequences: int) -> tuple[np.ndarray, float]:
        """Counts (true class, predicted class), and the mean cross-entropy, of a part's images.

        Args:
            model: in evaluation mode.
            key: randomness of the clips.
            part: "train", "validation" or "test".
            sequences: how many clips to draw; of pixels, every image is read once.
        """
        graphdef, params = nnx.split(model, nnx.Param)
        images = self.parts[part]
        if self.clips:
            keys = jax.random.split(key, -(-sequences // CLIPS))
            batches = [self._draw(k, min(sequences, CLIPS), *images) for k in keys]
        else:
            batches, sequences = [self.task.batch(*images)], len(images[1])
        read = jax.device_get([self._read(graphdef, params, batch) for batch in batches])
        losses, labels, predicted = (np.concatenate(rows)[:sequences] for rows in zip(*read, strict=True))
        confusion = np.zeros((self.task.num_classes,) * 2, np.int64)
        np.add.at(confusion, (labels, predicted), 1)
        return confusion, float(np.mean(losses, dtype=np.float64))

    def validate(self, model: Model, key: Key[Array, ""]) -> dict[str, float]:
        """Returns accuracy and cross-entropy on the validation images, or on 256 clips of them."""
        confusion, loss = self.confusion(model, key, "validation", 256)
        return {"accuracy": float(np.trace(confusion) / confusion.sum()), "loss": loss}

    def report(self, model: Model, key: Key[Array, ""], folder: Path, options: ConfigDict) -> dict[str, Any]:
        """Reports accuracy, macro-F1 and figures by class on the test images or clips, and the confusion matrix."""
        confusion, loss = self.confusion(model, key, "test", max(options.sequences, 256))
        names = [str(n) for n in range(self.task.num_classes)]
        figures = metrics.classification(confusion, names)
        title = f"digits, {self.config.digits.mode}, {self.config.model.cell}: accuracy {figures['accuracy']:.3f}"
        plots.confusion_matrix(confusion, names, title, folder / "confusion_matrix.png")
        return {"part": "test", "loss": loss, **figures}

    def notes(self) -> list[str]:
        """Notes the parts, and what a sequence is."""
        sizes = ", ".join(f"{name} {len(labels)}" for name, (_, labels) in self.parts.items())
        return [f"{sizes} images; sequences of {self.task.length} steps of {self.task.channels} channels"]
