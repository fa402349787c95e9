"""The balanced tree, its streaming counter and their join, on a merge that is exact and not associative.

A state is the span of tokens that it stands for, and a number that depends on the shape of the tree over them.
"""

from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qlstm_jax.cells.pr_lstm import counter, extension, tree

PRIME = 9973  # with it 2 l + 3 r + 1 stays below 2^24, where float32 counts exactly


class Span(NamedTuple):
    start: object
    end: object
    mark: object


def join(left, right):
    return Span(left.start, right.end, (2 * left.mark + 3 * right.mark + 1) % PRIME)


def join_pairs(states):
    return join(*(jax.tree.map(lambda a, k=k: a[:, k::2], states) for k in (0, 1)))


MERGE = tree.Merge(two=join, pairs=join_pairs)


def token(t):
    return Span(t, t + 1, 100 + 7 * t)


@cache
def block(start, size):
    """The balanced tree over tokens start .. start + size − 1, size a power of two."""
    if size == 1:
        return token(start)
    return join(block(start, size // 2), block(start + size // 2, size // 2))


@cache
def prefix(n):
    """The left fold over the blocks of n's binary digits, n >= 1."""
    state, start = None, 0
    for bit in reversed(range(n.bit_length())):
        if n >> bit & 1:
            new = block(start, 2**bit)
            state = new if state is None else join(state, new)
            start += 2**bit
    return state


def slots_after(n, slots):
    """The counter's slots after n tokens, by their definition."""
    result = []
    for j in range(slots):
        if n >> j & 1:
            result.append(block(((n >> j) - 1) << j, 2**j))
        elif n >> (j + 1) & 1:
            result.append(prefix(n >> (j + 1) << (j + 1)))
        else:
            result.append(Span(0, 0, 0))
    return result


def columns(rows):
    """Spans in nested lists as one Span of float32 arrays."""
    array = np.array(rows, np.float32)
    return Span(*(jnp.asarray(array[..., k]) for k in range(3)))


def tokens_from(starts, steps):
    """Row b: tokens starts[b] .. starts[b] + steps − 1."""
    return columns([[token(s + t) for t in range(steps)] for s in starts])


def counter_at(counts, slots):
    return counter.Counter(jnp.asarray(counts, jnp.int32), columns([slots_after(int(n), slots) for n in counts]))


def assert_counter(actual, counts):
    np.testing.assert_array_equal(actual.count, counts)
    expected = columns([slots_after(int(n), tree.num_spans(actual.slots)) for n in counts])
    jax.tree.map(np.testing.assert_array_equal, actual.slots, expected)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7, 8, 13, 33])
def test_levels_and_prefixes(steps):
    @jax.jit
    def run(leaves):
        levels = tree.blocks(MERGE, leaves)
        return levels, tree.prefixes(MERGE, levels)

    levels, ends = run(tokens_from([0], steps))
    assert len(levels) == len(ends) == steps.bit_length()
    for j in range(len(levels)):
        blocks = range(steps >> j)
        jax.tree.map(np.testing.assert_array_equal, levels[j], columns([[block(r << j, 2**j) for r in blocks]]))
        jax.tree.map(np.testing.assert_array_equal, ends[j], columns([[prefix((r + 1) << j) for r in blocks]]))


def test_reduce_with_lengths():
    lengths = np.arange(71)
    reduced = jax.jit(partial(tree.reduce, MERGE))(tokens_from([0] * 71, 70), lengths)
    expected = columns([Span(0, 0, 0)] + [prefix(n) for n in range(1, 71)])
    jax.tree.map(np.testing.assert_array_equal, reduced, expected)


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 12, 31, 32, 70])
def test_reduce(steps):
    reduced = jax.jit(partial(tree.reduce, MERGE))(tokens_from([0], steps))
    jax.tree.map(np.testing.assert_array_equal, reduced, columns([prefix(steps)]))


def test_reduce_of_nothing():
    nothing = jax.tree.map(lambda a: a[:, :0], tokens_from([0, 0], 1))
    reduced = tree.reduce(MERGE, nothing)
    assert reduced.mark.shape == (2,) and not np.any(reduced.mark)


def test_a_stream_from_its_start():
    """One token after another; the rows wait at different times, so that they count differently."""
    steps, slots = 45, 6
    takes = np.stack([np.ones(steps, bool), np.arange(steps) % 3 > 0, np.arange(steps) > 20])

    @jax.jit
    def run(takes):
        def push(state, take):
            here = state.count.astype(jnp.float32)
            state, end = counter.push(MERGE, state, token(here), valid=take)
            return state, (state, end)

        zeros = counter.empty(token(jnp.zeros((3,))), slots)
        return jax.lax.scan(push, zeros, takes.T)[1]

    states, ends = run(takes)
    for t in range(steps):
        counts = takes[:, : t + 1].sum(axis=1)
        assert_counter(jax.tree.map(lambda a, t=t: a[t], states), counts)
        for b in np.flatnonzero(takes[:, t]):
            assert tuple(float(a[t, b]) for a in ends) == prefix(int(counts[b]))


