"""How the modules of both front ends are described by their cells: class names, options, documentation, initialisers.

An option is a keyword of the cell's `init` and is documented there. From it come the keyword of the NNX modules, the
field of the Linen modules, the text of `help()` and the key of a config.
"""

import inspect
import types
from collections.abc import Callable
from typing import Any, TypeVar, cast

from jaxtyping import Array

from qlstm_jax.cells.common import Cell, cell_options, option_docs, shown

T = TypeVar("T")
Initializer = Callable[..., Any]  # (key, shape, dtype) -> array, or the array in a box with metadata


def cell_class_name(layer: str) -> str:
    """The name of a layer's cell class: LSTMCell of LSTM, and as in Flax SimpleCell of SimpleRNN."""
    return layer.removesuffix("RNN") + "Cell" if layer == "SimpleRNN" else layer + "Cell"


def config_name(cell: Cell) -> str:
    """The cell's name in configs: that of its module."""
    return cell.__name__.rpartition(".")[2]


def check_options(owner: str, cell: Cell, options: dict[str, Any]) -> None:
    """Raises TypeError, in the name of the class `owner`, for options that the cell does not have."""
    known = cell_options(cell)
    unknown = [name for name in options if name not in known]
    if unknown:
        raise TypeError(f"{owner} has no option {', '.join(unknown)}; expected {', '.join(known) or 'none'}")


def check_initializers(**initializers: Any) -> None:
    """Raises TypeError unless each is a function or None."""
    for name, value in initializers.items():
        if value is not None and not callable(value):
            raise TypeError(f"{name} is {shown(value)}; expected a function (key, shape, dtype) -> array, or None")


def docstring(summary: str, base: type, cell: Cell) -> str:
    """The documentation of a class over `cell`: a summary, the arguments of its base class and the cell's options."""
    lines = [summary, "", "Args:"]
    options, cell_docs = cell_options(cell), option_docs(cell.init)
    for name, text in option_docs(base).items():
        if name != "options":
            lines.append(f"    {name}: {text}")
    for name, parameter in options.items():
        text = cell_docs.get(name, "an option of the cell.")
        lines.append(f"    {name}: {text} Default {parameter.default!r}.")
    return "\n".join(lines) + "\n"


def subclass(name: str, base: type[T], attributes: dict[str, Any]) -> type[T]:
    """A class made from a table rather than by a class statement."""
    return cast(type[T], types.new_class(name, (base,), exec_body=lambda body: body.update(attributes)))


class Signature:
    """The signature of a class that takes the options of a cell; an instance keeps that of its call.

    Flax's metaclass hides the arguments of a constructor from `help()`, notebooks and editors; this shows them.
    """

    def __init__(self, *constructors: Callable[..., Any], cell: Cell):
        own = [p for c in constructors for p in inspect.signature(c).parameters.values()]
        own = [p for p in own if p.name != "self" and p.kind is not p.VAR_KEYWORD]
        parameters = {p.name: p for p in [*own, *cell_options(cell).values()]}
        ordered = sorted(parameters.values(), key=lambda p: (p.kind, p.name == "rngs"))
        self.signature = inspect.Signature(ordered)

    def __get__(self, instance: Any, owner: type) -> inspect.Signature:
        if instance is not None:
            raise AttributeError("__signature__")
        return self.signature


def role(field: str) -> str | None:
    """Which initialiser an array of a cell's params takes, by its name: kernel, recurrent_kernel, bias, or none."""
    if field in ("recurrent_kernel", "memory_kernel"):
        return "recurrent_kernel"
    for kind in ("kernel", "bias"):
        if field.endswith(kind):
            return kind
    return None


def initializer(field: str, initializers: dict[str, Initializer | None]) -> Initializer | None:
    """The user's initialiser of an array, None for the cell's own.

    Args:
        field: the array's name in the cell's params.
        initializers: kernel, recurrent_kernel and bias to an initialiser or None.
    """
    kind = role(field)
    return None if kind is None else initializers[kind]


def is_array(value: Any) -> bool:
    """Whether a field of params holds an array, or the shape of one, rather than an option or nothing."""
    return isinstance(value, Array) or hasattr(value, "shape")
