"""The recurrence against a fold written out token by token: values, and gradients with respect to every operand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qlstm_jax.cells import common

B, D, H = 3, 2, 4
CLOSE = {"float64": 1e-12, "float32": 2e-6, "bfloat16": 2**-5}


def lstm(_, a, c):
    i, f, g, o = jnp.split(a, 4, axis=-1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def gru(scale, a, state):
    """As the GRU, with a scale of each unit under the reset gate, and two arrays of state."""
    gates, a_n, u_n = a
    r, z = jnp.split(jax.nn.sigmoid(gates), 2, axis=-1)
    h, count = state
    h = (1 - z) * jnp.tanh(a_n + r * u_n * common.row(scale, u_n.ndim)) + z * h
    return h, (h, 0.5 * count + 1)


# name: (gates, columns of a row, arrays of state, columns apart, heads, weights)
FORMS = {
    "lstm": (lstm, 4, 1, 0, 0, False),
    "gru": (gru, 3, 2, 1, 0, True),
    "heads": (lstm, 4, 1, 0, 2, False),
}


def operands(form, dtype, steps, *, project=True, row_bias=False, seed=0):
    """The keywords of `recurrence`, with nothing at zero."""
    _, gates, states, separate, heads, weighted = FORMS[form]
    wide = "float64" if dtype == "float64" else "float32"
    rng = np.random.default_rng(seed)

    def draw(*shape, dtype=wide):
        return jnp.asarray(0.7 * rng.normal(size=shape), dtype)

    state = tuple(draw(B, H) for _ in range(states))
    kernel = (heads, H // heads, gates * H // heads) if heads else (H, gates * H)
    arrays = {
        "xs": draw(B, steps, D, dtype=dtype) if project else draw(B, steps, gates * H),
        "carry": (draw(B, H, dtype=dtype), state[0] if states == 1 else state),
        "recurrent_kernel": draw(*kernel),
        "bias": draw(B, gates * H) if row_bias else draw(gates * H),
    }
    if project:
        arrays["input_kernel"] = draw(D, gates * H)
    if weighted:
        arrays["weights"] = draw(H)
    if separate:
        arrays["recurrent_bias"] = draw(H)
    return arrays, separate * H


def dense(kernel):
    """A block-diagonal kernel (N, K, gates·K) as (H, gates·H), a row's gates side by side, in each the heads."""
    heads, size, width = kernel.shape
    gates = width // size
    blocks = [jax.scipy.linalg.block_diag(*kernel.reshape(heads, size, gates, size)[:, :, g]) for g in range(gates)]
    return jnp.concatenate(blocks, axis=1)


def fold(form, arrays, separate, valid, resets):
    """`recurrence` by a Python loop."""
    gates = FORMS[form][0]
    h, state = arrays["carry"]
    dtype, bias = h.dtype, jnp.atleast_2d(arrays["bias"])
    wide, xs = bias.dtype, arrays["xs"]
    kernel = arrays["recurrent_kernel"]
    kernel = (dense(kernel) if kernel.ndim == 3 else kernel).astype(dtype)
    ys = []
    for t in range(xs.shape[1]):
        if resets is not None:
            h, state = jax.tree.map(lambda a, r=resets[:, t, None]: jnp.where(r, 0, a).astype(a.dtype), (h, state))
        z = xs[:, t].astype(wide)
        if "input_kernel" in arrays:
            z = jnp.dot(xs[:, t], arrays["input_kernel"].astype(dtype), preferred_element_type=wide)
        z, u = z + bias, jnp.dot(h, kernel, preferred_element_type=wide)
        cut = z.shape[1] - separate
        a = z + u
        if separate:
            a = (a[:, :cut], z[:, cut:], u[:, cut:] + arrays["recurrent_bias"][None])
        new = gates(arrays.get("weights"), a, state)
        new = new[0].astype(dtype), new[1]
        if valid is not None:
            ok = valid[:, t, None]
            h, state = jax.tree.map(lambda n, o, ok=ok: jnp.where(ok, n, o), new, (h, state))
            ys.append(jnp.where(ok, h, 0).astype(dtype))
        else:
            h, state = new
            ys.append(h)
    return (h, state), jnp.stack(ys, 1)


