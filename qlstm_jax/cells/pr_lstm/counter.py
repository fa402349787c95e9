"""The streaming form of the balanced tree: a binary counter of block states.

After n tokens there is one slot for each binary digit of n, so ceil(log2(n + 1)) states in all:

    digit j of n is 1                      slot j holds the state of the aligned block of 2^j tokens that it stands for
    digit j is 0 and digit j + 1 is 1      slot j holds the prefix state of all the blocks above it
    any other                              slot j is free

The second line is what keeps a token's cost constant: the prefix before a new block is looked up, never folded again.
A new token is a carry in the addition n + 1: it merges with the blocks of n's trailing ones (one on average) and then
once with the prefix above. See `qlstm_jax.cells.pr_lstm.tree` for `merge` and for the shape of the tree, and
`qlstm_jax.cells.pr_lstm.extension` for adding many tokens at once.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from qlstm_jax.cells.common import at_position, where
from qlstm_jax.cells.pr_lstm.tree import Merge, width


class Counter(NamedTuple):
    """The state of a stream."""

    count: jax.Array  # (B,) int32, n, the tokens so far
    slots: object  # pytree of (B, K, ...): slot j as above, zeros where free


def empty(state, slots: int) -> Counter:
    """A counter before its first token; `state` is a pytree of (B, ...) that gives shapes and dtypes."""
    batch = jax.tree.leaves(state)[0].shape[0]
    zeros = jax.tree.map(lambda a: jnp.zeros((batch, slots, *a.shape[1:]), a.dtype), state)
    return Counter(count=jnp.zeros((batch,), jnp.int32), slots=zeros)


def trailing_ones(n):
    """How many of the lowest binary digits of n are 1."""
    return jax.lax.population_count(n ^ (n + 1)) - 1


def digit(n, j):
    """Whether binary digit j of n is 1, as booleans."""
    return (n >> j & 1) == 1


def put(slots, index, state, where_to):
    """`slots` with `state` (B, ...) in slot index[b] of each row b where `where_to` (B,) holds."""
    return _write(slots, (_numbers(slots) == index[:, None]) & where_to[:, None], state)


def _numbers(slots):
    """0..K-1 as (1, K)."""
    return jnp.arange(width(slots), dtype=jnp.int32)[None, :]


def _write(slots, chosen, state):
    """`slots` with `state` (B, ...) wherever `chosen` (B, K)."""

    def write(all_slots, one):
        return jnp.where(chosen.reshape(chosen.shape + (1,) * (all_slots.ndim - 2)), one[:, None], all_slots)

    return jax.tree.map(write, slots, state)


def _absorb(merge: Merge, slots, state, level: int, stop):
    """`state` merged with the blocks in slots level, level + 1, ... up to (not including) stop[b].

    The slots are taken in runs of 1, 1, 2, 4, 8, ... levels, each behind a `cond`: a run of m levels is entered by
    one token in m, so merges stay constant a token, and unlike a `while_loop` it can be differentiated.
    """

    def absorb_one(state, level_and_slot):
        j, slot = level_and_slot
        return where(j < stop, merge.two(slot, state), state), None

    top, run, lo = width(slots), 1, level
    while lo < top:
        hi = min(lo + run, top)
        chunk = jax.tree.map(lambda a, lo=lo, hi=hi: jnp.swapaxes(a[:, lo:hi], 0, 1), slots)
        inputs = jnp.arange(lo, hi, dtype=jnp.int32), chunk
        state = jax.lax.cond(
            jnp.any(stop > lo),
            lambda s, inputs=inputs: jax.lax.scan(absorb_one, s, inputs)[0],
            lambda s: s,
            state,
        )
        run, lo = (1 if lo == level else 2 * run), hi
    return state


def push(merge: Merge, counter: Counter, state, *, level: int = 0, valid=None):
    """Adds a complete block of 2^level tokens to the stream.

    Digits below `level` of the count are ignored, and their slots left alone.

    Args:
        merge: the binary cell.
        counter: the stream so far.
        state: pytree of (B, ...), the block's state.
        level: j of the block, static.
        valid: optional (B,) booleans, the rows that get the block; the others stay as they are.

    Returns:
        (counter, prefix), the prefix state that ends with the block; NaN where the K slots cannot count so far.
    """
    n = counter.count >> level
    valid = jnp.ones(n.shape, bool) if valid is None else valid
    ones = trailing_ones(n)
    k = level + ones
    state = _absorb(merge, counter.slots, state, level, jnp.where(valid, k, level))
    rest = n >> ones >> 1  # the digits above slot k, shifted down to 0
    gap = trailing_ones(~rest)  # zeros between slot k and the next block above it
    prefix = where(rest > 0, merge.two(at_position(counter.slots, k + gap), state), state)
    number, freed = _numbers(counter.slots), jax.tree.map(jnp.zeros_like, state)
    freed_slots = (number >= level) & (number < (k - 1)[:, None]) & valid[:, None]
    slots = _write(counter.slots, freed_slots, freed)
    slots = put(slots, k, state, valid)
    slots = put(slots, k - 1, prefix, valid & (k > level))
    count = jnp.where(valid, (n + 1) << level | counter.count & ((1 << level) - 1), counter.count)
    return Counter(count=count, slots=slots), nan_beyond(prefix, count, width(slots))


def nan_beyond(prefix, count, slots: int):
    """`prefix`, or NaN where `count` is more than the slots can count: an overflow is never silently wrong."""
    return jax.tree.map(lambda a: where(count >> slots == 0, a, jnp.full_like(a, jnp.nan)), prefix)
