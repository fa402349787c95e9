"""How strings are distributed, and that one compiled sampler serves all lengths."""

import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qlstm_jax.data.formal import TASKS

from . import oracles
from .compiled import ROWS, WIDTH, sampler

NAMES = list(TASKS)
DRAWS = 4096


@functools.cache
def drawn(name, length):
    """DRAWS rows of one length, of the width of the rows."""
    task, sample = TASKS[name], sampler(name, ROWS, WIDTH)
    batches = [sample(jax.random.key(seed), np.full(ROWS, length)) for seed in range(DRAWS // ROWS)]
    batch = jax.tree.map(lambda *parts: np.concatenate(parts), *batches)
    return batch.ids[:, :length], batch.targets[:, : task.output_length(length)]


def assert_uniform(outcomes, expected):
    """All of `expected` occur, nothing else does, each within five standard deviations of its share."""
    counts, share = collections.Counter(outcomes), 1 / len(expected)
    assert set(counts) == set(expected)
    total = sum(counts.values())
    deviation = (total * share * (1 - share)) ** 0.5
    for outcome in expected:
        assert abs(counts[outcome] - total * share) < 5 * deviation, (outcome, counts)


@pytest.mark.parametrize("name", NAMES)
def test_labels_vary_and_keys_matter(name):
    sample, lengths = sampler(name, ROWS, WIDTH), np.full(ROWS, 12)
    one, same, other = (sample(jax.random.key(seed), lengths) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.ids, same.ids)
    assert np.mean(np.any(one.ids != other.ids, axis=1)) > 0.9
    assert len(np.unique(one.ids, axis=0)) > 0.6 * ROWS
    # The least of twelve symbols is 0 in 93 of 100 rows to be sorted.
    counts = np.bincount(one.targets[:, 0])
    assert np.sum(counts > 0) >= 2 and counts.max() < (0.99 if name == "bucket_sort" else 0.8) * ROWS


@pytest.mark.parametrize("name", NAMES)
def test_a_fixed_length_fixes_the_shapes(name):
    task = TASKS[name]
    for length in (1, 2, 10):
        batch = jax.eval_shape(lambda key, length=length: task.sample(key, 3, length), jax.random.key(0))
        n = length - 1 if name == "modular_arithmetic" and length % 2 == 0 else length
        m = oracles.output_length(name, n)
        shapes = jax.tree.map(lambda x: (x.shape, x.dtype.name), batch)
        assert shapes.ids == ((3, n), "int32") and shapes.lengths == ((3,), "int32")
        assert shapes.targets == ((3, m), "int32") and shapes.target_lengths == ((3,), "int32")
        assert shapes.mask == ((3, m), "float32")


@pytest.mark.parametrize("name", ["modular_arithmetic", "compute_sqrt"])
def test_one_program_serves_every_length(name):
    task, compilations = TASKS[name], []

    @jax.jit
    def sample(key, length):
        compilations.append(length)
        return task.sample(key, 8, length, max_length=9)

    for length in range(1, 10):
        batch = sample(jax.random.key(length), jnp.int32(length))
        np.testing.assert_array_equal(batch.lengths, np.full(8, task.input_length(length)))
        for ids, target in zip(np.asarray(batch.ids), np.asarray(batch.targets), strict=True):
            n = task.input_length(length)
            assert target[: task.output_length(n)].tolist() == getattr(oracles, name)(ids[:n].tolist())
    assert len(compilations) == 1
    # A traced length cannot raise; it is clipped.
    np.testing.assert_array_equal(sample(jax.random.key(0), jnp.int32(99)).lengths, np.full(8, 9))
    np.testing.assert_array_equal(sample(jax.random.key(0), jnp.int32(-3)).lengths, np.full(8, 1))
    assert len(compilations) == 1


def test_eager_samples_equal_compiled_ones():
    name = "missing_duplicate_string"
    lengths = np.array([1, 2, 3, 9], np.int32)
    eager = TASKS[name].sample(jax.random.key(3), 4, lengths, max_length=9)
    compiled = jax.jit(lambda key, n: TASKS[name].sample(key, 4, n, max_length=9))(jax.random.key(3), lengths)
    jax.tree.map(np.testing.assert_array_equal, eager, compiled)


@pytest.mark.parametrize("name", ["even_pairs", "parity_check", "reverse_string", "duplicate_string", "odds_first"])
def test_bits_are_fair(name):
    assert_uniform([tuple(row) for row in drawn(name, 4)[0].tolist()], list(np.ndindex(2, 2, 2, 2)))


@pytest.mark.parametrize(("name", "symbols"), [("cycle_navigation", 3), ("bucket_sort", 5)])
def test_symbols_are_uniform(name, symbols):
    assert_uniform([tuple(row) for row in drawn(name, 2)[0].tolist()], list(np.ndindex(symbols, symbols)))


def test_modular_arithmetic_digits_and_operators_are_uniform():
    ids = drawn("modular_arithmetic", 3)[0].tolist()
    assert_uniform([tuple(row) for row in ids], [(a, o, b) for a in range(5) for o in (5, 6, 7) for b in range(5)])


def test_stack_sizes_and_actions_are_uniform():
    ids = drawn("stack_manipulation", 6)[0]
    assert_uniform(np.sum(ids < 2, axis=1).tolist(), [1, 2, 3, 4, 5])
    assert_uniform(ids[:, -1].tolist(), [2, 3, 4])
    assert_uniform(ids[:, 0].tolist(), [0, 1])


def test_brackets_split_uniformly():
    texts = ["".join("01234+-*()"[i] for i in row) for row in drawn("modular_arithmetic_brackets", 9)[0]]
    left = [oracles.operand_length(text[1:]) for text in texts]
    assert_uniform(left, [1, 2, 3, 4, 5])
    assert_uniform([text[1 + n] for text, n in zip(texts, left, strict=True)], "+-*")
    assert_uniform([text[1] for text, n in zip(texts, left, strict=True) if n == 1], "01234")


def test_the_unknown_is_any_digit_and_has_any_value():
    ids, targets = drawn("solve_equation", 7)
    assert_uniform(np.argmax(ids == 9, axis=1).tolist(), [1, 3])
    assert_uniform(ids[:, 2].tolist(), [5, 6])
    assert_uniform(zip(targets[:, 0].tolist(), ids[:, 6].tolist(), strict=True), list(np.ndindex(5, 5)))


def test_the_hidden_place_is_uniform():
    ids, targets = drawn("missing_duplicate_string", 7)
    assert_uniform(np.argmax(ids == 2, axis=1).tolist(), range(6))
    assert_uniform(targets[:, 0].tolist(), [0, 1])


@pytest.mark.parametrize("name", ["binary_addition", "binary_multiplication"])
def test_operands_are_uniform_above_zero(name):
    ids = drawn(name, 6)[0]
    split = np.argmax(ids == 2, axis=1)
    assert_uniform(split.tolist(), [1, 2, 3, 4])
    strings = [tuple(row) for row in ids[split == 2].tolist()]
    firsts = [(1, 0), (0, 1), (1, 1)]
    seconds = [bits for bits in np.ndindex(2, 2, 2) if any(bits)]
    assert_uniform(strings, [(*a, 2, *b) for a in firsts for b in seconds])


def test_the_value_without_an_operator_is_uniform():
    assert_uniform([tuple(row) for row in drawn("binary_addition", 2)[0].tolist()], [(0, 0), (1, 0), (0, 1)])
    assert not drawn("binary_addition", 1)[0].any()


def test_the_radicand_is_uniform_above_zero():
    rows = [tuple(row) for row in drawn("compute_sqrt", 3)[0].tolist()]
    assert_uniform(rows, [bits for bits in np.ndindex(2, 2, 2) if any(bits)])
