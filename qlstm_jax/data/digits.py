"""Handwritten digits, 8 x 8 pixels each, as sequences: pixel by pixel, or two moving over a canvas, frame by frame.

The 1,797 images are those of scikit-learn's `load_digits`: the test part of UCI's "Optical Recognition of Handwritten
Digits". scikit-learn is needed by `load` alone.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, Shaped

from qlstm_jax.data.checks import as_array, at_least, check_key, check_shares, count, is_number, shown
from qlstm_jax.data.rows import DataError

SIDE = 8  # pixels of an image


def load() -> tuple[Float[np.ndarray, "images 8 8"], Int[np.ndarray, " images"]]:
    """Loads all images (1797, 8, 8) float32 in [0, 1] and their digits (1797,) int32, in scikit-learn's order.

    Raises:
        DataError: if scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError(
            "the digits come with scikit-learn, which is not installed; pip install scikit-learn, or from a clone of "
            'this project pip install ".[digits]"'
        ) from error
    bunch = load_digits()
    return (bunch.images / 16).astype(np.float32), bunch.target.astype(np.int32)


def split(
    images: Shaped[np.ndarray, "images ..."],
    labels: Shaped[np.ndarray, " images"],
    *,
    validation: float,
    test: float,
    seed: int,
) -> dict[str, tuple[Shaped[np.ndarray, "part ..."], Shaped[np.ndarray, " part"]]]:
    """Splits images and labels into "train", "validation" and "test", in an order that `seed` alone decides.

    Args:
        images: (N, ...).
        labels: (N,).
        validation, test: shares of the images, each more than 0, together less than 1.
        seed: of the order.

    Raises:
        DataError: for shares out of range, or if a part gets nothing.
    """
    check_shares(validation, test)
    count("seed", seed)
    if not hasattr(images, "shape") or not hasattr(labels, "shape") or labels.shape != images.shape[:1]:
        raise DataError(
            f"images is {shown(images)} and labels {shown(labels)}; give arrays with a label for each image"
        )
    order = np.random.default_rng(seed).permutation(len(images))
    ends = np.cumsum([round(len(images) * share) for share in (test, validation)])
    parts = dict(zip(("test", "validation", "train"), np.split(order, ends), strict=True))
    for name, part in parts.items():
        if not len(part):
            raise DataError(f"nothing of {len(images)} images is left for the {name} part; give other shares")
    return {name: (images[part], labels[part]) for name, part in parts.items()}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DigitsBatch:
    """Labelled sequences of one length (a pytree).

    Attributes:
        inputs: (B, T, C) float32 in [0, 1].
        labels: (B,) int32.
    """

    inputs: Float[Array, "batch time channels"]
    labels: Int[Array, " batch"]


def _real(name: str, a: Any, shape: tuple[int | None, ...]) -> Array:
    """Returns `a` as an array of real numbers of this shape, None being any size."""
    text = f"({', '.join('n' if size is None else str(size) for size in shape)})"
    array = as_array(name, a, f"real numbers of shape {text}")
    fits = array.ndim == len(shape) and all(n in (None, m) for n, m in zip(shape, array.shape, strict=True))
    if not fits or not any(jnp.issubdtype(array.dtype, kind) for kind in (jnp.floating, jnp.integer)):
        raise ValueError(f"{name} is {shown(array)}; expected real numbers of shape {text}")
    return jnp.asarray(array)


def _checked(images: Any, labels: Any, fewest: int) -> tuple[Array, Array]:
    """Returns images (N, 8, 8) and labels (N,) in 0..9 as arrays, N at least `fewest`."""
    images = _real("images", images, (None, SIDE, SIDE))
    labels = as_array("labels", labels, "a digit for each image")
    if labels.shape != images.shape[:1] or not jnp.issubdtype(labels.dtype, jnp.integer) or len(labels) < fewest:
        raise ValueError(f"labels is {shown(labels)} for {images.shape[0]} images; expected an integer for each")
    if not isinstance(labels, jax.core.Tracer) and labels.size:
        known = np.asarray(labels)
        if known.min() < 0 or known.max() > 9:
            raise ValueError(f"labels run from {known.min()} to {known.max()}; expected 0..9")
    return images, jnp.asarray(labels)


