"""Several sequences in a row, each with a tree of its own, in one tree of at most twice the leaves.

The tree of a piece is aligned to its own first token. A piece of n tokens is laid at a multiple of the first power of
two P from n on, so that its blocks are blocks of the common tree; larger pieces come first, so that no room is left
between them, and all together take less than 2T leaves. The prefixes then begin anew at each piece
(`tree.prefixes`), and are read back in the order of the tokens.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from qlstm_jax.cells import common
from qlstm_jax.cells.common import where
from qlstm_jax.cells.pr_lstm import extension, tree
from qlstm_jax.cells.pr_lstm.counter import Counter
from qlstm_jax.cells.pr_lstm.tree import Merge, States, num_spans

Lengths = Int[Array, " batch"] | None
Resets = Bool[Array, "batch time"]


def extend(
    merge: Merge[States], start: Counter, leaves: States, seq_lengths: Lengths, resets: Resets, *, continues: bool
) -> tuple[Counter, States]:
    """`extension.extend` with resets.

    Args:
        merge: the binary cell.
        start: the stream so far, to which the tokens before the first reset are added.
        leaves: pytree of (B, T, ...), the tokens' states.
        seq_lengths: None or (B,), the number of tokens that each row really has.
        resets: (B, T), where a new stream begins; false in padding.
        continues: whether `start` may hold tokens. Static: without them the first piece is one as the others.

    Returns:
        (counter, prefixes): the stream of the last piece, and a pytree of (B, T, ...).
    """
    states = prefixes(merge, leaves, seq_lengths, resets)
    steps = num_spans(leaves)
    if continues:
        t = jnp.arange(steps, dtype=jnp.int32)[None, :]
        first_reset = jnp.min(jnp.where(resets, t, steps), axis=1)
        before = first_reset if seq_lengths is None else jnp.minimum(first_reset, seq_lengths)
        _, continued = extension.extend(merge, start, leaves, before)
        states = where(t < before[:, None], continued, states)
    empty: Counter = jax.tree.map(jnp.zeros_like, start)
    base = where(common.last_piece(resets, seq_lengths).continues, start, empty)
    end, _ = extension.extend(merge, base, *last_leaves(leaves, seq_lengths, resets))
    return end, states


def last_leaves(leaves: States, seq_lengths: Lengths, resets: Resets) -> tuple[States, Int[Array, " batch"]]:
    """The leaves of each row's last piece, moved to the front, and how many they are."""
    last = common.last_piece(resets, seq_lengths)
    moved: States = jax.tree.map(lambda a: common.shift_left(a, last.start, a.shape[1]), leaves)
    return moved, last.length


def prefixes(merge: Merge[States], leaves: States, seq_lengths: Lengths, resets: Resets) -> States:
    """The state of each token's piece up to the token, a pytree of (B, T, ...) that is arbitrary in padding."""
    target, starts = layout(seq_lengths, resets)
    laid = common.scatter(leaves, target, starts.shape[1])
    return common.gather(tree.prefixes(merge, tree.blocks(merge, laid), starts)[0], target)


def layout(seq_lengths: Lengths, resets: Resets) -> tuple[Int[Array, "batch time"], Bool[Array, "batch width"]]:
    """Where each token is laid, beyond 2T in padding, and whether a piece begins at each of 2T places."""
    steps = resets.shape[1]
    t = jnp.arange(steps, dtype=jnp.int32)[None, :]
    pieces = common.find_pieces(resets, seq_lengths)
    room = jnp.where(pieces.is_first, _power_of_two_from(pieces.length), 0)
    order = jnp.argsort(-room, axis=1, stable=True)
    sorted_room = jnp.take_along_axis(room, order, axis=1)
    place = jnp.cumsum(sorted_room, axis=1) - sorted_room
    place = jnp.take_along_axis(place, jnp.argsort(order, axis=1), axis=1)  # of pieces by their first token
    target = jnp.take_along_axis(place, pieces.start, axis=1) + t - pieces.start
    if seq_lengths is not None:
        target = jnp.where(t < seq_lengths[:, None], target, 2 * steps)
    return target, common.scatter(pieces.is_first, target, 2 * steps)


def _power_of_two_from(n: Int[Array, "*shape"]) -> Int[Array, "*shape"]:
    """The least power of two that is n or more, for n of 1 or more."""
    power: Array = jnp.int32(1) << (32 - jax.lax.clz(jnp.maximum(n, 1) - 1))
    return power
