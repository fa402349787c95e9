"""The fast gradient of QL-LSTM equals that of the plain path, and rematerialisation changes memory alone."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qlstm_jax.cells import ql_lstm
from qlstm_jax.kernels import ql_lstm as kernel
from tests.cells import cases

D, H = cases.D, cases.H
CASES = [c for c in cases.CASES if c.cell is ql_lstm]
ALL = pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
# Two orders of the same float32 sums, of numbers of size about 1; gradients are sums over all tokens.
CLOSE = 1e-6
GRADIENTS_CLOSE = 1e-5

# Lengths of rows, and where they stand in their blocks before: whole sequences, ends within a block, none at all.
LENGTHS = {
    "all": None,
    "padded": np.array([13, 9, 0, 1, 4]),
}
BEFORE = np.array([0, 3, 6, 1, 5])


def start(case, params, moved):
    """A carry as after BEFORE tokens, so that with blocks of 4 or 6 rows stand at different places; or the first."""
    xs = cases.sequence(len(BEFORE), BEFORE.max(), seed=7)
    lengths = BEFORE if moved else np.zeros_like(BEFORE)
    return ql_lstm.unroll(params, xs, lengths=lengths, plain=True)[1] if moved else None


def run(case, params, xs, carry, lengths, plain):
    """Values, and the gradients with respect to weights, inputs and carry through outputs and last carry."""
    floats = None if carry is None else carry._replace(position=None)

    def outputs(params, xs, floats):
        given = None if carry is None else floats._replace(position=carry.position)
        return ql_lstm.unroll(params, xs, lengths=lengths, carry=given, plain=plain)

    def loss(params, xs, floats):
        out = outputs(params, xs, floats)
        return cases.weigh(out, cases.cotangents(out)), out

    return jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(params, xs, floats)


compiled = jax.jit(run, static_argnums=(0, 5))


def assert_same(actual, expected, close):
    chex.assert_trees_all_equal_shapes_and_dtypes(actual, expected)

    def check(a, b):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        np.testing.assert_allclose(a, b, rtol=0, atol=close * max(1, np.max(np.abs(b), initial=0)))

    jax.tree.map(check, actual, expected)


@pytest.mark.parametrize("moved", [False, True], ids=["fresh", "moved"])
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@ALL
def test_equals_the_plain_path(case, lengths, moved):
    params, xs = case.params(), cases.sequence(5, 13)
    carry = start(case, params, moved)
    grads, out = compiled(case, params, xs, carry, lengths, False)
    expected_grads, expected = compiled(case, params, xs, carry, lengths, True)
    assert_same(out, expected, CLOSE)
    # The structure of the gradient is that of its params, options included.
    assert_same(jax.tree.leaves(grads), jax.tree.leaves(expected_grads), GRADIENTS_CLOSE)


@pytest.mark.parametrize("steps", [0, 1, 3])
@pytest.mark.parametrize("case", [c for c in CASES if c.options[2] == ("block_size", 4) or not c.options[1][1]], ids=str)
def test_short_sequences(case, steps):
    """Fewer tokens than a block, from rows that stand at different places."""
    params, xs = case.params(), cases.sequence(5, steps)
    carry = start(case, params, True)
    grads, out = compiled(case, params, xs, carry, None, False)
    expected_grads, expected = compiled(case, params, xs, carry, None, True)
    assert_same(out, expected, CLOSE)
    assert_same(jax.tree.leaves(grads), jax.tree.leaves(expected_grads), GRADIENTS_CLOSE)