@dataclasses.dataclass(frozen=True)
class Pixels:
    """An image is 64 steps of one channel, row by row; its label is the digit."""

    length, channels, num_classes = SIDE * SIDE, 1, 10

    def sample(
        self, key: Key[Array, ""], batch_size: int, images: Float[Array, "images 8 8"], labels: Int[Array, " images"]
    ) -> DigitsBatch:
        """Draws images (N, 8, 8) with labels (N,), each as likely as the others and with replacement.

        Raises:
            TypeError: if `key` is no PRNG key.
            ValueError: if batch_size is no positive integer, or images or labels are nothing of the kind.
        """
        check_key(key)
        at_least("batch_size", batch_size, 1)
        images, labels = _checked(images, labels, 1)
        chosen = jax.random.randint(key, (batch_size,), 0, images.shape[0])
        return self.batch(images[chosen], labels[chosen])

    def batch(self, images: Float[Array, "batch 8 8"], labels: Int[Array, " batch"]) -> DigitsBatch:
        """Makes a batch of images (B, 8, 8) and labels (B,) as they are; errors as of `sample`."""
        images, labels = _checked(images, labels, 0)
        return DigitsBatch(images.reshape(images.shape[0], self.length, 1), labels)


@dataclasses.dataclass(frozen=True)
class Clips:
    """Two digits move over a canvas and bounce off its edges; the label is their sum, 0..18. A frame is one step.

    In the manner of Moving MNIST (arXiv 1502.04681): each digit starts anywhere and moves in any direction
    at one speed, and where the two overlap the brighter pixel shows. Along either axis the offset at frame f is

        |((p + f·v + R) mod 2R) − R|        p uniform in [0, R), R = canvas − 8, v the speed's part along the axis

    a triangular wave. Offsets are not rounded: a pixel between two of the canvas is shared by them linearly.

    Attributes:
        frames: F, at least 1.
        canvas: pixels of a side, at least 9.
        speed: pixels a frame, at least 0.

    Raises:
        ValueError: if one is out of range.
    """

    frames: int = 20
    canvas: int = 16
    speed: float = 1.0

    num_classes = 19

    def __post_init__(self) -> None:
        at_least("frames", self.frames, 1)
        at_least("canvas", self.canvas, SIDE + 1)
        if not is_number(self.speed) or self.speed < 0:
            raise ValueError(f"speed is {shown(self.speed)}; expected 0 or more")

    @property
    def length(self) -> int:
        """Steps of a sequence: F."""
        return self.frames

    @property
    def channels(self) -> int:
        """Channels of a step: canvas²."""
        return self.canvas**2

    def sample(
        self, key: Key[Array, ""], batch_size: int, images: Float[Array, "images 8 8"], labels: Int[Array, " images"]
    ) -> DigitsBatch:
        """Draws two of the images (N, 8, 8) with labels (N,) for each clip, with replacement, and their ways.

        Raises:
            TypeError: if `key` is no PRNG key.
            ValueError: if batch_size is no positive integer, or images or labels are nothing of the kind.
        """
        check_key(key)
        at_least("batch_size", batch_size, 1)
        images, labels = _checked(images, labels, 1)
        k_image, k_start, k_angle = jax.random.split(key, 3)
        chosen = jax.random.randint(k_image, (batch_size, 2), 0, images.shape[0])
        start = jax.random.uniform(k_start, (batch_size, 2, 2), maxval=self.canvas - SIDE)
        angle = jax.random.uniform(k_angle, (batch_size, 2), maxval=2 * jnp.pi)
        velocity = self.speed * jnp.stack([jnp.sin(angle), jnp.cos(angle)], axis=-1)
        frames = self.render(images[chosen], start, velocity)
        return DigitsBatch(frames, jnp.sum(labels[chosen], axis=1))

    def render(
        self,
        images: Float[Array, "batch 2 8 8"],
        start: Float[Array, "batch 2 2"],
        velocity: Float[Array, "batch 2 2"],
    ) -> Float[Array, "batch frames pixels"]:
        """Renders the frames (B, F, canvas²) of images (B, 2, 8, 8) from offsets (B, 2, 2), rows before columns.

        Raises:
            ValueError: if a shape or dtype does not fit.
        """
        images = _real("images", images, (None, 2, SIDE, SIDE))
        start, velocity = (
            _real(name, a, (images.shape[0], 2, 2)) for name, a in (("start", start), ("velocity", velocity))
        )
        reach = self.canvas - SIDE
        time = jnp.arange(self.frames, dtype=jnp.float32)[None, None, :, None]
        offset = jnp.abs((start[:, :, None] + time * velocity[:, :, None] + reach) % (2 * reach) - reach)
        # share[.., c, i]: how much of the image's row (or column) i falls on row (or column) c of the canvas.
        distance = jnp.arange(self.canvas)[:, None] - jnp.arange(SIDE)[None, :]
        share = jnp.maximum(1 - jnp.abs(distance[None, None, None, None] - offset[..., None, None]), 0)
        rows, columns = share[:, :, :, 0], share[:, :, :, 1]
        # Products of pixels in full precision everywhere: they are few, and accelerators would round them.
        moved = jnp.einsum("bdfyi,bdij,bdfxj->bdfyx", rows, images, columns, precision=jax.lax.Precision.HIGHEST)
        return jnp.max(moved, axis=1).reshape(images.shape[0], self.frames, self.channels)
