"""A cell composed over a balanced binary tree: all prefixes, or the whole alone, in log2(T) parallel levels.

`merge(left, right)` maps the states of two adjacent spans to the state of their union. It need not be associative, so
the tree's shape is part of the result: the state of the first n tokens is the left fold of `merge`, from the most to
the least significant, over the blocks of n's binary expansion, each block a perfectly balanced tree. With n = 13 =
8 + 4 + 1 that is merge(merge(T[0:8], T[8:12]), T[12]). This is what `jax.lax.associative_scan` computes.

Level j holds the states of the aligned blocks of 2^j tokens. The up-sweep computes them (T minus popcount(T) merges),
the down-sweep the prefixes that end at each block (about T more). States are pytrees of (B, M, ...).
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from qlstm_jax.cells.common import at_position, where

States = TypeVar("States")


@dataclasses.dataclass(frozen=True)
class Merge(Generic[States]):
    """The binary cell in two forms that are equal: of two separate spans, and of neighbours in one array."""

    two: Callable[[States, States], States]  # (left, right), pytrees of (..., H) -> the states of their unions
    pairs: Callable[[States], States]  # a pytree of (B, 2M, H) -> (B, M, H), the children 2r and 2r + 1 merged


def num_spans(states: Any) -> int:
    """M, the number of spans in a pytree of (B, M, ...)."""
    size: int = jax.tree.leaves(states)[0].shape[1]
    return size


def slice_spans(states: States, start: int, stop: int | None = None, stride: int = 1) -> States:
    """`states[:, start:stop:stride]` of a pytree."""
    part: States = jax.tree.map(lambda a: a[:, start:stop:stride], states)
    return part


def join(first: States, *others: States) -> States:
    """Pytrees of (B, M, ...) one after another along M."""
    joined: States = jax.tree.map(lambda *arrays: jnp.concatenate(arrays, axis=1), first, *others)
    return joined


def zeros_like(states: States) -> States:
    """Zeros of the same shapes and dtypes."""
    zeros: States = jax.tree.map(jnp.zeros_like, states)
    return zeros


def blocks(merge: Merge[States], leaves: States) -> list[States]:
    """The up-sweep: level j of the result is (B, T >> j, ...), the complete aligned blocks of 2^j tokens."""
    levels = [leaves]
    while num_spans(levels[-1]) > 1:
        below = levels[-1]
        levels.append(merge.pairs(slice_spans(below, 0, 2 * (num_spans(below) // 2))))
    return levels


def interleave(even: States, odd: States) -> States:
    """Even and odd positions back in one array; `even` may have one more."""

    def zip_positions(e: Array, o: Array) -> Array:
        both = jnp.stack([e[:, : o.shape[1]], o], axis=2)
        both = both.reshape(o.shape[0], 2 * o.shape[1], *o.shape[2:])
        return jnp.concatenate([both, e[:, o.shape[1] :]], axis=1)

    result: States = jax.tree.map(zip_positions, even, odd)
    return result


def prefixes(
    merge: Merge[States], levels: list[States], starts: Bool[Array, "batch time"] | None = None
) -> list[States]:
    """The down-sweep: level j of the result is (B, T >> j, ...), the states of the first (r + 1)·2^j tokens for each r.

    An odd r ends where a block of the level above ends, so its prefix is that one's. An even r adds one block to the
    prefix before it.

    Args:
        merge: the binary cell.
        levels: from `blocks`.
        starts: optional, true where a tree of its own begins; a tree of n tokens lies at a multiple of the first power
            of two from n on. The prefixes within it begin there, and blocks that hold the start of a later one are
            arbitrary.
    """
    result = [levels[-1]]
    for below in reversed(levels[:-1]):
        above = result[0]
        even = slice_spans(below, 2, None, 2)
        even = merge.two(slice_spans(above, 0, num_spans(even)), even)
        ends = interleave(join(slice_spans(below, 0, 1), even), above)
        if starts is not None:
            begins = starts[:, :: 2 ** (len(levels) - 1 - len(result))][:, : num_spans(below)]
            ends = where(begins, below, ends)
        result.insert(0, ends)
    return result


def reduce(merge: Merge[States], leaves: States, seq_lengths: Int[Array, " batch"] | None = None) -> States:
    """The state of the whole sequence alone, (B, ...): T − 1 merges where all rows have the full length T.

    Rows of other lengths cost at most log2(T) more merges of one state a row. A row of length 0 gives zeros.
    """
    if num_spans(leaves) == 0:
        zeros: States = jax.tree.map(lambda a: jnp.zeros((a.shape[0], *a.shape[2:]), a.dtype), leaves)
        return zeros
    return fold(merge, blocks(merge, leaves), jax.tree.leaves(leaves)[0].shape[:2], seq_lengths)


def fold(
    merge: Merge[States],
    levels: list[Any],
    shape: tuple[int, int],
    seq_lengths: Int[Array, " batch"] | None = None,
    block_at: Callable[[Any, Int[Array, " batch"]], States] = at_position,
) -> States:
    """The state of each row's first `seq_lengths` tokens (default all), from the blocks of all levels.

    It is zeros at length 0.

    Args:
        merge: the binary cell.
        levels: from `blocks`, of at least one token.
        shape: (B, T).
        seq_lengths: None or (B,) int32.
        block_at: reads one block of each row from a level.
    """
    batch, steps = shape
    if seq_lengths is None:
        ones = [j for j in reversed(range(len(levels))) if steps >> j & 1]
        parts = [block_at(levels[j], jnp.full((batch,), (steps >> j) - 1, jnp.int32)) for j in ones]
        return functools.reduce(merge.two, parts)
    read = [block_at(level, (seq_lengths >> j) - 1) for j, level in enumerate(levels)]
    state = zeros_like(read[-1])
    for j, block in reversed(list(enumerate(read))):
        joined = where((seq_lengths >> (j + 1)) > 0, merge.two(state, block), block)
        state = where((seq_lengths >> j & 1) == 1, joined, state)
    return state
