"""Many tokens added to a stream at once: the balanced tree, level by level in parallel, from any state of a counter.

Blocks are aligned to the start of the stream, whose length may differ from row to row. With n tokens before, the first
new block of level j is number n >> j; where that is odd (digit j of n is 1) it is a right child, and its left sibling
comes from slot j of the counter.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from qlstm_jax.cells.common import at_position, where
from qlstm_jax.cells.pr_lstm.counter import Counter, digit, nan_beyond, push
from qlstm_jax.cells.pr_lstm.tree import Merge, States, interleave, join, num_spans, slice_spans, zeros_like

Counts = Int[Array, " batch"]


def extend(
    merge: Merge[States], counter: Counter, leaves: States, seq_lengths: Counts | None = None
) -> tuple[Counter, States]:
    """Adds T tokens to a stream, equal to T calls of `counter.push`.

    Args:
        merge: the binary cell.
        counter: the stream so far.
        leaves: pytree of (B, T, ...), the tokens' states.
        seq_lengths: optional (B,), the number of tokens that each row really adds.

    Returns:
        (counter, prefixes), the prefixes a pytree of (B, T, ...) that is undefined beyond `seq_lengths`, and NaN where
        the stream has outgrown its slots.

    Raises:
        ValueError: if T tokens alone are more than the counter's slots can hold.
    """
    steps, num_slots = num_spans(leaves), num_spans(counter.slots)
    if steps >= 2**num_slots:
        raise ValueError(
            f"{steps} tokens do not fit a stream of {num_slots} slots, which holds at most {2**num_slots - 1}. "
            "Make the carry with a larger max_length."
        )
    if steps == 0:
        return counter, leaves
    start = counter.count
    end = start + (steps if seq_lengths is None else seq_lengths)
    slots = _unstack(counter.slots)
    new, padded = _up_sweep(merge, start, slots, leaves)
    top = len(new) - 1
    last = _span(new[top], 0)
    pushed, prefix = push(merge, counter, last, level=top, valid=(((start >> top) + 1) << top) <= end)
    ends = _down_sweep(merge, start, slots, new, padded, prefix)
    final = _final_slots(start, end, slots[:top], new, ends) + _unstack(pushed.slots)[top:]
    counts = start[:, None] + jnp.arange(1, steps + 1, dtype=jnp.int32)[None, :]
    return Counter(count=end, slots=_stack(final)), nan_beyond(ends[0], counts, num_slots)


def _up_sweep(
    merge: Merge[States], start: Counts, slots: list[States], leaves: States
) -> tuple[list[States], list[States]]:
    """The new blocks of each level, and the same preceded by the left sibling where there is one.

    new[j][:, r] is block (start >> j) + r of level j; padded[j] begins with an even block in every row.
    """
    new: list[States] = [leaves]
    padded: list[States] = []
    while num_spans(new[-1]) > 1:
        j = len(new) - 1
        padded.append(_prepend_sibling(slots[j], new[j], digit(start, j)))
        new.append(merge.pairs(slice_spans(padded[j], 0, 2 * ((num_spans(new[j]) + 1) // 2))))
    return new, padded


def _prepend_sibling(sibling: States, states: States, odd: Bool[Array, " batch"]) -> States:
    """`states` (B, M, ...), in the rows where `odd` after `sibling`, padded to an even width of M + 1 or M + 2."""
    width = 2 * ((num_spans(states) + 2) // 2)

    def shift(s: Array, a: Array) -> Array:
        padding = jnp.zeros((a.shape[0], width - a.shape[1], *a.shape[2:]), a.dtype)
        plain = jnp.concatenate([a, padding], axis=1)
        moved = jnp.concatenate([s[:, None], a, padding[:, 1:]], axis=1)
        return where(odd, moved, plain)

    shifted: States = jax.tree.map(shift, sibling, states)
    return shifted


def _down_sweep(
    merge: Merge[States],
    start: Counts,
    slots: list[States],
    new: list[States],
    padded: list[States],
    prefix: States,
) -> list[States]:
    """ends[j][:, r], the prefix that ends with new[j][:, r]; `prefix` (B, ...) is that of the topmost level."""
    ends: list[States] = [jax.tree.map(lambda a: a[:, None], prefix)]
    above = _prefixes_above(start, slots)
    for j in reversed(range(len(padded))):
        first: States = jax.tree.map(lambda a: a[:, None], above[j])
        before = join(first, ends[0])
        even = slice_spans(padded[j], 0, None, 2)
        merged = merge.two(slice_spans(before, 0, num_spans(even)), even)
        first = where((start >> (j + 1)) == 0, slice_spans(even, 0, 1), slice_spans(merged, 0, 1))
        both = interleave(join(first, slice_spans(merged, 1)), slice_spans(ends[0], 0, num_spans(even)))
        steps = num_spans(new[j])
        ends.insert(0, where(digit(start, j), slice_spans(both, 1, 1 + steps), slice_spans(both, 0, steps)))
    return ends


def _prefixes_above(count: Counts, slots: list[States]) -> list[States]:
    """For each level whose digit is 0, the prefix of all the blocks above it: the nearest slot above that holds it."""
    above: list[States] = []
    nearest = zeros_like(slots[0])
    for j in reversed(range(len(slots))):
        nearest = where(digit(count, j + 1), slots[j], nearest)
        above.insert(0, nearest)
    return above


def _final_slots(
    start: Counts, end: Counts, slots: list[States], new: list[States], ends: list[States]
) -> list[States]:
    """The lowest slots after a stream has grown from `start` to `end` tokens.

    Args:
        start: (B,), the tokens before.
        end: (B,), the tokens after.
        slots: the slots before, as many as are wanted; a level keeps its own where its count is the same.
        new: new[j][:, r], block (start >> j) + r of level j.
        ends: ends[j][:, r], the prefix that ends with it.
    """
    result = []
    for j in range(len(slots)):
        block = at_position(new[j], (end >> j) - 1 - (start >> j))
        free = zeros_like(slots[j])
        if j + 1 < len(ends):
            prefix = at_position(ends[j + 1], (end >> (j + 1)) - 1 - (start >> (j + 1)))
            free = where(digit(end, j + 1), prefix, free)
        state = where(digit(end, j), block, free)
        result.append(where((end >> j) == (start >> j), slots[j], state))
    return result


def from_tree(levels: list[States], ends: list[States], seq_lengths: Counts, num_slots: int) -> Counter:
    """The counter of a stream after its first `seq_lengths` tokens, from `tree.blocks` and `tree.prefixes` of them."""
    zero = zeros_like(_span(levels[0], 0))
    used = _final_slots(jnp.zeros_like(seq_lengths), seq_lengths, [zero] * len(levels), levels, ends)
    return Counter(count=seq_lengths, slots=_stack(used + [zero] * (num_slots - len(used))))


def _span(states: States, index: int) -> States:
    """`states[:, index]` of a pytree."""
    one: States = jax.tree.map(lambda a: a[:, index], states)
    return one


def _unstack(slots: States) -> list[States]:
    """A pytree of (B, K, ...) as K of (B, ...)."""
    return [_span(slots, j) for j in range(num_spans(slots))]


def _stack(slots: list[States]) -> States:
    """The inverse of `_unstack`."""
    stacked: States = jax.tree.map(lambda *states: jnp.stack(states, axis=1), *slots)
    return stacked
