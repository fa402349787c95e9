"""A table that reads both ways: which arrays of another library make up which parameter of a module of ours.

One `Entry` a parameter of ours, made by the functions below. A parameter's place in its module is written with dots,
"blocks.0.norm.scale". Kernels of the other library are (out, in), ours (in, out).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from qlstm_jax.interop import checks

Arrays = Sequence[np.ndarray]


class Entry(NamedTuple):
    """A parameter of ours."""

    place: str
    theirs: Mapping[str, checks.Shape]  # their names and shapes, in order
    read: Callable[[Arrays], np.ndarray]
    write: Callable[[np.ndarray], Arrays]


def same(place: str, name: str, *shape: int) -> Entry:
    """An array that is the same on both sides."""
    return Entry(place, {name: shape}, lambda arrays: arrays[0], lambda array: [array])


def linear(place: str, rows: Mapping[str, int], columns: int) -> Entry:
    """Maps of one input, their names with the outputs of each, side by side in one kernel."""
    ends = np.cumsum(list(rows.values()))[:-1]
    shapes = {name: (size, columns) for name, size in rows.items()}
    return Entry(place, shapes, lambda arrays: np.concatenate(arrays).T, lambda array: np.split(array.T, ends))


def vectors(place: str, sizes: Mapping[str, int]) -> Entry:
    """Vectors side by side in one, such as the biases of `linear`."""
    ends = np.cumsum(list(sizes.values()))[:-1]
    shapes = {name: (size,) for name, size in sizes.items()}
    return Entry(place, shapes, np.concatenate, lambda array: np.split(array, ends))


def headwise(place: str, names: Sequence[str], heads: int, size: int) -> Entry:
    """Maps (N, K, K) of each head to itself, stacked."""
    shapes: dict[str, checks.Shape] = dict.fromkeys(names, (heads, size, size))
    return Entry(
        place, shapes, lambda arrays: np.stack(arrays).swapaxes(2, 3), lambda array: list(array.swapaxes(2, 3))
    )


def convolution(place: str, name: str, features: int, width: int) -> Entry:
    """The kernel (C, 1, W) of a depthwise convolution over time, ours (W, C)."""
    return Entry(
        place, {name: (features, 1, width)}, lambda arrays: arrays[0][:, 0].T, lambda array: [array.T[:, None]]
    )


def moved(entries: Iterable[Entry], place: str, name: str) -> list[Entry]:
    """The entries of a module that stands at `place` in ours and whose names begin with `name` in theirs."""
    return [
        entry._replace(place=place + entry.place, theirs={name + n: shape for n, shape in entry.theirs.items()})
        for entry in entries
    ]


def shapes(entries: Iterable[Entry]) -> dict[str, checks.Shape]:
    """Their names and shapes."""
    return {name: shape for entry in entries for name, shape in entry.theirs.items()}


def read(entries: Iterable[Entry], arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Our parameters from their arrays: a tree by the parts of each place, those that are numbers as integers."""
    tree: dict[str, Any] = {}
    for entry in entries:
        *path, last = [int(part) if part.isdecimal() else part for part in entry.place.split(".")]
        node: dict[Any, Any] = tree
        for part in path:
            node = node.setdefault(part, {})
        node[last] = entry.read([arrays[name] for name in entry.theirs])
    return tree


def write(entries: Iterable[Entry], parameters: Mapping[str, Any]) -> dict[str, Float[np.ndarray, "..."]]:
    """Their arrays from our parameters by place, writable and of a dtype that PyTorch knows."""
    arrays: dict[str, np.ndarray] = {}
    for entry in entries:
        parts = entry.write(np.asarray(parameters[entry.place]))
        arrays |= {name: checks.writable(part) for name, part in zip(entry.theirs, parts, strict=True)}
    return arrays
