"""Long numbers and deep expressions where random strings seldom go."""

import math
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qlstm_jax.data.formal import TASKS, draws, limbs

from . import oracles


def bits_of(values, width):
    return np.array([[value >> place & 1 for place in range(width)] for value in values], np.int32)


def values_of(bits):
    return [sum(int(bit) << place for place, bit in enumerate(row)) for row in np.asarray(bits)]


def hard_numbers(width):
    """Numbers whose carries run far: all ones, powers of two, alternating bits, and random ones."""
    generator = random.Random(3)
    ones = (1 << width) - 1
    return [0, 1, ones, ones - 1, 1 << (width - 1), ones // 3, 2 * (ones // 3)] + [
        generator.getrandbits(width) for _ in range(9)
    ]


@pytest.mark.parametrize("width", [1, 31, 500])
def test_sums_carry_any_distance(width):
    a = hard_numbers(width)
    for b in (a[::-1], [1] * len(a)):
        columns = np.pad(bits_of(a, width) + bits_of(b, width), ((0, 0), (0, 1)))
        total = jax.jit(lambda x: limbs.settle(x, 1, largest=2))(columns)
        assert values_of(total) == [x + y for x, y in zip(a, b, strict=True)]


@pytest.mark.parametrize("width", [1, 8, 500])
def test_products_are_exact(width):
    a = hard_numbers(width)
    b = [*a[2:], *a[:2]]

    @jax.jit
    def product(x, y):
        x, y = (limbs.to_limbs(jnp.pad(z, ((0, 0), (0, width))), 8) for z in (x, y))
        return limbs.to_bits(limbs.multiply(x, y, 8), 8, 2 * width)

    for other in (b, a):
        bits = product(bits_of(a, width), bits_of(other, width))
        assert values_of(bits) == [x * y for x, y in zip(a, other, strict=True)]


@pytest.mark.parametrize("limb_bits", [3, 24, 28])
def test_roots_are_exact_beside_squares(limb_bits):
    digits = 120
    roots = [root for root in hard_numbers(digits) if root > 0]
    values = [root * root + offset for root in roots for offset in (-1, 0, 2 * root)]
    pairs = np.array([[value >> 2 * place & 3 for place in reversed(range(digits))] for value in values])
    bits = jax.jit(lambda x: limbs.square_root(x, limb_bits))(pairs.astype(np.int32))
    assert values_of(np.asarray(bits)[:, ::-1]) == [math.isqrt(value) for value in values]


@pytest.mark.parametrize("name", ["binary_addition", "binary_multiplication"])
def test_operands_of_all_ones(name):
    strings = [[1] * split + [2] + [1] * (499 - split) for split in (1, 250, 498)]
    targets = np.asarray(jax.jit(TASKS[name].target)(np.array(strings, np.int32)))
    assert targets.tolist() == [getattr(oracles, name)(ids) for ids in strings]


@pytest.mark.parametrize("name", ["modular_arithmetic_brackets", "solve_equation"])
def test_expressions_as_deep_as_they_get(name):
    def nested(depth, side):
        text = "3"
        for level in range(depth):
            operator = "+-"[level % 2]
            text = f"({text}{operator}2)" if side == "left" else f"({level % 5}{operator}{text})"
        return text

    texts = [nested(90, "left"), nested(90, "right")]
    names = "+-*()"
    if name == "solve_equation":
        names = "+-()x="
        texts = [text.replace("3", "x", 1) + "=1" for text in texts]
        texts[1] = texts[1].replace("x", "3").replace("(4-", "(x-", 1)
    strings = [[int(c) if c.isdigit() else 5 + names.index(c) for c in text] for text in texts]
    targets = jax.jit(TASKS[name].target)(np.array(strings, np.int32))
    assert np.asarray(targets).tolist() == [getattr(oracles, name)(ids) for ids in strings]


def test_pop_on_an_empty_stack_is_ignored_at_any_point():
    strings = [
        [1, 2, 2, 2, 4, 3, 2, 4],
        [0, 2, 4, 2, 2, 3, 4, 4],
        [1, 1, 1, 1, 2, 2, 2, 2],
        [0, 2, 2, 2, 2, 2, 2, 3],
    ]
    targets = np.asarray(jax.jit(TASKS["stack_manipulation"].target)(np.array(strings, np.int32)))
    assert targets.tolist() == [oracles.stack_manipulation(ids) for ids in strings]


def test_integers_stay_below_their_bound():
    bounds = np.unique(np.concatenate([np.arange(1, 3000), 2 ** np.arange(17), 2 ** np.arange(1, 17) - 1]))
    highest = draws.integers(jnp.full(bounds.shape, 0xFFFFFFFF, jnp.uint32), bounds.astype(np.int32))
    np.testing.assert_array_equal(highest, bounds - 1)
    np.testing.assert_array_equal(draws.integers(jnp.zeros(bounds.shape, jnp.uint32), bounds), 0)


def test_without_zero_changes_empty_stretches_only():
    bits = np.array([[1, 0, 0, 0, 1], [1, 0, 1, 0, 1], [0, 0, 0, 0, 0]], np.int32)
    start, stop = np.array([1, 1, 0], np.int32), np.array([4, 4, 5], np.int32)
    word = np.array([0x92500000, 0x92500000, 0xFFFFFFFF], np.uint32)
    # The first two words lie just above 4/7 of their range: 5 among 1..7. The last one is the highest: 31.
    expected = [[1, 1, 0, 1, 1], [1, 0, 1, 0, 1], [1, 1, 1, 1, 1]]
    np.testing.assert_array_equal(jax.jit(draws.without_zero)(bits, start, stop, word), expected)
