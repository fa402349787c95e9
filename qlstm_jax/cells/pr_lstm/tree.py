"""A cell composed over a balanced binary tree: all prefixes, or the whole alone, in log2(T) parallel levels.

`merge(left, right)` maps the states of two adjacent spans to the state of their union. It need not be associative, so
the tree's shape is part of the result: the state of the first n tokens is the left fold of `merge`, from the most to
the least significant, over the blocks of n's binary expansion, each block a perfectly balanced tree. With n = 13 =
8 + 4 + 1 that is merge(merge(T[0:8], T[8:12]), T[12]). This is what `jax.lax.associative_scan` computes.

Level j holds the states of the aligned blocks of 2^j tokens. The way up computes them (T minus popcount(T) merges),
the way down computes the prefixes that end at each block (about T more). States are pytrees of (B, M, ...).
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from qlstm_jax.cells.common import at_position, where


class Merge(NamedTuple):
    """The binary cell in two forms that are equal: of two separate spans, and of neighbours in one array."""

    two: Callable  # (left, right), pytrees of (..., H) -> the states of their unions
    pairs: Callable  # a pytree of (B, 2M, H) -> (B, M, H), the children 2r and 2r + 1 merged


def width(states) -> int:
    """M, the number of spans in a pytree of (B, M, ...)."""
    return jax.tree.leaves(states)[0].shape[1]


def cut(states, start, stop=None, stride=1):
    """`states[:, start:stop:stride]`."""
    return jax.tree.map(lambda a: a[:, start:stop:stride], states)


def blocks(merge: Merge, leaves) -> list:
    """The way up: level j of the result is (B, T >> j, ...), the complete aligned blocks of 2^j tokens."""
    levels = [leaves]
    while width(levels[-1]) > 1:
        below = levels[-1]
        levels.append(merge.pairs(cut(below, 0, 2 * (width(below) // 2))))
    return levels


def interleave(even, odd):
    """Even and odd positions back in one array; `even` may have one more."""

    def join(e, o):
        both = jnp.stack([e[:, : o.shape[1]], o], axis=2)
        both = both.reshape(o.shape[0], -1, *o.shape[2:])
        return jnp.concatenate([both, e[:, o.shape[1] :]], axis=1)

    return jax.tree.map(join, even, odd)


def prefixes(merge: Merge, levels: list) -> list:
    """The way down: level j of the result is (B, T >> j, ...), the states of the first (r + 1)·2^j tokens for each r.

    An odd r ends where a block of the level above ends, so its prefix is that one's. An even r adds one block to the
    prefix before it.
    """
    result = [levels[-1]]
    for below in reversed(levels[:-1]):
        above = result[0]
        first = cut(below, 0, 1)
        even = cut(below, 2, None, 2)
        even = merge.two(cut(above, 0, width(even)), even)
        even = jax.tree.map(lambda f, e: jnp.concatenate([f, e], axis=1), first, even)
        result.insert(0, interleave(even, above))
    return result


def reduce(merge: Merge, leaves, seq_lengths=None):
    """The state of the whole sequence alone, (B, ...): T − 1 merges where all rows have the full length T.

    Rows of other seq_lengths cost at most log2(T) more merges of one state a row. A row of length 0 gives zeros.
    """
    if width(leaves) == 0:
        return jax.tree.map(lambda a: jnp.zeros((a.shape[0], *a.shape[2:]), a.dtype), leaves)
    return fold(merge, blocks(merge, leaves), jax.tree.leaves(leaves)[0].shape[:2], seq_lengths)


def fold(merge: Merge, levels: list, shape: tuple[int, int], seq_lengths=None, pick=at_position):
    """The state of each row's first `seq_lengths` tokens (default all), from the way up; zeros at length 0.

    Args:
        merge: as above.
        levels: of at least one token.
        shape: (B, T).
        seq_lengths: None or (B,) int32.
        pick: reads one block of each row from a level.
    """
    batch, steps = shape
    if seq_lengths is None:
        ones = [j for j in reversed(range(len(levels))) if steps >> j & 1]
        parts = [pick(levels[j], jnp.full((batch,), (steps >> j) - 1, jnp.int32)) for j in ones]
        return functools.reduce(merge.two, parts)
    state = None
    for j in reversed(range(len(levels))):
        block = pick(levels[j], (seq_lengths >> j) - 1)
        state = jax.tree.map(jnp.zeros_like, block) if state is None else state
        joined = where((seq_lengths >> (j + 1)) > 0, merge.two(state, block), block)
        state = where((seq_lengths >> j & 1) == 1, joined, state)
    return state
