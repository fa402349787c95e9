"""A table of parameters by module."""

from typing import Any

import jax


def parameter_table(params: dict[str, Any]) -> str:
    """Returns one line for each array: its path, shape, dtype and size, with the sum at the end."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    rows = [(".".join(str(k.key) for k in path), str(a.shape), str(a.dtype), a.size) for path, a in leaves]
    width, shapes = max(len(r[0]) for r in rows), max(len(r[1]) for r in rows)
    lines = [f"  {name:<{width}}  {shape:<{shapes}}  {dtype}  {size:>11,}" for name, shape, dtype, size in rows]
    return "\n".join(["parameters", *lines, f"  {'total':<{width + shapes}}  {sum(r[3] for r in rows):>20,}"])


def count(params: Any) -> int:
    """Returns the number of parameters in a pytree."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
