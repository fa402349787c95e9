"""What holds of every cell: `unroll` equals folding `step`, padding never matters, and no output looks ahead."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qlstm_jax.cells import common, pr_lstm, ql_lstm
from tests.cells import cases

STEPS = 33
LENGTHS = np.array([33, 32, 17, 8, 1, 0])
# The pieces in which a stream arrives: their widths, and for each row how much of them is valid. Each row is cut at
# places of its own: within blocks of QL-LSTM, at unaligned counts of PR-LSTM.
WIDTHS = (6, 13, 2)
CUTS = [
    np.array([[6, 0, 3, 5, 1], [13, 9, 0, 8, 1], [2, 2, 2, 2, 2]]),
    np.array([[4, 1, 2, 0, 6], [4, 12, 7, 13, 2], [2, 2, 2, 2, 2]]),
]
LONGEST = sum(WIDTHS)
# Two orders of the same float32 sums differ by a few roundings of numbers of size about 1; gradients are longer sums.
CLOSE = 3e-6
GRADIENTS_CLOSE = 3e-5


@pytest.fixture(scope="module", params=cases.CASES, ids=lambda c: c.name)
def case(request):
    return request.param


@pytest.fixture(scope="module", params=[c for c in cases.CASES if c.main], ids=lambda c: c.name)
def main_case(request):
    return request.param


# How a stream is cut up does not depend on PR-LSTM's refinements, so one number of them is enough.
@pytest.fixture(scope="module", params=[c for c in cases.CASES if c.main or c.cell is ql_lstm], ids=lambda c: c.name)
def stream_case(request):
    return request.param


def run_fold(case, params, xs, lengths):
    return cases.fold(case.cell, params, xs, lengths, cases.start(case.cell, params, len(xs), xs.shape[1]))


def run_pieces(case, params, pieces, lengths):
    """`unroll` continued from piece to piece, the last one without lengths."""
    carry, ys = cases.start(case.cell, params, len(pieces[0]), LONGEST), []
    for k, (piece, n) in enumerate(zip(pieces, lengths, strict=True)):
        carry, y = case.cell.unroll(params, piece, seq_lengths=n if k < len(pieces) - 1 else None, carry=carry)
        ys.append(y)
    return carry, ys


def gradients(run):
    """(case, params, xs, lengths, weights) -> the gradients of the weighted sum of outputs and carry, compiled."""

    @functools.partial(jax.jit, static_argnums=0)
    def compiled(case, params, xs, lengths, weights):
        return jax.grad(lambda p, x: cases.weigh(run(case, p, x, lengths), weights), argnums=(0, 1))(params, xs)

    return compiled


fold = jax.jit(run_fold, static_argnums=0)
in_pieces = jax.jit(run_pieces, static_argnums=0)
fold_gradients, pieces_gradients = gradients(run_fold), gradients(run_pieces)
forward = jax.jit(lambda case, params, xs, **options: case.cell.unroll(params, xs, **options), static_argnums=0)


def assert_close(actual, expected):
    chex.assert_trees_all_equal_shapes_and_dtypes(actual, expected)
    chex.assert_trees_all_close(actual, expected, rtol=CLOSE, atol=CLOSE)


def assert_same_carry(actual, expected):
    """Equal; but where the fold's stream has fewer slots, the further ones are free."""
    if isinstance(actual, pr_lstm.Carry):
        slots = expected.slots.h.shape[1]
        assert all(not np.any(a[:, slots:]) for a in jax.tree.leaves(actual.slots))
        actual = actual._replace(slots=jax.tree.map(lambda a: a[:, :slots], actual.slots))
    assert_close(actual, expected)


def assert_gradients_close(actual, expected):
    def check(a, b):
        np.testing.assert_allclose(a, b, rtol=0, atol=GRADIENTS_CLOSE * max(1, np.max(np.abs(b), initial=0)))

    chex.assert_trees_all_equal_shapes(actual, expected)
    jax.tree.map(check, actual, expected)


def padding(lengths, steps):
    return np.arange(steps)[None, :] >= lengths[:, None]


