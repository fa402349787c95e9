"""Names and shapes compared with what a converter expects, all differences in one message."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
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


def check_arrays(source: str, arrays: Mapping[str, ArrayLike], expected: Mapping[str, Shape]) -> None:
    """Raises ValueError unless `arrays` has the names and shapes of `expected`, no more and no less.

    Args:
        source: what the arrays are, for the message.
        arrays: mapping from name to array.
        expected: mapping from name to shape; an axis of unknown size is None and fits any.
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
        raise ValueError(f"These are not the weights of {source}. " + "; ".join(problems))


def _fits(given: Sequence[int], expected: Shape) -> bool:
    return len(given) == len(expected) and all(e in (None, g) for g, e in zip(given, expected, strict=True))


def _show(shape: Shape) -> str:
    return "(" + ", ".join("?" if n is None else str(n) for n in shape) + ")"
