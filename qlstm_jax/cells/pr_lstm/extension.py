"""Many tokens added to a stream at once: the balanced tree, level by level in parallel, from wherever a counter stands.

Blocks are aligned to the start of the stream, whose length may differ from row to row. With n tokens before, the first
new block of level j is number n >> j; where that is odd (digit j of n is 1) it is a right child, and its left sibling
comes from slot j of the counter.
"""

import jax
import jax.numpy as jnp

from qlstm_jax.cells.common import at_position, where
from qlstm_jax.cells.pr_lstm.counter import Counter, digit, nan_beyond, push
from qlstm_jax.cells.pr_lstm.tree import Merge, cut, interleave, width


def extend(merge: Merge, counter: Counter, leaves, seq_lengths=None):
    """Adds T tokens to a stream, equal to T calls of `counter.push`.

    Args:
        merge: the binary cell.
        counter: the stream so far.
        leaves: pytree of (B, T, ...), the tokens' states.
        seq_lengths: optional (B,), the number of tokens that each row really adds.

    Returns:
        (counter, prefixes), the prefixes a pytree of (B, T, ...) that is meaningless beyond `seq_lengths`, and NaN where
        the stream has outgrown its slots.

    Raises:
        ValueError: if T tokens alone are more than the counter's slots can hold.
    """
    steps, slots = width(leaves), width(counter.slots)
    if steps >= 2**slots:
        raise ValueError(
            f"{steps} tokens do not fit a stream of {slots} slots, which holds at most {2**slots - 1}. "
            "Make the carry with a larger max_length."
        )
    if steps == 0:
        return counter, leaves
    start = counter.count
    end = start + (steps if seq_lengths is None else seq_lengths)
    slot = [jax.tree.map(lambda a, j=j: a[:, j], counter.slots) for j in range(slots)]
    new, padded = _up(merge, start, slot, leaves)
    top = len(new) - 1
    last = jax.tree.map(lambda a: a[:, 0], new[top])
    pushed, prefix = push(merge, counter, last, level=top, valid=(((start >> top) + 1) << top) <= end)
    ends = _down(merge, start, slot, new, padded, prefix)
    slot = collect(start, end, slot[:top], new, ends) + [
        jax.tree.map(lambda a, j=j: a[:, j], pushed.slots) for j in range(top, slots)
    ]
    counts = start[:, None] + jnp.arange(1, steps + 1, dtype=jnp.int32)[None, :]
    return Counter(count=end, slots=stack(slot)), nan_beyond(ends[0], counts, slots)


def _up(merge, start, slot, leaves):
    """The new blocks of each level, and the same with the left sibling before them where there is one.

    new[j][:, r] is block (start >> j) + r of level j; padded[j] begins with an even block in every row.
    """
    new, padded = [leaves], []
    while width(new[-1]) > 1:
        j = len(new) - 1
        padded.append(_after_sibling(slot[j], new[j], digit(start, j)))
        new.append(merge.pairs(cut(padded[j], 0, 2 * ((width(new[j]) + 1) // 2))))
    return new, padded


def _after_sibling(sibling, states, odd):
    """`states` (B, M, ...), in the rows where `odd` behind `sibling`, filled up to an even width of M + 1 or M + 2."""
    need = 2 * ((width(states) + 2) // 2)

    def shift(s, a):
        padding = jnp.zeros((a.shape[0], need - a.shape[1], *a.shape[2:]), a.dtype)
        plain = jnp.concatenate([a, padding], axis=1)
        moved = jnp.concatenate([s[:, None], a, padding[:, 1:]], axis=1)
        return where(odd, moved, plain)

    return jax.tree.map(shift, sibling, states)


def _down(merge, start, slot, new, padded, prefix) -> list:
    """ends[j][:, r], the prefix that ends with new[j][:, r]; `prefix` (B, ...) is that of the topmost level."""
    ends = [jax.tree.map(lambda a: a[:, None], prefix)]
    above = _prefix_above(start, slot)
    for j in reversed(range(len(padded))):
        before = jax.tree.map(lambda a, p: jnp.concatenate([a[:, None], p], axis=1), above[j], ends[0])
        even = cut(padded[j], 0, None, 2)
        joined = merge.two(cut(before, 0, width(even)), even)
        first = where((start >> (j + 1)) == 0, cut(even, 0, 1), cut(joined, 0, 1))
        joined = jax.tree.map(lambda f, a: jnp.concatenate([f, a[:, 1:]], axis=1), first, joined)
        both = interleave(joined, cut(ends[0], 0, width(even)))
        steps = width(new[j])
        ends.insert(0, where(digit(start, j), cut(both, 1, 1 + steps), cut(both, 0, steps)))
    return ends


def _prefix_above(count, slot: list) -> list:
    """For each level whose digit is 0, the prefix of all the blocks above it: the nearest slot above that holds it."""
    above = []
    nearest = jax.tree.map(jnp.zeros_like, slot[0])
    for j in reversed(range(len(slot))):
        nearest = where(digit(count, j + 1), slot[j], nearest)
        above.insert(0, nearest)
    return above


def collect(start, end, slot: list, new: list, ends: list) -> list:
    """The lowest slots after a stream has grown from `start` to `end` tokens.

    Args:
        start, end: (B,) counts.
        slot: the lowest slots of before, as many as are wanted; a level keeps its own where its count is the same.
        new: new[j][:, r], block (start >> j) + r of level j.
        ends: ends[j][:, r], the prefix that ends with it.
    """
    result = []
    for j in range(len(slot)):
        block = at_position(new[j], (end >> j) - 1 - (start >> j))
        free = jax.tree.map(jnp.zeros_like, slot[j])
        if j + 1 < len(ends):
            prefix = at_position(ends[j + 1], (end >> (j + 1)) - 1 - (start >> (j + 1)))
            free = where(digit(end, j + 1), prefix, free)
        state = where(digit(end, j), block, free)
        result.append(where((end >> j) == (start >> j), slot[j], state))
    return result


def from_tree(levels: list, ends: list, seq_lengths, slots: int) -> Counter:
    """The counter after `seq_lengths` tokens of a stream that began with them, from `tree.blocks` and `tree.prefixes`."""
    zero = jax.tree.map(lambda a: jnp.zeros_like(a[:, 0]), levels[0])
    used = collect(jnp.zeros_like(seq_lengths), seq_lengths, [zero] * len(levels), levels, ends)
    return Counter(count=seq_lengths, slots=stack(used + [zero] * (slots - len(used))))


def stack(slot: list):
    """One pytree of (B, K, ...) from K of (B, ...)."""
    return jax.tree.map(lambda *states: jnp.stack(states, axis=1), *slot)
