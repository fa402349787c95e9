"""A cell, as all that runs cells sees it: a module of pure functions, whose options are the keywords of `init`."""

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Array, Float

from qlstm_jax.cells.common.masks import last_valid
from qlstm_jax.cells.common.meshes import on_any_mesh

# Keywords of every `init` that are no options of the cell: they are the same for all.
COMMON_KEYWORDS = ("dtype", "param_dtype")


@runtime_checkable
class Cell(Protocol):
    """The functions of a cell; a module of `qlstm_jax.cells` is one.

    `unroll` equals folding `step`: the same outputs and the same last carry, to rounding, for any length from 0 up.
    """

    @property
    def __name__(self) -> str:
        """The module's name; its last part is the cell's name in configs."""

    @property
    def Params(self) -> Any:
        """The class of the params: a frozen dataclass whose arrays are leaves of a pytree."""

    @property
    def Carry(self) -> Any:
        """The class of the carry: a named tuple of (B, ...) arrays."""

    @property
    def init(self) -> Callable[..., Any]:
        """init(key, input_size, hidden_size, *, dtype, param_dtype, **options) -> params."""

    @property
    def initial_carry(self) -> Callable[..., Any]:
        """initial_carry(params, batch_size) -> the carry before the first token."""

    @property
    def step(self) -> Callable[..., tuple[Any, Array]]:
        """step(params, carry, x (B, D), *, reset=None) -> (carry, y (B, H))."""

    @property
    def unroll(self) -> Callable[..., tuple[Any, Array]]:
        """unroll(params, xs (B, T, D), *, seq_lengths=None, resets=None, carry=None) -> (carry, ys (B, T, H))."""

    @property
    def last(self) -> Callable[..., Float[Array, "batch hidden"]]:
        """last(params, xs, *, seq_lengths=None, resets=None) -> each row's last valid output, zeros at length 0."""


def last_by_unroll(unroll: Callable[..., tuple[Any, Array]]) -> Callable[..., Float[Array, "batch hidden"]]:
    """The `last` of a cell that has no cheaper way to its last output than all of them."""

    @on_any_mesh("xs")
    def last(params: Any, xs: Array, *, seq_lengths: Any = None, resets: Any = None) -> Array:
        """The output at each row's last valid position, (B, H); zeros at length 0. Arguments are those of `unroll`."""
        return last_valid(unroll(params, xs, seq_lengths=seq_lengths, resets=resets)[1], seq_lengths)

    return last


def cell_options(cell: Cell | ModuleType) -> dict[str, inspect.Parameter]:
    """The options of a cell by name: the keywords of its `init`, but for those that all cells have."""
    keywords = inspect.signature(cell.init).parameters.values()
    return {p.name: p for p in keywords if p.kind is p.KEYWORD_ONLY and p.name not in COMMON_KEYWORDS}


def option_docs(function: Callable[..., Any]) -> dict[str, str]:
    """The description of each argument in a docstring of Google style, its lines joined."""
    docs: dict[str, str] = {}
    lines = inspect.getdoc(function) or ""
    _, _, section = lines.partition("\nArgs:\n")
    name = ""
    for line in section.splitlines():
        if line and not line.startswith(" "):
            break
        if line.startswith("    ") and not line.startswith("     ") and ":" in line:
            names, _, text = line.strip().partition(":")
            for name in names.split(", "):
                docs[name] = text.strip()
        elif line.strip() and name:
            docs[name] += " " + line.strip()
    return docs
