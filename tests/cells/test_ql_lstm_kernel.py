"""The fast gradient of QL-LSTM equals that of the plain path, and rematerialisation changes memory alone.

That the fast path equals a fold of `step` and the equations is tested in tests/cells, with the other cells.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qlstm_jax.cells import ql_lstm
from tests.cells import cases

LENGTHS = np.array([13, 9, 0, 1, 4])
# Tokens read before those of a test: rows stand at different places in their blocks of 4.
BEFORE = np.array([0, 3, 6, 1, 5])
# Two orders of the same float32 sums, of numbers of size about 1; gradients are sums over all tokens.
CLOSE = 1e-6
GRADIENTS_CLOSE = 1e-5
# A number below 2 is rounded by up to 2^-8, at different places on the two paths.
BFLOAT16_CLOSE = 2**-5


def make(sharing="full", skip=True, **options):
    """Params with blocks of 4 and nothing at its default."""
    options |= {"sharing": sharing, "skip": skip, "block_size": 4, "epsilon": 0.3}
    return cases.Case("ql_lstm", ql_lstm, None, tuple(options.items()))


def run(case, params, xs, carry, lengths, plain):
    """Values, and their gradients with respect to weights, inputs and carry through outputs and last carry."""

    def loss(params, xs, floats):
        given = None if carry is None else floats._replace(position=carry.position)
        out = ql_lstm.unroll(params, xs, seq_lengths=lengths, carry=given, plain=plain)
        return cases.weigh(out, cases.cotangents(out)), out

    floats = None if carry is None else carry._replace(position=None)
    grads, out = jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(params, xs, floats)
    return jax.tree.leaves(grads), out


compiled = jax.jit(run, static_argnums=(0, 5))
read = jax.jit(ql_lstm.unroll)


def moved(params):
    """A carry after BEFORE tokens."""
    return read(params, cases.sequence(len(BEFORE), BEFORE.max(), seed=7), seq_lengths=BEFORE)[0]


def assert_same(actual, expected, close=CLOSE, gradients_close=GRADIENTS_CLOSE):
    chex.assert_trees_all_equal_shapes_and_dtypes(actual, expected)
    for trees, tolerance in zip(zip(actual, expected, strict=True), (gradients_close, close), strict=True):
        for a, b in zip(*map(jax.tree.leaves, trees), strict=True):
            a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
            np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1, np.max(np.abs(b), initial=0)))


@pytest.mark.parametrize(
    ("sharing", "skip", "lengths"),
    [
        ("full", True, LENGTHS),
        ("full", True, None),
        ("gates", True, LENGTHS),
        ("none", True, LENGTHS),
        ("full", False, LENGTHS),
        ("none", False, None),
    ],
)
def test_fast_equals_plain(sharing, skip, lengths):
    """From a carry whose rows stand at different places in their blocks; 13 tokens are no multiple of a block."""
    case = make(sharing, skip)
    params, xs = case.params(), cases.sequence(5, 13)
    carry = moved(params)
    assert_same(*(compiled(case, params, xs, carry, lengths, plain) for plain in (False, True)))


@pytest.mark.parametrize("steps", [0, 3])
def test_less_than_a_block(steps):
    case = make()
    params, xs = case.params(), cases.sequence(5, steps)
    carry = moved(params)
    assert_same(*(compiled(case, params, xs, carry, None, plain) for plain in (False, True)))


def test_bfloat16():
    case = make()
    params, xs = case.params(dtype="bfloat16"), cases.sequence(5, 13)
    fast, plain = (compiled(case, params, xs, None, LENGTHS, plain) for plain in (False, True))
    assert fast[1][1].dtype == jnp.bfloat16
    assert_same(fast, plain, BFLOAT16_CLOSE, BFLOAT16_CLOSE)


@pytest.mark.parametrize("skip", [True, False])
def test_remat_changes_no_number(skip):
    case, again = make(skip=skip), make(skip=skip, remat=True)
    xs, carry = cases.sequence(5, 13), moved(case.params())
    actual = compiled(again, again.params(), xs, carry, LENGTHS, False)
    assert_same(actual, compiled(case, case.params(), xs, carry, LENGTHS, True))


@pytest.mark.parametrize("skip", [True, False])
def test_remat_keeps_a_block_and_not_the_sequence(skip):
    """Bytes that the compiled gradient needs besides inputs and outputs, at T = 4,096 in blocks of 64."""

    def temporary(remat, plain=False):
        def loss(params, xs):
            return jnp.sum(ql_lstm.unroll(params, xs, plain=plain)[0].c)

        params = jax.eval_shape(lambda: ql_lstm.init(jax.random.key(0), 8, 16, skip=skip, block_size=64, remat=remat))
        xs = jax.ShapeDtypeStruct((4, 4096, 8), jnp.float32)
        return jax.jit(jax.grad(loss)).lower(params, xs).compile().memory_analysis().temp_size_in_bytes

    least = temporary(remat=True)
    assert temporary(remat=False, plain=True) > 5 * least
    assert temporary(remat=False) > 3 * least


def test_forward_mode_on_the_plain_path():
    case = make()
    params, xs = case.params(), cases.sequence(2, 6)
    tangents = cases.cotangents((params, xs), seed=9)

    def loss(params, xs, plain=True):
        return jnp.sum(ql_lstm.unroll(params, xs, plain=plain)[1] ** 2)

    slope = jax.jit(lambda: jax.jvp(loss, (params, xs), tangents)[1])()
    grads = jax.jit(jax.grad(lambda p, x: loss(p, x, plain=False), argnums=(0, 1)))(params, xs)
    np.testing.assert_allclose(slope, cases.weigh(grads, tangents), rtol=GRADIENTS_CLOSE)
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(lambda p: loss(p, xs, plain=False), (params,), (tangents[0],))
