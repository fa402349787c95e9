"""A balanced tree that begins before the sequence: the first `offset` leaves are absent.

Merging an absent span with a present one gives the present one. An offset moves the sequence to the right under the
tree, so that its tokens have other siblings: with offset o, the state of the first n tokens is the left fold of merge
over the parts of [o, o + n) that the blocks of the binary expansion of o + n cut it into. Offset 0 is the plain tree.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from qlstm_jax.cells import common
from qlstm_jax.cells.common import where
from qlstm_jax.cells.pr_lstm import tree
from qlstm_jax.cells.pr_lstm.tree import Merge, States, slice_spans

Offsets = Int[Array, " batch"]


class _Spans(NamedTuple):
    """States, and whether a span holds any token."""

    state: Any  # a pytree of (B, M, ...)
    present: Bool[Array, "batch m"]


def _with_absent(merge: Merge[States]) -> Merge[_Spans]:
    """`merge` for spans of which the left one may be absent, and the right one only if the left one is."""

    def two(left: _Spans, right: _Spans) -> _Spans:
        state = where(left.present, merge.two(left.state, right.state), right.state)
        return _Spans(state, right.present)

    def pairs(spans: _Spans) -> _Spans:
        left, right = slice_spans(spans, 0, None, 2), slice_spans(spans, 1, None, 2)
        return _Spans(where(left.present, merge.pairs(spans.state), right.state), right.present)

    return Merge(two, pairs)


def _shifted(leaves: States, offset: Offsets, max_offset: int) -> _Spans:
    steps = tree.num_spans(leaves) + max_offset
    state: States = jax.tree.map(lambda a: common.shift_right(a, None, offset, steps)[0], leaves)
    return _Spans(state, jnp.arange(steps, dtype=jnp.int32)[None, :] >= offset[:, None])


def prefixes(merge: Merge[States], leaves: States, offset: Offsets, max_offset: int) -> States:
    """The state of the first t + 1 tokens for each t.

    Args:
        merge: as for `qlstm_jax.cells.pr_lstm.tree`.
        leaves: a pytree of (B, T, ...), T > 0.
        offset: (B,) int32 in 0..max_offset, the absent leaves before each row.
        max_offset: the largest offset; the tree has T + max_offset leaves.

    Returns:
        A pytree of (B, T, ...).
    """
    steps, merge_present = tree.num_spans(leaves), _with_absent(merge)
    ends = tree.prefixes(merge_present, tree.blocks(merge_present, _shifted(leaves, offset, max_offset)))[0]
    result: States = jax.tree.map(lambda a: common.shift_left(a, offset, steps), ends.state)
    return result


def reduce(merge: Merge[States], leaves: States, seq_lengths: Offsets, offset: Offsets, max_offset: int) -> States:
    """The state of each row's first `seq_lengths` (B,) tokens alone, (B, ...); zeros at length 0.

    The other arguments are those of `prefixes`.
    """
    shifted = _shifted(leaves, offset, max_offset)
    state: States = tree.reduce(_with_absent(merge), shifted, seq_lengths + offset).state
    return where(seq_lengths > 0, state, tree.zeros_like(state))
