"""The mesh axes over which arrays differ, inside `jax.shard_map` with its default checks, and whether there are others.

In such a program a scan's carry must differ over the same axes before and after a step, and a gradient over those of
what it belongs to. Zeros made inside of the mapped program differ over none, until they are told to.
"""

from typing import Any, TypeVar

import jax

Tree = TypeVar("Tree")


def _axes(a: Any) -> frozenset[str]:
    """The manual mesh axes over which an array differs."""
    kind = jax.typeof(a)
    axes: frozenset[str] = kind.vma if hasattr(kind, "vma") else kind.manual_axis_type.varying  # before jax 0.10: vma
    return axes


def varying_as(tree: Tree, like: Any) -> Tree:
    """`tree` with every array marked as one that differs over the axes of `like` too. Elsewhere, `tree` itself."""
    axes = frozenset().union(*map(_axes, jax.tree.leaves(like)))
    if not axes:
        return tree

    def mark(a: Any) -> Any:
        more = tuple(sorted(axes - _axes(a)))
        if not more:
            return a
        if hasattr(jax.lax, "pcast"):
            return jax.lax.pcast(a, more, to="varying")
        return getattr(jax.lax, "pvary")(a, more)  # noqa: B009 - of jax 0.8, which newer types do not have

    marked: Tree = jax.tree.map(mark, tree)
    return marked


def is_one_device_program() -> bool:
    """Whether the compiler splits nothing over devices: there is one, or the program is written for one of them.

    It is in `shard_map` and `pmap`.
    """
    mesh = jax.sharding.get_abstract_mesh()
    mapped = not mesh.empty and set(mesh.manual_axes) == set(mesh.axis_names)
    return mapped or jax.device_count() == 1
