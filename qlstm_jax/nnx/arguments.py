"""What a module was made with: its constructor's arguments, kept on the module so that `qlstm_jax.save` can write them.

Only what tells one module from another is kept: no initialisers, sharding metadata or streams of random numbers.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax.numpy as jnp
import numpy as np
from flax import nnx

from qlstm_jax.cells.common import cell_options

Init = TypeVar("Init", bound=Callable[..., None])


class Inner(NamedTuple):
    """An argument that is a module: the attribute that holds it."""

    attribute: str


class Unknown(NamedTuple):
    """An argument that cannot be written down."""

    text: str


def keeps_arguments(init: Init) -> Init:
    """A constructor that keeps its arguments, defaults too, as the attribute `arguments`: hashable (name, value) pairs.

    Of a subclass whose constructor keeps its own, those are kept, and where it hands on keywords (**options) the others
    too. A module argument must become the attribute of the same name.
    """
    signature = inspect.signature(init)
    rest = "".join(p.name for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD)

    @functools.wraps(init)
    def keeping(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        _, *given = bound.arguments.items()
        flat = [pair for name, value in given for pair in (value.items() if name == rest else [(name, value)])]
        handed_on = dict(getattr(self, "arguments", ())) if rest else {}
        if hasattr(self, "functions"):  # options of a cell have their defaults in its `init`
            handed_on = {name: p.default for name, p in cell_options(self.functions).items()} | handed_on
        kept = handed_on | {name: _kept(name, value) for name, value in flat if _tells(name)}
        self.arguments = tuple(kept.items())

    return keeping  # type: ignore[return-value]


def _tells(name: str) -> bool:
    return name != "rngs" and not name.endswith(("_init", "_metadata"))


def _kept(name: str, value: Any) -> Any:
    if name.endswith("dtype") and value is not None:
        return jnp.dtype(value).name
    if isinstance(value, nnx.Module):
        return Inner(name)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (tuple, list)):
        return tuple(_kept(name, v) for v in value)
    if value is None or isinstance(value, (bool, int, float, str)) or dataclasses.is_dataclass(value):
        return value
    return Unknown(repr(value))