def test_unroll_equals_fold(case):
    params, xs = case.params(), cases.sequence(len(LENGTHS), STEPS)
    carry, ys = forward(case, params, xs, seq_lengths=LENGTHS)
    expected_carry, expected = fold(case, params, xs, LENGTHS)
    assert_close(ys, expected)
    assert_same_carry(carry, expected_carry)
    assert not np.any(np.asarray(ys)[padding(LENGTHS, STEPS)])


@pytest.mark.parametrize("fill", [np.nan, 1e30])
def test_padding_changes_nothing(case, fill):
    params, xs = case.params(), cases.sequence(len(LENGTHS), STEPS)
    dirty = jnp.where(padding(LENGTHS, STEPS)[:, :, None], fill, xs)
    chex.assert_trees_all_equal(
        forward(case, params, dirty, seq_lengths=LENGTHS), forward(case, params, xs, seq_lengths=LENGTHS)
    )


@pytest.mark.parametrize("cut", range(len(CUTS)))
def test_pieces_equal_the_whole(stream_case, cut):
    lengths = CUTS[cut]
    params, xs = stream_case.params(), np.asarray(cases.sequence(lengths.shape[1], LONGEST))
    carry, ys = in_pieces(stream_case, params, cases.cut_rows(xs, lengths, WIDTHS, fill=np.nan), lengths)
    expected_carry, expected = fold(stream_case, params, xs, lengths.sum(axis=0))
    assert_close(cases.join_rows(ys, lengths, LONGEST), np.asarray(expected))
    assert_close(carry, expected_carry)
    assert all(not np.any(y[padding(n, y.shape[1])]) for y, n in zip(map(np.asarray, ys), lengths, strict=True))


def test_gradients_of_pieces_equal_those_of_the_fold(main_case):
    """With respect to weights and inputs, through outputs and final carry; NaN in the padding, whose gradient is 0."""
    for lengths in CUTS:
        total, batch = lengths.sum(axis=0), lengths.shape[1]
        params, xs = main_case.params(), np.asarray(cases.sequence(batch, LONGEST))
        carry_weights, y_weights = cases.cotangents(fold(main_case, params, xs, total))
        expected, expected_xs = fold_gradients(main_case, params, xs, total, (carry_weights, y_weights))
        weights = carry_weights, cases.cut_rows(np.asarray(y_weights), lengths, WIDTHS)
        pieces = cases.cut_rows(xs, lengths, WIDTHS, fill=np.nan)
        grads, piece_grads = pieces_gradients(main_case, params, pieces, lengths, weights)
        assert_gradients_close(grads, expected)
        assert_gradients_close(cases.join_rows(piece_grads, lengths, LONGEST), expected_xs)
        for grad, n in zip(map(np.asarray, piece_grads), lengths, strict=True):
            assert not np.any(grad[padding(n, grad.shape[1])])
            assert np.all(np.any(grad != 0, axis=2) | padding(n, grad.shape[1]))


@pytest.mark.parametrize("steps", [3, 8, 9, 31])
def test_more_sequence_lengths(main_case, steps):
    check_steps(main_case, steps)


@pytest.mark.parametrize("steps", [0, 1])
def test_shortest_sequences(case, steps):
    check_steps(case, steps)


def check_steps(case, steps):
    params, xs = case.params(), cases.sequence(len(LENGTHS), STEPS)
    carry, ys = forward(case, params, xs[:, :steps])
    expected_carry, expected = fold(case, params, xs, np.full(len(LENGTHS), steps))
    assert_close(ys, expected[:, :steps])
    assert_same_carry(carry, expected_carry)


def test_no_output_looks_ahead(main_case):
    """d y_t / d x_s is 0 for s > t, and not for s <= t: every output depends on all of its past."""
    steps, params = 9, main_case.params()
    weights = cases.cotangents(jnp.zeros((cases.H,)))

    def outputs(xs):
        return main_case.cell.unroll(params, xs)[1][0] @ weights

    jacobian = jax.jit(jax.jacrev(outputs))(cases.sequence(1, steps))
    depends = np.abs(jacobian).max(axis=(1, 3)) > 0
    np.testing.assert_array_equal(depends, np.tri(steps, dtype=bool))


