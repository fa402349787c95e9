"""The matrix memory as a recurrence and as a T x T form: against its equations in numpy and the official code."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qlstm_jax.cells.mlstm import matrix_memory
from qlstm_jax.cells.mlstm.matrix_memory import State

FORMS = pytest.mark.parametrize("form", [matrix_memory.recurrent, matrix_memory.parallel], ids=lambda f: f.__name__)
# Of an array's largest number: float32 rounding of sums of a few dozen terms.
CLOSE = 3e-6
GRADIENTS_CLOSE = 1e-5


def draw(batch, steps, heads=2, key_size=3, value_size=5, *, gates=3.0, seed=0):
    """((q, k, v, i, f), state), normal numbers, the gates' times `gates`."""
    rng = np.random.default_rng(seed)

    def normal(*shape, scale=1.0):
        return jnp.asarray(scale * rng.normal(size=shape), jnp.float32)

    q, k = (normal(batch, steps, heads, key_size) for _ in range(2))
    v = normal(batch, steps, heads, value_size)
    i, f = (normal(batch, steps, heads, scale=gates) for _ in range(2))
    n = normal(batch, heads, key_size)
    return (q, k, v, i, f), State(C=normal(batch, heads, key_size, value_size), n=n, m=normal(batch, heads))


def oracle(inputs, state=None, seq_lengths=None, resets=None):
    """The equations of the module, for one head and one token at a time, in float64."""
    q, k, v, i, f = (np.asarray(a, np.float64) for a in inputs)
    batch, steps, heads, size = q.shape
    lengths = [steps] * batch if seq_lengths is None else seq_lengths
    h = np.zeros(v.shape)
    last = {name: [] for name in State._fields}
    for b, head in np.ndindex(batch, heads):
        empty = np.zeros((size, v.shape[-1])), np.zeros(size), 0.0
        C, n, m = empty if state is None else (np.asarray(a, np.float64)[b, head] for a in state)
        for t in range(lengths[b]):
            if resets is not None and resets[b, t]:
                C, n, m = empty
            log_f, new = -np.logaddexp(0, -f[b, t, head]), k[b, t, head] / np.sqrt(size)
            before, m = log_f + m, max(log_f + m, i[b, t, head])
            C = np.exp(before - m) * C + np.exp(i[b, t, head] - m) * np.outer(new, v[b, t, head])
            n = np.exp(before - m) * n + np.exp(i[b, t, head] - m) * new
            h[b, t, head] = q[b, t, head] @ C / (max(abs(q[b, t, head] @ n), np.exp(-m)) + 1e-6)
        for name, value in zip(State._fields, (C, n, m), strict=True):
            last[name].append(value)
    shapes = State(C=(batch, heads, size, v.shape[-1]), n=(batch, heads, size), m=(batch, heads))
    return State(*(np.reshape(last[name], shape) for name, shape in zip(State._fields, shapes, strict=True))), h


def run(form, inputs, state=None, weights=None, **options):
    """((h, last), gradients by inputs and state) of a random weighing of the outputs and the last state."""

    def loss(inputs, state):
        outputs = form(*inputs, state, **options)
        rng = np.random.default_rng(7)
        drawn = jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape), a.dtype), outputs)
        products = jax.tree.map(lambda a, b: jnp.sum(a * b), outputs, drawn if weights is None else weights)
        return sum(jax.tree.leaves(products)), outputs

    gradients, outputs = jax.jit(jax.grad(loss, argnums=(0,) if state is None else (0, 1), has_aux=True))(inputs, state)
    return outputs, gradients


def assert_close(tree, expected, tolerance):
    """Every array to `tolerance` of its largest number."""
    chex.assert_trees_all_equal_shapes(tree, expected)
    for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(np.max(np.abs(b), initial=0), 1e-6))


@FORMS
@pytest.mark.parametrize("start", ["empty", "state"])
def test_against_the_equations(form, start):
    inputs, state = draw(3, 9)
    lengths, resets = np.array([9, 5, 0]), np.random.default_rng(1).random((3, 9)) < 0.3
    padding = np.arange(9)[None, :] >= lengths[:, None]
    state = state if start == "state" else None
    dirty = [jnp.where(padding.reshape(padding.shape + (1,) * (a.ndim - 2)), jnp.nan, a) for a in inputs]
    outputs, gradients = run(form, dirty, state, seq_lengths=lengths, resets=jnp.asarray(resets))
    assert_close(outputs, oracle(inputs, state, lengths, resets), CLOSE)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradients))
    assert all(not np.any(np.asarray(g)[padding]) for g in gradients[0])


@pytest.mark.parametrize("steps", [0, 1, 33])
def test_parallel_equals_recurrent(steps):
    inputs, state = draw(2, steps)
    resets = jnp.asarray(np.random.default_rng(1).random((2, steps)) < 0.1)
    plain = run(matrix_memory.recurrent, inputs, state, resets=resets)
    together = run(matrix_memory.parallel, inputs, state, resets=resets)
    assert_close(together[0], plain[0], CLOSE)
    assert_close(together[1], plain[1], GRADIENTS_CLOSE)
    assert together[0][1].shape == (2, steps, 2, 5)