def weighed(results):
    """A scalar that depends on every number of the carry and the outputs, its gradient bounded."""
    rng = np.random.default_rng(7)
    return sum(jnp.sum(rng.normal(size=a.shape).astype("float32") * a) for a in jax.tree.leaves(results))


def compare(form, dtype, steps, *, masked=True, resets=True, loop=True, **options):
    """The fast way, the plain scan and the loop, each with the last: values, and gradients of all operands."""
    with jax.enable_x64(dtype == "float64"):
        arrays, separate = operands(form, dtype, steps, **options)
        rng = np.random.default_rng(1)
        lengths = np.array([steps, steps // 2, 0])
        valid = jnp.asarray(np.arange(steps) < lengths[:, None]) if masked else None
        restart = jnp.asarray(rng.random((B, steps)) < 0.3) if resets else None

        def unroll(arrays, plain):
            way = "plain" if plain else "fast"
            keywords = {"valid": valid, "way": way, "separate": separate, "resets": restart}
            rest = {k: v for k, v in arrays.items() if k not in ("xs", "carry")}
            return common.recurrence(FORMS[form][0], arrays["xs"], arrays["carry"], **rest, **keywords)

        if restart is not None and masked:
            restart = restart & valid
        ways = [lambda a, plain=plain: unroll(a, plain) for plain in (False, True)]
        if loop:
            ways.append(lambda a: fold(form, a, separate, valid, restart))
        found = [
            jax.jit(jax.value_and_grad(lambda a, way=way: (weighed(r := way(a)), r), has_aux=True))(arrays)
            for way in ways
        ]
        wanted_results, wanted_grads = found[-1][0][1], found[-1][1]
        for (_, results), grads in found[:-1]:
            for trees in ((results, wanted_results), (grads, wanted_grads)):
                for a, b in zip(*map(jax.tree.leaves, trees), strict=True):
                    assert a.dtype == b.dtype and a.shape == b.shape
                    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
                    np.testing.assert_allclose(a, b, rtol=0, atol=CLOSE[dtype] * max(1, np.abs(b).max(initial=0)))


@pytest.mark.parametrize("dtype", list(CLOSE))
@pytest.mark.parametrize("form", list(FORMS))
def test_plain_and_fast_equal_a_loop(form, dtype):
    compare(form, dtype, 4)


@pytest.mark.parametrize("form", list(FORMS))
@pytest.mark.parametrize("options", [{"project": False, "row_bias": True}, {"masked": False, "resets": False}])
def test_other_operands(form, options):
    compare(form, "float32", 4, **options)


@pytest.mark.parametrize("form", list(FORMS))
@pytest.mark.parametrize("steps", [350, 347])
def test_fast_equals_plain_over_chunks(form, steps):
    """Two whole chunks of 175 tokens, and two of 170 with 7 tokens left over."""
    compare(form, "float32", steps, loop=False)


def test_one_token():
    compare("gru", "float32", 1)


def test_no_token_leaves_the_carry():
    arrays, _ = operands("lstm", "float32", 0)
    carry, ys = common.recurrence(lstm, **arrays)
    assert ys.shape == (B, 0, H) and all(a is b for a, b in zip(carry, arrays["carry"], strict=True))


def test_heads_with_separate_columns_are_refused():
    arrays, _ = operands("heads", "float32", 2)
    with pytest.raises(ValueError, match="separate is 4 and the recurrent kernel has heads"):
        common.recurrence(lstm, **arrays, separate=4)


def test_forward_mode_takes_the_plain_scan():
    arrays, _ = operands("lstm", "float32", 3)
    xs = arrays.pop("xs")

    def outputs(xs, plain):
        return common.recurrence(lstm, xs, **arrays, way="plain" if plain else "fast")[1]

    tangent = jax.jvp(lambda xs: outputs(xs, True), (xs,), (jnp.ones_like(xs),))[1]
    small = 1e-2
    difference = (outputs(xs + small, True) - outputs(xs - small, True)) / (2 * small)
    np.testing.assert_allclose(tangent, difference, atol=1e-3)
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(lambda xs: outputs(xs, False), (xs,), (jnp.ones_like(xs),))