@pytest.mark.parametrize("level", [0, 2])
def test_push_from_every_count(level):
    """Rows at 0, 1, 2, ... tokens, each of which takes a block of 2^level at the next place that it fits."""
    counts, slots = np.arange(60), 7
    places = (counts >> level) << level
    new = columns([block(int(s), 2**level) for s in places])
    state, end = jax.jit(partial(counter.push, MERGE, level=level))(counter_at(counts, slots), new)
    jax.tree.map(np.testing.assert_array_equal, end, columns([prefix(int(s) + 2**level) for s in places]))
    np.testing.assert_array_equal(state.count, counts + 2**level)
    for b in range(60):
        expected = slots_after(int(places[b]) + 2**level, slots)[level:]
        assert [tuple(float(a[b, j]) for a in state.slots) for j in range(level, slots)] == expected


@pytest.mark.parametrize(("steps", "padded"), [(1, False), (2, True), (3, True), (7, False), (8, True), (13, True)])
def test_extend_from_every_count(steps, padded):
    starts, slots = np.arange(36), 6
    added = np.arange(36) * 5 % (steps + 1) if padded else np.full(36, steps)
    run = jax.jit(partial(extension.extend, MERGE))
    state, ends = run(counter_at(starts, slots), tokens_from(starts, steps), jnp.asarray(added) if padded else None)
    assert_counter(state, starts + added)
    for b in range(36):
        for t in range(added[b]):
            assert tuple(float(a[b, t]) for a in ends) == prefix(int(starts[b]) + t + 1)


def test_from_tree_equals_a_stream():
    lengths = jnp.arange(24, dtype=jnp.int32)

    @jax.jit
    def run(leaves):
        levels = tree.blocks(MERGE, leaves)
        return extension.from_tree(levels, tree.prefixes(MERGE, levels), lengths, 7)

    assert_counter(run(tokens_from([0] * 24, 23)), np.arange(24))


def test_outgrown_slots_give_nan():
    """Two slots count to 3."""
    counts = np.array([0, 1, 2, 3])
    _, end = jax.jit(partial(counter.push, MERGE))(counter_at(counts, 2), columns([token(int(n)) for n in counts]))
    np.testing.assert_array_equal(np.isnan(end.mark), [False, False, False, True])
    extend = jax.jit(partial(extension.extend, MERGE))
    state, ends = extend(counter_at(counts, 2), tokens_from(counts, 3))
    np.testing.assert_array_equal(np.isnan(ends.mark), counts[:, None] + np.arange(1, 4)[None, :] > 3)
    np.testing.assert_array_equal(state.count, counts + 3)
    _, again = extend(state, tokens_from(counts, 3))
    assert np.isnan(again.mark[1:]).all()
    with pytest.raises(ValueError, match="4 tokens do not fit a stream of 2 slots, which holds at most 3"):
        extension.extend(MERGE, counter_at(counts, 2), tokens_from(counts, 4))


def test_empty_counter_and_digits():
    assert_counter(counter.empty(token(jnp.zeros((3,))), 4), np.zeros(3, int))
    n = np.arange(40)
    assert [len(f"{i:b}") - len(f"{i:b}".rstrip("1")) for i in n] == list(counter.trailing_ones(jnp.asarray(n)))
    assert [i >> 3 & 1 for i in n] == list(counter.digit(jnp.asarray(n), 3))


def count_merges(run, steps):
    """The number of states that the merge computes in `run(merge, leaves)`, found without computing any."""
    sizes = []
    leaves = jax.eval_shape(lambda: token(jnp.zeros((1, steps))))
    axes = jax.tree.leaves(leaves)[0].ndim

    def two(left, right):
        assert jax.tree.map(jnp.shape, left) == jax.tree.map(jnp.shape, right)
        # Single states, one a row, have no axis of spans.
        sizes.append(tree.num_spans(left) if jax.tree.leaves(left)[0].ndim == axes else 1)
        return join(left, right)

    def pairs(states):
        sizes.append(tree.num_spans(states) // 2)
        return join_pairs(states)

    jax.eval_shape(partial(run, tree.Merge(two, pairs)), leaves)
    return sum(sizes)


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 8, 9, 100, 127, 128, 1023, 1024, 1025])
def test_number_of_merges(steps):
    assert count_merges(tree.reduce, steps) == steps - 1
    both = count_merges(lambda merge, leaves: tree.prefixes(merge, tree.blocks(merge, leaves)), steps)
    assert steps - 1 <= both <= 2 * steps
