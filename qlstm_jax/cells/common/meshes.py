"""Meshes with explicit axes, `jax.make_mesh`'s default: there an array's type says how it is split over devices.

A recurrence mixes arrays that are split by rows with others that are not, which such types forbid in many places. So
the public functions run with those axes left to the compiler, as on a mesh of `AxisType.Auto`, and say of what comes
out that it is split by rows as the input is.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

Given = ParamSpec("Given")
Result = TypeVar("Result")
Split = tuple[Any, ...]  # the mesh axes that each axis of an array is split over
Specs = Callable[[Split, dict[str, Any]], Any]


def _by_row(split: Split, _: dict[str, Any]) -> PartitionSpec:
    return PartitionSpec(*split[:1])


def on_any_mesh(inputs: str, specs: Specs = _by_row) -> Callable[[Callable[Given, Result]], Callable[Given, Result]]:
    """A decorator of functions that are to run under explicit axes too; elsewhere they are called as they are.

    Args:
        inputs: the name of the argument whose split the results have.
        specs: from that split, and all arguments by name, the `PartitionSpec`s of the results, or a prefix of them; by
            default all are split by rows, their first axis.
    """

    def decorate(function: Callable[Given, Result]) -> Callable[Given, Result]:
        signature = inspect.signature(function)
        place = list(signature.parameters).index(inputs)

        @functools.wraps(function)
        def call(*args: Given.args, **kwargs: Given.kwargs) -> Result:
            xs = args[place] if len(args) > place else kwargs.get(inputs)
            kind = jax.typeof(xs).sharding if isinstance(xs, jax.Array) else None
            mesh = jax.sharding.get_abstract_mesh()
            mesh = kind.mesh if mesh.empty and kind is not None else mesh
            axes = tuple(n for n, t in zip(mesh.axis_names, mesh.axis_types, strict=True) if t == AxisType.Explicit)
            if not axes:
                return function(*args, **kwargs)
            given = signature.bind(*args, **kwargs)
            given.apply_defaults()
            split = () if kind is None else tuple(kind.spec)
            shardings = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs(split, dict(given.arguments)))
            return _left_to_the_compiler(function, axes, shardings, args, kwargs)

        return call

    return decorate


def _left_to_the_compiler(
    function: Callable[..., Result], axes: tuple[str, ...], shardings: Any, args: Any, kwargs: Any
) -> Result:
    """The function called with these mesh axes automatic within; arguments may be anything besides arrays."""
    leaves, structure = jax.tree.flatten((args, kwargs))
    places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, jax.Array)]

    def run(arrays: list[Any]) -> Result:
        given = list(leaves)
        for place, array in zip(places, arrays, strict=True):
            given[place] = array
        args, kwargs = jax.tree.unflatten(structure, given)
        return function(*args, **kwargs)

    automatic = jax.sharding.auto_axes(run, axes=axes, out_sharding=shardings)
    result: Result = automatic([leaves[place] for place in places])
    return result
