"""The streaming form of the balanced tree: a binary counter of block states.

After n tokens there is one slot for each binary digit of n, so ceil(log2(n + 1)) states in all:

    digit j of n is 1                      slot j holds the state of the last aligned block of 2^j tokens
    digit j is 0 and digit j + 1 is 1      slot j holds the prefix state of all the blocks above it
    any other                              slot j is free

The second line is what keeps a token's cost constant: the prefix before a new block is looked up, never folded again.
A new token is a carry in the addition n + 1: it merges with the blocks of n's trailing ones (one on average) and then
once with the prefix above. Such a counter under an operator that is not associative is published as Prefix-Scannable
Models (arXiv 2506.10918). See `qlstm_jax.cells.pr_lstm.tree` for `merge` and for the shape of the tree, and
`qlstm_jax.cells.pr_lstm.extension` for adding many tokens at once.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from qlstm_jax.cells.common import at_position, where
from qlstm_jax.cells.pr_lstm.tree import Merge, States, num_spans, slice_spans, zeros_like


class Counter(NamedTuple):
    """The state of a stream."""

    count: Int[Array, " batch"]  # type: ignore[assignment]  # int32, n, the tokens so far; hides tuple.count
    slots: Any  # pytree of (B, K, ...): slot j as above, zeros where free


def empty(state: States, slots: int) -> Counter:
    """A counter before its first token; `state` is a pytree of (B, ...) that gives shapes and dtypes."""
    batch = jax.tree.leaves(state)[0].shape[0]
    zeros: States = jax.tree.map(lambda a: jnp.zeros((batch, slots, *a.shape[1:]), a.dtype), state)
    return Counter(count=jnp.zeros((batch,), jnp.int32), slots=zeros)


def trailing_ones(n: Int[Array, " batch"]) -> Int[Array, " batch"]:
    """How many of the lowest binary digits of n are 1."""
    return jax.lax.population_count(n ^ (n + 1)) - 1


def digit(n: Int[Array, " batch"], j: int) -> Bool[Array, " batch"]:
    """Whether binary digit j of n is 1."""
    return (n >> j & 1) == 1


def _slot_numbers(slots: Any) -> Int[Array, "1 slots"]:
    return jnp.arange(num_spans(slots), dtype=jnp.int32)[None, :]


def _write(slots: States, chosen: Bool[Array, "batch slots"], state: States) -> States:
    """`slots` with `state` (B, ...) wherever `chosen`."""

    def write(all_slots: Array, one: Array) -> Array:
        return jnp.where(chosen.reshape(chosen.shape + (1,) * (all_slots.ndim - 2)), one[:, None], all_slots)

    written: States = jax.tree.map(write, slots, state)
    return written


def _merge_trailing(
    merge: Merge[States], slots: States, state: States, level: int, stop: Int[Array, " batch"]
) -> States:
    """`state` merged with the blocks in slots level, level + 1, ... up to (not including) stop[b].

    The slots are taken in runs of 1, 1, 2, 4, 8, ... levels, each behind a `cond`: a run of m levels is entered by
    one token in m, so the number of merges a token is constant, and unlike a `while_loop` it can be differentiated.
    """

    def merge_one(state: States, level_and_slot: tuple[Int[Array, ""], States]) -> tuple[States, None]:
        j, slot = level_and_slot
        return where(j < stop, merge.two(slot, state), state), None

    def merge_run(state: States, inputs: tuple[Int[Array, " run"], States]) -> States:
        return jax.lax.scan(merge_one, state, inputs)[0]

    def skip(state: States, inputs: Any) -> States:
        return state

    top, run, low = num_spans(slots), 1, level
    while low < top:
        high = min(low + run, top)
        part = jax.tree.map(lambda a: jnp.swapaxes(a, 0, 1), slice_spans(slots, low, high))
        inputs = jnp.arange(low, high, dtype=jnp.int32), part
        state = jax.lax.cond(jnp.any(stop > low), merge_run, skip, state, inputs)
        run, low = (1 if low == level else 2 * run), high
    return state


def push(
    merge: Merge[States],
    counter: Counter,
    state: States,
    *,
    level: int = 0,
    valid: Bool[Array, " batch"] | None = None,
) -> tuple[Counter, States]:
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
    state = _merge_trailing(merge, counter.slots, state, level, jnp.where(valid, k, level))
    rest = n >> ones >> 1  # the digits above slot k, shifted down to 0
    gap = trailing_ones(~rest)  # zeros between slot k and the next block above it
    prefix = where(rest > 0, merge.two(at_position(counter.slots, k + gap), state), state)
    number = _slot_numbers(counter.slots)
    freed = (number >= level) & (number < (k - 1)[:, None]) & valid[:, None]
    slots = _write(counter.slots, freed, zeros_like(state))
    slots = _write(slots, (number == k[:, None]) & valid[:, None], state)
    slots = _write(slots, (number == (k - 1)[:, None]) & (valid & (k > level))[:, None], prefix)
    count = jnp.where(valid, (n + 1) << level | counter.count & ((1 << level) - 1), counter.count)
    return Counter(count=count, slots=slots), nan_beyond(prefix, count, num_spans(slots))


def nan_beyond(prefix: States, count: Int[Array, "*rows"], slots: int) -> States:
    """`prefix`, or NaN where `count` is more than the slots can count, so that an overflow shows in the outputs."""
    marked: States = jax.tree.map(lambda a: where(count >> slots == 0, a, jnp.full_like(a, jnp.nan)), prefix)
    return marked
