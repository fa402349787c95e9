"""Lengths, masks and moves along the time axis, for pytrees of arrays whose first axis is the batch."""

from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Shaped

Tree = TypeVar("Tree")


def where(condition: Bool[Array, "*rows"], new: Tree, old: Tree) -> Tree:
    """`new` in the rows where `condition` (B,) holds, `old` in the others, for pytrees of (B, ...) arrays."""

    def choose(n: Array, o: Array) -> Array:
        return jnp.where(condition.reshape(condition.shape + (1,) * (n.ndim - condition.ndim)), n, o)

    chosen: Tree = jax.tree.map(choose, new, old)
    return chosen


def valid_mask(seq_lengths: Int[Array, " batch"], steps: int) -> Bool[Array, "batch time"]:
    """Whether position t lies within a row's length."""
    return jnp.arange(steps, dtype=jnp.int32)[None, :] < seq_lengths[:, None]


def zero_padding(
    xs: Shaped[Array, "batch time ..."], valid: Bool[Array, "batch time"] | None
) -> Shaped[Array, "batch time ..."]:
    """`xs` with 0 at invalid positions, whatever it held there, NaN included; None where all are valid."""
    if valid is None:
        return xs
    return jnp.where(valid.reshape(valid.shape + (1,) * (xs.ndim - 2)), xs, jnp.zeros((), xs.dtype))


def time_major(tree: Tree) -> Tree:
    """(B, T, ...) to (T, B, ...); its own inverse."""
    swapped: Tree = jax.tree.map(lambda a: jnp.swapaxes(a, 0, 1), tree)
    return swapped


def at_position(tree: Tree, index: Int[Array, " batch"]) -> Tree:
    """`a[b, index[b]]` of each row b of arrays a (B, T, ...), with the index clipped into range."""

    def take(a: Array) -> Array:
        place = jnp.clip(index, 0, a.shape[1] - 1)
        return jnp.take_along_axis(a, place.reshape((-1,) + (1,) * (a.ndim - 1)), axis=1)[:, 0]

    taken: Tree = jax.tree.map(take, tree)
    return taken


def last_valid(
    ys: Shaped[Array, "batch time ..."], seq_lengths: Int[Array, " batch"] | None
) -> Shaped[Array, "batch ..."]:
    """The output at each row's last valid position; zeros where a row has none."""
    if ys.shape[1] == 0:
        return jnp.zeros((ys.shape[0], *ys.shape[2:]), ys.dtype)
    return ys[:, -1] if seq_lengths is None else at_position(ys, jnp.asarray(seq_lengths) - 1)


def reverse(
    xs: Shaped[Array, "batch time ..."], seq_lengths: Int[Array, " batch"] | None = None
) -> Shaped[Array, "batch time ..."]:
    """Reverses the valid part of each row in time and leaves the padding where it is; its own inverse.

    A cell unrolled over `reverse(xs, seq_lengths)` reads each sequence from its last valid token to its first, which is
    the backward half of a bidirectional layer.
    """
    if seq_lengths is None:
        return jnp.flip(xs, axis=1)
    t = jnp.arange(xs.shape[1], dtype=jnp.int32)[None, :]
    index = jnp.where(t < seq_lengths[:, None], seq_lengths[:, None] - 1 - t, t)
    return jnp.take_along_axis(xs, index.reshape(index.shape + (1,) * (xs.ndim - 2)), axis=1)


def shift_right(
    xs: Shaped[Array, "batch time ..."],
    seq_lengths: Int[Array, " batch"] | None,
    shift: Int[Array, " batch"],
    steps: int,
) -> tuple[Shaped[Array, "batch steps ..."], Bool[Array, "batch steps"]]:
    """Each row moved to the right by its own shift, which aligns blocks that started before the sequence.

    Args:
        xs: (B, T, ...).
        seq_lengths: None or (B,), the valid positions of each row.
        shift: (B,) int32, by how many positions each row moves.
        steps: positions of the result, T + max(shift) or more.

    Returns:
        (moved, valid): (B, steps, ...), arbitrary where not `valid` (B, steps).
    """
    index = jnp.arange(steps, dtype=jnp.int32)[None, :] - shift[:, None]
    end = xs.shape[1] if seq_lengths is None else seq_lengths[:, None]
    return _gather(xs, index), (index >= 0) & (index < end)


def shift_left(
    ys: Shaped[Array, "batch steps ..."], shift: Int[Array, " batch"], steps: int
) -> Shaped[Array, "batch time ..."]:
    """The inverse of `shift_right`: positions shift .. shift + steps − 1 of each row."""
    return _gather(ys, jnp.arange(steps, dtype=jnp.int32)[None, :] + shift[:, None])


def _gather(xs: Array, index: Array) -> Array:
    index = jnp.clip(index, 0, xs.shape[1] - 1)
    return jnp.take_along_axis(xs, index.reshape(index.shape + (1,) * (xs.ndim - 2)), axis=1)
