"""Several sequences in one row, each after a reset: where they begin and end, and how to lay them out anew.

A piece is the tokens from a reset, or from the start of the row, up to the next reset or the row's length.
"""

from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Shaped

from qlstm_jax.cells.common.masks import reverse

Tree = TypeVar("Tree")


class Pieces(NamedTuple):
    """For each token, the piece that it belongs to; arbitrary in padding."""

    start: Int[Array, "batch time"]  # the position of the piece's first token
    length: Int[Array, "batch time"]  # its tokens
    is_first: Bool[Array, "batch time"]  # whether the token is its first


def find_pieces(resets: Bool[Array, "batch time"], seq_lengths: Int[Array, " batch"] | None) -> Pieces:
    """The pieces of rows with these resets and valid positions."""
    batch, steps = resets.shape
    t = jnp.broadcast_to(jnp.arange(steps, dtype=jnp.int32)[None, :], resets.shape)
    ends = jnp.full((batch,), steps, jnp.int32) if seq_lengths is None else seq_lengths
    start = jax.lax.cummax(jnp.where(resets, t, 0), axis=1)
    begins = jnp.where(resets, t, steps)
    following = jnp.concatenate([begins[:, 1:], jnp.full((batch, 1), steps, jnp.int32)], axis=1)
    end = jnp.minimum(jax.lax.cummin(following, axis=1, reverse=True), ends[:, None])
    return Pieces(start=start, length=end - start, is_first=(t == start) & (t < ends[:, None]))


class Last(NamedTuple):
    """The last piece of each row."""

    start: Int[Array, " batch"]
    length: Int[Array, " batch"]
    continues: Bool[Array, " batch"]  # whether there is no reset, so that it continues what came before the row


def last_piece(resets: Bool[Array, "batch time"], seq_lengths: Int[Array, " batch"] | None) -> Last:
    """The last piece of rows with these resets, none of them in padding."""
    batch, steps = resets.shape
    t = jnp.arange(steps, dtype=jnp.int32)[None, :]
    start = jnp.max(jnp.where(resets, t, 0), axis=1, initial=0)
    ends = jnp.full((batch,), steps, jnp.int32) if seq_lengths is None else seq_lengths
    return Last(start=start, length=ends - start, continues=~jnp.any(resets, axis=1))


def scatter(tree: Tree, target: Int[Array, "batch time"], width: int) -> Tree:
    """Token t of each row at target[t] of `width` positions; 0 elsewhere. Targets beyond `width` are dropped."""

    def place(a: Shaped[Array, "batch time ..."]) -> Shaped[Array, "batch width ..."]:
        rows = jnp.arange(a.shape[0])[:, None]
        return jnp.zeros((a.shape[0], width, *a.shape[2:]), a.dtype).at[rows, target].set(a, mode="drop")

    placed: Tree = jax.tree.map(place, tree)
    return placed


def gather(tree: Tree, target: Int[Array, "batch time"]) -> Tree:
    """The inverse of `scatter`."""

    def take(a: Shaped[Array, "batch width ..."]) -> Shaped[Array, "batch time ..."]:
        place = jnp.clip(target, 0, a.shape[1] - 1)
        return jnp.take_along_axis(a, place.reshape(place.shape + (1,) * (a.ndim - 2)), axis=1)

    taken: Tree = jax.tree.map(take, tree)
    return taken


def reversed_resets(
    resets: Bool[Array, "batch time"], seq_lengths: Int[Array, " batch"] | None
) -> Bool[Array, "batch time"]:
    """The resets of rows read from their last valid position to their first: at the other end of each piece."""
    after = jnp.concatenate([resets[:, 1:], jnp.zeros_like(resets[:, :1])], axis=1)
    return reverse(after, seq_lengths)
