"""A balanced tree over tokens of a small vocabulary: equal blocks are merged once, however often they occur.

Where a leaf knows its token alone, V symbols have V different leaves, at most V² different pairs, V⁴ different blocks
of four. As long as a level has far fewer different blocks than blocks, it is a table of all of them, read by code: a
block's code is that of its left half times the size of the table below, plus that of its right half.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from qlstm_jax.cells.common import at_position
from qlstm_jax.cells.pr_lstm import tree

LARGEST = 512  # rows of a table, which is read by a product with one-hot codes
SHARE = 0.5  # of the blocks that a table stands for, at most so many rows


class Coded(NamedTuple):
    """The blocks of a level: a table of the different ones, and which one each block is."""

    table: object  # a pytree of (R, ...)
    codes: jax.Array  # (B, M) int32 in 0..R-1


def read(table, codes):
    """`table[codes]` of a pytree of (R, ...), exactly; as a product, whose gradient is one too."""

    def take(a):
        chosen = jax.nn.one_hot(codes, a.shape[0], dtype=a.dtype)
        return jnp.tensordot(chosen, a, axes=1, precision=jax.lax.Precision.HIGHEST)

    return jax.tree.map(take, table)


def blocks(merge: tree.Merge, table, ids) -> list:
    """The way up of `tree.blocks`, from a table of leaves (V, ...) and ids (B, T): a level is `Coded`, or states."""
    levels = [Coded(table, ids)]
    for j in range(1, ids.shape[1].bit_length()):
        below, pairs = levels[-1], ids.shape[1] >> j
        if isinstance(below, Coded):
            size = jax.tree.leaves(below.table)[0].shape[0]
            if size**2 <= min(LARGEST, SHARE * ids.shape[0] * pairs):
                levels.append(_pairs_of_table(merge, below, size, pairs))
                continue
            below = read(*below)
        levels.append(merge.pairs(tree.cut(below, 0, 2 * pairs)))
    return levels


def _pairs_of_table(merge, below, size, pairs):
    left, right = (jax.tree.map(lambda a, axis=axis: jnp.expand_dims(a, axis), below.table) for axis in (1, 0))
    both = jax.tree.map(lambda a: a.reshape(size**2, *a.shape[2:]), merge.two(left, right))
    codes = below.codes[:, 0 : 2 * pairs : 2] * size + below.codes[:, 1 : 2 * pairs : 2]
    return Coded(both, codes)


def pick(level, index):
    """`at_position` of a level that may be `Coded`."""
    if isinstance(level, Coded):
        return read(level.table, at_position(level.codes, index))
    return at_position(level, index)


def prefixes(merge: tree.Merge, merge_coded, levels: list):
    """Level 0 of `tree.prefixes`: the states of the first t + 1 tokens for each t, (B, T, ...).

    Args:
        merge: as for `blocks`.
        merge_coded: (left, table, codes), states (B, M, ...) and right spans by code -> the states of their unions.
        levels: from `blocks`, of at least one token.
    """
    above = None
    for level in reversed(levels):
        coded = isinstance(level, Coded)
        first = read(level.table, level.codes[:, :1]) if coded else tree.cut(level, 0, 1)
        if above is None:
            above = first
            continue
        evens = (level.codes.shape[1] if coded else tree.width(level)) - 1
        left = tree.cut(above, 0, evens // 2)
        if coded:
            even = merge_coded(left, level.table, level.codes[:, 2::2])
        else:
            even = merge.two(left, tree.cut(level, 2, None, 2))
        even = jax.tree.map(lambda f, e: jnp.concatenate([f, e], axis=1), first, even)
        above = tree.interleave(even, above)
    return above
