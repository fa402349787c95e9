"""Names and shapes compared with what a converter expects, all differences in one message; weights as numpy arrays."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

Shape: TypeAlias = tuple[int | None, ...]  # None: of unknown size


def size(arrays: Mapping[str, ArrayLike], name: str, axis: int, divisor: int = 1) -> int | None:
    """`arrays[name].shape[axis] // divisor`, or None where there is no such name or axis."""
    if name not in arrays:
        return None
    shape = np.shape(arrays[name])
    return shape[axis] // divisor if -len(shape) <= axis < len(shape) else None


def times(factor: int, value: int | None) -> int | None:
    """`factor * value`, None if the value is None: the size that follows from an unknown one is unknown too."""
    return None if value is None else factor * value


def checked(
    source: str, arrays: Mapping[str, ArrayLike], expected: Mapping[str, Shape], hint: str = ""
) -> dict[str, Float[np.ndarray, "..."]]:
    """`arrays` as numpy arrays, if they have the names and shapes of `expected`, no more and no less.

    Args:
        source: what the arrays are, for the message.
        arrays: mapping from name to array, of any library; see `as_numpy`.
        expected: mapping from name to shape; an axis of unknown size is None and fits any.
        hint: the end of the message.

    Raises:
        ValueError: that lists every name missing, unexpected or of another shape; for an array of other numbers.
    """
    missing = sorted(set(expected) - set(arrays))
    unexpected = sorted(set(arrays) - set(expected))
    misshaped = [
        f"{name} is {_show(np.shape(arrays[name]))}, expected {_show(shape)}"
        for name, shape in sorted(expected.items())
        if name in arrays and not _fits(np.shape(arrays[name]), shape)
    ]
    lists = {"missing": missing, "unexpected": unexpected, "of another shape": misshaped}
    problems = [f"{what}: {', '.join(names)}" for what, names in lists.items() if names]
    if problems:
        raise ValueError(f"These are not the weights of {source}. " + "; ".join(problems) + hint)
    return {name: as_numpy(name, array) for name, array in arrays.items()}


def as_numpy(name: str, array: Any) -> Float[np.ndarray, "..."]:
    """A weight as a numpy array with the same numbers, of the same kind of float.

    Args:
        name: for the message.
        array: what numpy reads, or a PyTorch tensor: on any device, wanting gradients or not, bfloat16 too, which
            neither numpy nor PyTorch turns into the other.

    Raises:
        ValueError: if it does not hold floating-point numbers.
    """
    if hasattr(array, "detach"):
        array = array.detach().cpu()
        kind = str(array.dtype).removeprefix("torch.")
        if array.dtype.is_floating_point and kind not in ("float16", "float32", "float64"):
            return np.asarray(array.float().numpy(), jnp.dtype(kind))  # there and back without rounding
    numbers = np.asarray(array)
    if not jnp.issubdtype(numbers.dtype, jnp.floating):
        raise ValueError(f"{name} is an array of {numbers.dtype}; expected floating-point numbers")
    return numbers


def writable(array: ArrayLike) -> Float[np.ndarray, "..."]:
    """A copy that `torch.from_numpy` takes: of a dtype that both know, contiguous and writable."""
    array = np.asarray(array)
    known = array.dtype in (np.float16, np.float32, np.float64)
    return np.array(array, array.dtype if known else np.float32, order="C")


def _fits(given: Sequence[int], expected: Shape) -> bool:
    return len(given) == len(expected) and all(e in (None, g) for g, e in zip(given, expected, strict=True))


def _show(shape: Shape) -> str:
    return "(" + ", ".join("?" if n is None else str(n) for n in shape) + ")"