def test_recurrent_is_a_fold_of_step():
    inputs, state = draw(2, 5)
    last, h = jax.jit(matrix_memory.recurrent)(*inputs, state)
    step = jax.jit(matrix_memory.step)
    for t in range(5):
        state, out = step(*(a[:, t] for a in inputs), state)
        np.testing.assert_allclose(out, h[:, t], rtol=1e-5, atol=1e-6)
    assert_close(state, last, CLOSE)


@FORMS
def test_extreme_gates(form):
    """All four pairings of ±120, from the first step on, two of them with a reset."""
    (q, k, v, _, _), _ = draw(4, 5)
    i, f = (jnp.broadcast_to(120.0 * jnp.array(s)[:, None, None], (4, 5, 2)) for s in ([1, 1, -1, -1], [1, -1, 1, -1]))
    resets = np.zeros((4, 5), bool)
    resets[[0, 3], 3] = True
    outputs, gradients = run(form, (q, k, v, i, f), resets=jnp.asarray(resets))
    assert all(np.isfinite(a).all() for a in jax.tree.leaves((outputs, gradients)))
    assert_close(outputs, oracle((q, k, v, i, f), None, None, resets), 1e-5)


@pytest.fixture(scope="module")
def golden(goldens):
    with np.load(goldens / "mlstm_cell.npz") as arrays:
        return dict(arrays)


def golden_inputs(golden):
    q, k, v, i, f = (np.moveaxis(golden[name], 1, 2) for name in "qkvif")
    return q, k, v, i[..., 0], f[..., 0]


def check_official(form, golden):
    """Outputs to a hundred roundings of what their condition allows; the last state; gradients in float64."""
    (last, h), (gradients,) = run(form, golden_inputs(golden), None, official_weights(golden))
    error = np.abs(np.moveaxis(h, 2, 1) - golden["h_recurrent"])
    assert (error / golden["h_cond"]).max() <= 100 * 2.0**-24
    expected = golden["C_final"], golden["n_final"][..., 0], golden["m_final"][..., 0, 0]
    assert_close(tuple(last), expected, CLOSE)
    for name, g in zip("qkvif", gradients, strict=True):
        reference = np.moveaxis(golden[f"grad_recurrent_f64_{name}"], 1, 2)
        assert_close(np.asarray(g), reference.reshape(g.shape), GRADIENTS_CLOSE)


def official_weights(golden):
    nothing = State(*(jnp.zeros((1,) * n) for n in (4, 3, 2)))
    return nothing, jnp.asarray(np.moveaxis(golden["cot_h"], 1, 2))


@FORMS
def test_official(form, golden):
    check_official(form, golden)


def test_half_precision_inputs():
    """Gates, stabiliser and state keep float32; only the inputs and h are rounded."""
    inputs, _ = draw(2, 17)
    half = [a.astype(jnp.bfloat16) for a in inputs]
    for form in (matrix_memory.recurrent, matrix_memory.parallel):
        last, h = jax.jit(form)(*half)
        assert h.dtype == jnp.bfloat16 and {a.dtype.name for a in last} == {"float32"}
        exact = oracle([np.asarray(a, np.float32) for a in half])
        assert_close(last, exact[0], CLOSE)
        np.testing.assert_allclose(np.asarray(h, np.float32), exact[1], rtol=2**-8, atol=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": (2, 4, 6)}, r"q has shape \(2, 4, 6\); expected \(batch, time, heads, key size\)"),
        ({"k": (2, 4, 2, 5)}, r"k has shape \(2, 4, 2, 5\); expected \(2, 4, 2, 3\)"),
        ({"v": (2, 5, 2, 5)}, r"v has shape \(2, 5, 2, 5\); expected \(2, 4, 2, 5\)"),
        ({"i": (2, 4)}, r"i has shape \(2, 4\); expected \(2, 4, 2\)"),
        ({"f": (2, 4, 2, 1)}, r"f has shape \(2, 4, 2, 1\); expected \(2, 4, 2\)"),
        ({"seq_lengths": (3,)}, r"seq_lengths has shape \(3,\); expected \(2,\)"),
        ({"resets": (2, 5)}, r"resets has shape \(2, 5\); expected \(2, 4\)"),
    ],
)
def test_shapes_that_do_not_fit(change, message):
    shapes = {"q": (2, 4, 2, 3), "k": (2, 4, 2, 3), "v": (2, 4, 2, 5), "i": (2, 4, 2), "f": (2, 4, 2)}
    arrays = {name: jnp.zeros(shape) for name, shape in {**shapes, **change}.items()}
    with pytest.raises(ValueError, match=message):
        matrix_memory.parallel(**arrays)


def test_a_state_that_does_not_fit():
    inputs, state = draw(2, 4)
    with pytest.raises(ValueError, match=r"state.n has shape \(2, 2, 4\); expected \(2, 2, 3\)"):
        matrix_memory.step(*(a[:, 0] for a in inputs), state._replace(n=jnp.zeros((2, 2, 4))))
