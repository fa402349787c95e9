"""A balanced tree that begins before the sequence: the first `offset` leaves are absent.

Merging an absent span with a present one gives the present one. An offset moves the sequence to the right under the
tree, so that its tokens meet other partners: of an offset o, the state of the first n tokens is the left fold of merge
over the parts of [o, o + n) that the blocks of the binary expansion of o + n cut it into. Offset 0 is the plain tree.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from qlstm_jax.cells import common
from qlstm_jax.cells.common import where
from qlstm_jax.cells.pr_lstm import tree


class _Spans(NamedTuple):
    """States with a mark: whether a span holds any token."""

    state: object  # a pytree of (B, M, ...)
    present: jax.Array  # (B, M)


def _present(merge: tree.Merge) -> tree.Merge:
    """`merge` for spans of which the left one may be absent, and the right one only if the left one is."""

    def two(left, right):
        state = where(left.present, merge.two(left.state, right.state), right.state)
        return _Spans(state, right.present)

    def pairs(spans):
        left, right = tree.cut(spans, 0, None, 2), tree.cut(spans, 1, None, 2)
        return _Spans(where(left.present, merge.pairs(spans.state), right.state), right.present)

    return tree.Merge(two, pairs)


def _move(leaves, offset, room: int):
    steps = tree.width(leaves) + room
    state = jax.tree.map(lambda a: common.shift_right(a, None, offset, steps)[0], leaves)
    return _Spans(state, jnp.arange(steps, dtype=jnp.int32)[None, :] >= offset[:, None])


def prefixes(merge: tree.Merge, leaves, offset, room: int):
    """The state of the first t + 1 tokens for each t.

    Args:
        merge: as for `qlstm_jax.cells.pr_lstm.tree`.
        leaves: a pytree of (B, T, ...), T > 0.
        offset: (B,) int32 in 0..room, the absent leaves before each row.
        room: the largest offset; the tree has T + room leaves.

    Returns:
        A pytree of (B, T, ...).
    """
    steps, merge = tree.width(leaves), _present(merge)
    ends = tree.prefixes(merge, tree.blocks(merge, _move(leaves, offset, room)))[0]
    return jax.tree.map(lambda a: common.shift_left(a, offset, steps), ends.state)


def reduce(merge: tree.Merge, leaves, seq_lengths, offset, room: int):
    """The state of each row's first `seq_lengths` (B,) tokens alone, (B, ...); zeros at length 0. Arguments as above."""
    state = tree.reduce(_present(merge), _move(leaves, offset, room), seq_lengths + offset).state
    return where(seq_lengths > 0, state, jax.tree.map(jnp.zeros_like, state))