def test_bfloat16(main_case):
    params, xs = main_case.params(dtype="bfloat16"), cases.sequence(len(LENGTHS), STEPS)
    carry, ys = forward(main_case, params, xs, seq_lengths=LENGTHS)
    folded_carry, folded = fold(main_case, params, xs, LENGTHS)
    assert ys.dtype == jnp.bfloat16
    if main_case.cell is pr_lstm:
        slots = folded_carry.slots.h.shape[1]
        carry = carry._replace(slots=jax.tree.map(lambda a: a[:, :slots], carry.slots))
    chex.assert_trees_all_equal_shapes_and_dtypes(carry, folded_carry)
    carries = dict(jax.tree_util.tree_leaves_with_path(carry))
    for path, a in carries.items():
        running_sum = main_case.name in ("gru", "min_gru", "min_lstm") and path[-1].name == "h"
        wide = path[-1].name in ("c", "n", "m", "memory", "summary") or running_sum
        expected = jnp.int32 if path[-1].name in ("count", "position") else jnp.float32 if wide else jnp.bfloat16
        assert a.dtype == expected, path

    # One rounding of a number below 2 is 2^-8; where two sums round apart, the recurrence carries the difference on.
    near = functools.partial(np.testing.assert_allclose, rtol=2**-7, atol=2**-7)
    jax.tree.map(
        lambda a, b: near(np.asarray(a, np.float32), np.asarray(b, np.float32)), (ys, carry), (folded, folded_carry)
    )
    _, exact = forward(main_case, main_case.params(), xs, seq_lengths=LENGTHS)
    np.testing.assert_allclose(np.asarray(ys, np.float32), exact, rtol=0.05, atol=0.05)


def test_nonlinearities_are_float32(main_case):
    """In bfloat16 a gate near 1 keeps 8 bits of what it forgets: no sigmoid or tanh may see less than float32."""
    params = main_case.params(dtype="bfloat16")
    jaxpr = jax.make_jaxpr(lambda xs: main_case.cell.unroll(params, xs))(cases.sequence(2, 5).astype(jnp.bfloat16))
    operands = [v.aval.dtype for eqn in equations(jaxpr.jaxpr) if eqn.primitive.name in NONLINEAR for v in eqn.invars]
    seen = {dtype.name for dtype in operands if jnp.issubdtype(dtype, jnp.floating)}
    assert seen == {"float32"}


NONLINEAR = ("logistic", "tanh", "rsqrt", "max")


def equations(jaxpr):
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in jax.tree.leaves(list(eqn.params.values()), is_leaf=lambda p: hasattr(p, "jaxpr")):
            if hasattr(inner, "jaxpr"):
                yield from equations(inner.jaxpr)


@pytest.mark.parametrize("lengths", [None, [7, 4, 1, 0]], ids=["full", "padded"])
def test_reverse(lengths):
    xs, lengths = cases.sequence(4, 7), None if lengths is None else jnp.array(lengths)
    once = common.reverse(xs, lengths)
    chex.assert_trees_all_equal(common.reverse(once, lengths), xs)
    for row, reversed_row, n in zip(xs, once, [7] * 4 if lengths is None else lengths, strict=True):
        np.testing.assert_array_equal(reversed_row, np.concatenate([row[:n][::-1], row[n:]]))


def test_scan_with_padding():
    """`common.scan` on a sum that can be done by hand."""
    xs = jnp.arange(6.0).reshape(2, 3, 1)
    valid = jnp.array([[True, True, False], [False, True, True]])
    total, ys = common.scan(lambda c, x: (c + x, 10 * (c + x)), jnp.zeros((2, 1)), xs, valid=valid)
    np.testing.assert_array_equal(ys[:, :, 0], [[0, 10, 0], [0, 40, 90]])
    np.testing.assert_array_equal(total[:, 0], [1, 9])
