"""Each cell against its equations in float64 numpy, forward and backward."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.cells import cases

# A float32 output of size about 1 is right to a few parts in 10^7; 13 tokens of recurrence multiply that by a few.
FORWARD = 2e-6
# Of the gradient's length: float32 rounding again. The differences themselves are right to about 1e-9.
GRADIENT = 1e-5
STEP = 1e-6


@cases.ALL
def test_outputs_and_gradients(case):
    params, xs, lengths = case.params(), cases.sequence(5, 13), np.array([13, 9, 0, 1, 4])
    padding = np.arange(13)[None, :] >= lengths[:, None]
    weights = np.random.default_rng(4).normal(size=(5, 13, cases.H))

    def loss(params, xs):
        _, ys = case.cell.unroll(params, jnp.where(padding[:, :, None], jnp.nan, xs), seq_lengths=lengths)
        return jnp.sum(ys * weights.astype(np.float32)), ys

    grads, ys = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(params, xs)
    arrays = {**cases.as_arrays(params), "xs": np.asarray(xs, np.float64)}
    grads = {**cases.as_arrays(grads[0]), "xs": np.asarray(grads[1], np.float64)}

    expected = case.oracle_outputs(arrays, arrays["xs"], lengths)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(ys, expected, rtol=FORWARD, atol=FORWARD)

    rng = np.random.default_rng(5)
    for name, value in arrays.items():
        if value.size == 0:  # no refinements
            continue
        direction = rng.normal(size=value.shape)
        direction *= STEP / np.linalg.norm(direction)
        up, down = (
            np.sum(weights * case.oracle_outputs(moved, moved["xs"], lengths))
            for moved in ({**arrays, name: value + sign * direction} for sign in (1, -1))
        )
        length = np.linalg.norm(grads[name])
        assert length > 1e-2, name
        slope = np.sum(grads[name] * direction) / STEP
        np.testing.assert_allclose(
            slope, (up - down) / (2 * STEP), rtol=0, atol=GRADIENT * max(length, 1), err_msg=name
        )
