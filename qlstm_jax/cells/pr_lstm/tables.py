"""A balanced tree over tokens of a small vocabulary: equal blocks are merged once, however often they occur.

Where a leaf depends on its token alone, V symbols have V different leaves, at most V² different pairs, V⁴ different
blocks of four. As long as a level has far fewer different blocks than blocks, it is a table of all of them, indexed by
code: a block's code is that of its left half times the size of the table below, plus that of its right half.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from qlstm_jax.cells.common import at_position
from qlstm_jax.cells.pr_lstm.tree import Merge, States, interleave, join, num_spans, slice_spans

MAX_ROWS = 512  # of a table, which is read by a product with one-hot codes
MAX_SHARE = 0.5  # rows of a table, as a fraction of the blocks that it stands for

Codes = Int[Array, "batch m"]


class Coded(NamedTuple):
    """The blocks of a level: a table of the different ones, and which one each block is."""

    table: Any  # a pytree of (R, ...)
    codes: Codes  # int32 in 0..R-1


def lookup(table: States, codes: Int[Array, "*rows"]) -> States:
    """`table[codes]` of a pytree of (R, ...), exactly; as a product, so that its gradient is one too."""

    def take(a: Array) -> Array:
        chosen = jax.nn.one_hot(codes, a.shape[0], dtype=a.dtype)
        return jnp.tensordot(chosen, a, axes=1, precision=jax.lax.Precision.HIGHEST)

    taken: States = jax.tree.map(take, table)
    return taken


def blocks(merge: Merge[States], table: States, ids: Int[Array, "batch time"]) -> list[Coded | States]:
    """The up-sweep of `tree.blocks`, from a table of leaves (V, ...) and ids (B, T): a level is `Coded`, or states."""
    levels: list[Coded | States] = [Coded(table, ids)]
    for j in range(1, ids.shape[1].bit_length()):
        below, pairs = levels[-1], ids.shape[1] >> j
        if isinstance(below, Coded):
            size = jax.tree.leaves(below.table)[0].shape[0]
            if size**2 <= min(MAX_ROWS, MAX_SHARE * ids.shape[0] * pairs):
                levels.append(_pairs_of_table(merge, below, size, pairs))
                continue
        levels.append(merge.pairs(slice_level(below, 2 * pairs)))
    return levels


def _pairs_of_table(merge: Merge[States], below: Coded, size: int, pairs: int) -> Coded:
    left: States = jax.tree.map(lambda a: a[:, None], below.table)
    right: States = jax.tree.map(lambda a: a[None], below.table)
    table: States = jax.tree.map(lambda a: a.reshape(size**2, *a.shape[2:]), merge.two(left, right))
    codes = below.codes[:, 0 : 2 * pairs : 2] * size + below.codes[:, 1 : 2 * pairs : 2]
    return Coded(table, codes)


def block_at(level: Coded | States, index: Int[Array, " batch"]) -> States:
    """`at_position` of a level that may be `Coded`."""
    if isinstance(level, Coded):
        table: States = level.table
        return lookup(table, at_position(level.codes, index))
    return at_position(level, index)


def slice_level(level: Coded | States, stop: int) -> States:
    """The first `stop` blocks of a level that may be `Coded`, as states."""
    if isinstance(level, Coded):
        table: States = level.table
        return lookup(table, level.codes[:, :stop])
    return slice_spans(level, 0, stop)


def prefixes(
    merge: Merge[States],
    merge_coded: Callable[[States, States, Codes], States],
    levels: list[Coded | States],
) -> States:
    """Level 0 of `tree.prefixes`: the states of the first t + 1 tokens for each t, (B, T, ...).

    Args:
        merge: as for `blocks`.
        merge_coded: (left, table, codes), states (B, M, ...) and right spans by code -> the states of their unions.
        levels: from `blocks`, of at least one token.
    """
    above: Any = None
    for level in reversed(levels):
        first = slice_level(level, 1)
        if above is None:
            above = first
            continue
        if isinstance(level, Coded):
            codes = level.codes[:, 2::2]
            even = merge_coded(slice_spans(above, 0, codes.shape[1]), level.table, codes)
        else:
            right = slice_spans(level, 2, None, 2)
            even = merge.two(slice_spans(above, 0, num_spans(right)), right)
        above = interleave(join(first, even), above)
    result: States = above
    return result
