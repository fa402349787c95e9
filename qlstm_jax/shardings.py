"""How arrays lie on a mesh of devices: one table from what an axis of an array stands for to the axes of the mesh.

A program that is compiled for a mesh is written as that of one device, for all rows and whole parameters; the compiler
divides it. What it is told is here: which axis of an array is cut into which parts. The rest, and where devices must
communicate, it finds by itself. Within a program the mesh is that of `jax.set_mesh`; without one, or where a program
is mapped over devices by hand (`jax.shard_map`, `jax.pmap`), the functions of this module change nothing.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
from jax.sharding import AbstractMesh, AxisType, Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array

# What an axis of an array stands for, and the mesh axes that it is cut over.
TABLE: dict[str, tuple[str, ...]] = {
    "rows": ("data", "fsdp"),  # of a batch, and of the carry that goes from batch to batch
    "weights": ("fsdp",),  # one axis of each parameter, and of whatever the optimiser keeps for it
}
AXES = ("data", "fsdp")  # of a mesh

AnyMesh = Mesh | AbstractMesh


def cut(mesh: AnyMesh, what: str) -> tuple[str, ...]:
    """Returns the axes of the mesh that `what`, of the table, is cut over; none where the mesh has none of them."""
    return tuple(axis for axis in TABLE[what] if axis in mesh.axis_names)


def parts(mesh: AnyMesh, what: str) -> int:
    """Tells into how many parts `what` is cut."""
    number = 1
    for axis in cut(mesh, what):
        number *= mesh.shape[axis]
    return number


def rows_spec(mesh: AnyMesh) -> P:
    """Returns the spec of an array (B, ...) of rows."""
    return P(cut(mesh, "rows") or None)


def weights_spec(mesh: AnyMesh, shape: Sequence[int]) -> P:
    """Returns the spec of a parameter: its largest axis that the parts divide is cut, of equal ones the first, or none.

    The optimiser's arrays have the shape of their parameter, or as a factored one's fewer axes: the same rule holds.
    """
    number = parts(mesh, "weights")
    divided = [axis for axis, size in enumerate(shape) if size and size % number == 0]
    if number == 1 or not divided:
        return P()
    chosen = max(divided, key=lambda axis: (shape[axis], -axis))
    return P(*[None] * chosen, cut(mesh, "weights"))


def _current() -> AbstractMesh | None:
    """The mesh that the compiler divides this program over, if it has axes of the table."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or not set(mesh.axis_names) <= set(AXES) or set(mesh.axis_types) != {AxisType.Auto}:
        return None
    return mesh


def split_rows(tree: Any) -> Any:
    """Has the compiler cut the rows of a pytree of (B, ...) arrays over the devices, where these divide them."""
    mesh = _current()
    if mesh is None:
        return tree
    spec, number = rows_spec(mesh), parts(mesh, "rows")

    def split(a: Array) -> Array:
        return a if a.shape[0] % number else jax.lax.with_sharding_constraint(a, spec)

    return jax.tree.map(split, tree)


def split_weights(tree: Any) -> Any:
    """Has a pytree of parameters, gradients or the like cut as `weights_spec` says."""
    mesh = _current()
    if mesh is None:
        return tree
    return jax.tree.map(lambda a: jax.lax.with_sharding_constraint(a, weights_spec(mesh, a.shape)), tree)


def whole_weights(tree: Any) -> Any:
    """Has every device hold parameters whole while it uses them; behind it their gradients are cut again.

    Without this the compiler might leave them cut within a scan over time, and communicate in each of its steps.
    """
    return tree if _current() is None else jax.tree.map(_whole, tree)


def whole_rows(tree: Any) -> Any:
    """Has every device hold results whole, as a host reads only what its own devices hold."""
    if _current() is None:
        return tree
    return jax.tree.map(lambda a: jax.lax.with_sharding_constraint(a, P()), tree)


@partial(jax.custom_vjp)
def _whole(a: Array) -> Array:
    whole: Array = jax.lax.with_sharding_constraint(a, P())
    return whole


def _whole_forward(a: Array) -> tuple[Array, None]:
    return jax.lax.with_sharding_constraint(a, P()), None


def _whole_backward(_: None, gradient: Array) -> tuple[Array]:
    # First whole: the compiler would carry the parts on into the program, where activations are cut by rows.
    return (split_weights(jax.lax.with_sharding_constraint(gradient, P())),)


_whole.defvjp(_whole_forward, _whole_backward)
