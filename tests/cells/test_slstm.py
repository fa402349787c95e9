"""The sLSTM: the numbers of the official code, extremes of its gates, its own gradient, initial values, errors."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qlstm_jax.cells import common, slstm
from tests.cells import cases, oracles

HEADS, SIZE = 2, 3
H = HEADS * SIZE
FORGET = pytest.mark.parametrize("forget_gate", slstm.FORGET_GATES)


def kernel(scale=0.6):
    return jnp.asarray(scale * np.random.default_rng(0).normal(size=(HEADS, SIZE, 4 * SIZE)), jnp.float32)


def draw(shape, *, scale=1.0, seed=1):
    return jnp.asarray(scale * np.random.default_rng(seed).normal(size=shape), jnp.float32)


def plain(recurrent_kernel, z, *, valid=None, carry=None, **options):
    """`recur` folded and differentiated as it stands."""
    dtype = options.get("dtype", "float32")
    carry = slstm.zero_carry(z.shape[0], H, dtype) if carry is None else carry
    return common.scan(lambda c, z_t: slstm.recur(recurrent_kernel, c, z_t, **options), carry, z, valid=valid)


def expected_outputs(recurrent_kernel, z, **options):
    """The oracle on pre-activations: an input kernel of ones on the diagonal, and no bias."""
    p = {"input_kernel": np.eye(4 * H), "bias": np.zeros(4 * H), "recurrent_kernel": np.float64(recurrent_kernel)}
    return np.array([oracles.slstm(p, np.float64(row), num_heads=HEADS, **options) for row in z])


@pytest.fixture(scope="module")
def golden(goldens):
    return dict(np.load(goldens / "slstm_cell.npz"))


def official(golden, *, gradient=False):
    """(params, xs) of the official cell, whose input is the pre-activations themselves."""
    heads, size = golden["R_ext_NDGD"].shape[:2]
    width = 4 * heads * size
    if gradient:  # in the layout of the official plain cell: rows (gate, out), columns in; the bias gate by gate
        recurrent, bias = golden["grad_R_vanilla"].transpose(0, 2, 1), golden["grad_b_vanilla"]
    else:
        recurrent, bias = golden["R_ext_NDGD"], golden["b_ext_NGD"].transpose(1, 0, 2)
    xs = golden["grad_x_BSGNH" if gradient else "x_BSGNH"]
    params = slstm.Params(
        input_kernel=jnp.eye(width),
        recurrent_kernel=jnp.asarray(recurrent.reshape(heads, size, 4 * size)),
        bias=jnp.asarray(bias.reshape(width)),
    )
    return params, jnp.asarray(xs.reshape(*xs.shape[:2], width))


def test_layout_of_the_official_weights(golden):
    """The weights are given in two layouts, the gradient in one of them: both read to the same numbers."""
    params, _ = official(golden)
    vanilla = golden["sd_vanilla/_recurrent_kernel_"].transpose(0, 2, 1)
    np.testing.assert_array_equal(params.recurrent_kernel, vanilla)


def test_official_states_and_outputs(golden):
    params, xs = official(golden)
    close = functools.partial(np.testing.assert_allclose, rtol=2e-6, atol=2e-6)

    def body(carry, x):
        carry, y = slstm.step(params, carry, x)
        return carry, (jnp.stack(carry), y)

    start = slstm.Carry(*map(jnp.asarray, golden["state0_ycnm_4BH"]))
    _, (states, folded) = jax.lax.scan(body, start, common.time_major(xs))
    close(states.swapaxes(0, 1), golden["all_states_4SBH"][:, 1:])
    expected = golden["y_BNSH"].transpose(0, 2, 1, 3).reshape(folded.shape[1], folded.shape[0], -1)
    close(common.time_major(folded), expected)
    for carry, ys in (
        jax.jit(slstm.unroll)(params, xs),
        jax.jit(slstm.unroll_preactivations)(params.recurrent_kernel, xs),
    ):
        close(ys, expected)
        close(jnp.stack(carry), golden["final_ycnm_4BH"])


def test_official_gradients(golden):
    params, xs = official(golden)
    weights = golden["cot_BNSH"].transpose(0, 2, 1, 3).reshape(*xs.shape[:2], -1)
    grads, x_grad = jax.jit(jax.grad(lambda p, x: jnp.sum(slstm.unroll(p, x)[1] * weights), argnums=(0, 1)))(params, xs)
    expected, expected_x = official(golden, gradient=True)
    for actual, right in [
        (grads.recurrent_kernel, expected.recurrent_kernel),
        (grads.bias, expected.bias),
        (x_grad, expected_x),
    ]:
        np.testing.assert_allclose(actual, right, rtol=5e-6, atol=5e-6)


@pytest.mark.parametrize(("forget_gate", "dtype"), [("sigmoid", "float32"), ("exponential", "bfloat16")])
def test_gradient_equals_that_of_the_plain_scan(forget_gate, dtype):
    """With respect to kernel, pre-activations and carry, through outputs and final carry."""
    lengths, steps = np.array([9, 4, 1, 0]), 9
    valid = jnp.arange(steps)[None, :] < lengths[:, None]
    z = draw((4, steps, 4 * H))
    carry = slstm.Carry(*(draw((4, H), seed=seed) for seed in (2, 3, 4, 5)))
    carry = carry._replace(y=carry.y.astype(dtype), n=1 + jnp.abs(carry.n))
    options = {"forget_gate": forget_gate, "dtype": dtype}

    def fast(r, z, carry):
        return slstm.unroll_preactivations(r, z, seq_lengths=lengths, carry=carry, **options)

    def slow(r, z, carry):
        return plain(r, z, valid=valid, carry=carry, **options)

    weights = cases.cotangents(slow(kernel(), z, carry))
    results = [
        jax.jit(jax.value_and_grad(lambda *a, run=run: cases.weigh(run(*a), weights), argnums=(0, 1, 2)))(
            kernel(), z, carry
        )
        for run in (fast, slow)
    ]
    chex.assert_trees_all_equal_shapes_and_dtypes(*results)
    # In bfloat16 the plain scan rounds each cotangent of y, 2^-8 of it; the kernel's own gradient does not.
    near = 3e-6 if dtype == "float32" else 2**-6
    for actual, expected in zip(*map(jax.tree.leaves, results), strict=True):
        actual, expected = np.float32(actual), np.float32(expected)
        assert np.abs(expected).max() > 0.05
        np.testing.assert_allclose(actual, expected, rtol=0, atol=near * np.abs(expected).max())


def extremes():
    """(16 + 3, T, 4H): every gate held at -120 or 120; then rows that jump between, and one of zeros at first."""
    steps = 6
    held = np.array([[120 if row >> gate & 1 else -120 for gate in range(4)] for row in range(16)])
    held = np.repeat(np.broadcast_to(held[:, None], (16, steps, 4)), H, axis=2)
    jumps = 120 * np.random.default_rng(3).choice([-1, 1], size=(2, steps, 4 * H))
    late = np.concatenate([np.zeros((1, 2, 4 * H)), jumps[:1, 2:]], axis=1)
    return jnp.asarray(np.concatenate([held, jumps, late]), jnp.float32)


@FORGET
@pytest.mark.parametrize("run", [slstm.unroll_preactivations, plain], ids=["unroll", "fold"])
def test_extreme_gates(run, forget_gate):
    """Right values and finite gradients from the first step on, with feedback and without, where gates tie exactly."""

    @jax.jit
    @functools.partial(jax.grad, argnums=(0, 1), has_aux=True)
    def gradients(r, z):
        carry, ys = run(r, z, forget_gate=forget_gate)
        return jnp.sum(ys * draw(ys.shape)) + sum(jnp.sum(a) for a in carry), (carry, ys)

    for recurrent in (kernel(), kernel(0.0)):
        z = extremes()
        grads, (carry, ys) = gradients(recurrent, z)
        with np.errstate(over="ignore"):
            expected = expected_outputs(recurrent, z, forget_gate=forget_gate)
        # Sums of numbers of size 120 are right to 120 · 2^-24 = 7e-6, and so are their exponentials.
        np.testing.assert_allclose(ys, expected, rtol=0, atol=1e-4)
        chex.assert_tree_all_finite((grads, ys, carry))
        assert all(np.any(g) for g in grads)


@FORGET
@pytest.mark.parametrize("reset", ["select", "multiply"])
def test_reset_of_some_rows(reset, forget_gate):
    """Rows of the carry set to zero start anew, the others go on; gradients stay finite whatever the gates."""
    first, second = extremes(), extremes()[::-1]
    again = np.arange(len(first)) % 2 == 0

    def run(r, first, second):
        carry, ys = slstm.unroll_preactivations(r, first, forget_gate=forget_gate)
        mask = again[:, None]
        carry = jax.tree.map(lambda a: jnp.where(mask, 0, a) if reset == "select" else a * ~mask, carry)
        carry, more = slstm.unroll_preactivations(r, second, carry=carry, forget_gate=forget_gate)
        return jnp.sum(ys) + jnp.sum(more) + sum(jnp.sum(a) for a in carry), more

    grads, more = jax.jit(jax.grad(run, argnums=(0, 1, 2), has_aux=True))(kernel(), first, second)
    chex.assert_tree_all_finite(grads)
    with np.errstate(over="ignore"):
        anew = expected_outputs(kernel(), second, forget_gate=forget_gate)
        whole = expected_outputs(kernel(), jnp.concatenate([first, second], axis=1), forget_gate=forget_gate)
    expected = np.where(again[:, None, None], anew, whole[:, first.shape[1] :])
    np.testing.assert_allclose(more, expected, rtol=0, atol=1e-4)
    assert np.abs(anew - whole[:, first.shape[1] :]).max() > 0.1


def test_nothing_seen_is_told_apart_unit_by_unit():
    """Of two units of one row, one with n = 0 takes m = i and forgets nothing; the other keeps the larger."""
    carry = slstm.Carry(*(jnp.asarray([a]) for a in ([0.0, 0.3], [0.0, 0.5], [0.0, 1.0], [0.0, 2.0])))
    z = jnp.asarray([[-110.0, -110.0, 50.0, 50.0, 1.0, 1.0, 0.0, 0.0]])
    carry, y = slstm.recur(jnp.zeros((1, 2, 8)), carry, z)
    np.testing.assert_allclose(carry.m, [[-110, 2]], rtol=1e-6)
    np.testing.assert_allclose(carry.n, [[1, 1]], rtol=1e-6)
    np.testing.assert_allclose(y, [[0.5 * np.tanh(1), 0.5 * 0.5]], rtol=1e-6)


@pytest.mark.parametrize(("i", "slope"), [(1.0, 0.25 * np.exp(-1)), (-120.0, 0.5)])
def test_gradient_of_a_zero_carry(i, slope):
    """dy/dc where n = 0 is that of the equations, σ(o) f' / n, with f' limited to 1 where it would overflow."""
    z = jnp.asarray([[i, 0.0, 1.0, 0.0]])
    output = lambda carry: slstm.recur(jnp.zeros((1, 1, 4)), carry, z)[1][0, 0]  # noqa: E731
    grad = jax.jit(jax.grad(output))(slstm.zero_carry(1, 1))
    np.testing.assert_allclose(grad.c, [[slope]], rtol=1e-6)
    np.testing.assert_allclose(grad.n, [[-slope * np.tanh(1)]], rtol=1e-6)


def test_the_stabiliser_is_differentiated():
    """The gradient of a final m: 1 by the input gate that last won, and then by every forget gate since."""
    z = jnp.zeros((1, 4, 4, 1)).at[0, 1, 0].set(5.0)

    def last(z):
        carry = slstm.unroll_preactivations(jnp.zeros((1, 1, 4)), z.reshape(1, 4, 4), forget_gate="exponential")[0]
        return carry.m[0, 0]

    grad = np.asarray(jax.jit(jax.grad(last))(z))[0, :, :, 0]
    np.testing.assert_allclose(grad, [[0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0]], atol=1e-6)


def test_padding_of_preactivations_changes_nothing():
    z, lengths = draw((3, 7, 4 * H)), np.array([7, 3, 0])
    padded = np.arange(7)[None, :] >= lengths[:, None]

    def run(r, z, fill):
        dirty = jnp.where(padded[:, :, None], fill, z)
        carry, ys = slstm.unroll_preactivations(r, dirty, seq_lengths=lengths)
        return jnp.sum(ys**2) + sum(jnp.sum(a) for a in carry), (carry, ys)

    compiled = jax.jit(jax.value_and_grad(run, argnums=(0, 1), has_aux=True))
    dirty, clean = compiled(kernel(), z, jnp.nan), compiled(kernel(), z, 0.0)
    chex.assert_trees_all_equal(dirty, clean)
    assert not np.any(dirty[1][1][padded])
    assert not np.any(dirty[0][1][1][padded])


def test_heads_are_separate():
    """y_{t-1} of one head reaches no gate of another."""
    jacobian = jax.jit(jax.jacrev(lambda z: slstm.unroll_preactivations(kernel(), z)[1][0, -1]))(draw((1, 2, 4 * H)))
    reach = np.abs(jacobian[:, 0, 0]).reshape(HEADS, SIZE, 4, HEADS, SIZE).max(axis=(1, 2, 4))
    assert np.all((reach > 0) == np.eye(HEADS, dtype=bool))


def test_initial_values():
    inputs, hidden = 150, 120
    params = slstm.init(jax.random.key(0), inputs, hidden, num_heads=3, block_position=0.5)
    assert abs(float(np.std(params.input_kernel)) * inputs**0.5 - 1) < 0.03
    assert params.recurrent_kernel.shape == (3, 40, 160) and params.num_heads == 3
    assert not np.any(params.recurrent_kernel)
    i, f, z, o = np.split(np.asarray(params.bias), 4)
    assert not any(np.any(b) for b in (i, z, o))
    expected = [5 - 12 * (d / 39) ** (0.3 + 1.3 * 0.5) for d in range(40)]
    np.testing.assert_allclose(f, np.tile(expected, 3), rtol=1e-5, atol=1e-5)


def test_forget_bias():
    for rho in (0, 0.25, 1.0):
        bias = np.asarray(slstm.powerlaw_forget_bias(9, rho))
        assert bias[0] == 5 and bias[-1] == -7 and np.all(np.diff(bias) < 0)
        np.testing.assert_allclose(bias[4], 5 - 12 * 0.5 ** (0.3 + 1.3 * rho), rtol=1e-6)
    np.testing.assert_array_equal(slstm.powerlaw_forget_bias(1, 0.3), [5])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 0}, "num_heads is 0; expected a positive integer"),
        ({"num_heads": 4}, "hidden_size is 6 and num_heads 4; expected a hidden_size that is a multiple"),
        ({"forget_gate": "exp"}, "forget_gate is 'exp'; expected one of 'sigmoid', 'exponential'"),
        ({"block_position": 1.5}, "place of the block is 1.5; expected a number from 0"),
        ({"block_position": float("nan")}, "place of the block is nan"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        slstm.init(jax.random.key(0), 3, 6, **options)


def test_bad_preactivations():
    z = jnp.zeros((2, 7, 4 * H))
    for bad in (z[:, 0], z[:, :, 1:], z[None]):
        with pytest.raises(ValueError, match=r"z has shape .*; expected \(batch, time, 24\), four gates"):
            slstm.unroll_preactivations(kernel(), bad)
    with pytest.raises(ValueError, match="forget_gate is 'exp'; expected one of"):
        slstm.unroll_preactivations(kernel(), z, forget_gate="exp")
    with pytest.raises(ValueError, match=r"lengths run from 2 to 8; expected 0\.\.7"):
        slstm.unroll_preactivations(kernel(), z, seq_lengths=jnp.array([8, 2]))
