import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qlstm_jax.cells.common import gated_sum, log_positive


def draw(batch, steps, hidden, seed=0):
    rng = np.random.default_rng(seed)
    keep, add = rng.uniform(0.05, 1, (batch, steps, hidden)), rng.uniform(0.01, 2, (batch, steps, hidden))
    return np.log(keep), np.log(add), rng.normal(size=(batch, hidden))


run = jax.jit(gated_sum)


def by_hand(log_keep, log_add, h, lengths):
    ys = np.zeros(log_keep.shape)
    h = np.array(h)
    for b, n in enumerate(lengths):
        for t in range(n):
            h[b] = np.exp(log_keep[b, t]) * h[b] + np.exp(log_add[b, t])
            ys[b, t] = h[b]
    return h, ys


@pytest.mark.parametrize("steps", [0, 1, 2, 7, 33])
def test_gated_sum_is_its_recurrence(steps):
    log_keep, log_add, start = draw(3, steps, 2)
    lengths = np.array([steps, steps // 2, 0])
    valid = jnp.arange(steps)[None, :] < lengths[:, None]
    arrays = [jnp.asarray(a, jnp.float32) for a in (log_keep, log_add, start)]
    for mask, counts in ((None, [steps] * 3), (valid, lengths)):
        last, ys = run(*arrays, mask)
        expected_last, expected = by_hand(log_keep, log_add, start, counts)
        np.testing.assert_allclose(ys, expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(last, expected_last, rtol=1e-5, atol=1e-5)


def test_nothing_overflows_or_vanishes_on_the_way():
    """After 5,000 factors of e^-40 the sum is what the last term adds, and gradients are finite."""
    log_keep, log_add = jnp.full((1, 5000, 1), -40.0), jnp.full((1, 5000, 1), 0.5)
    last, ys = run(log_keep, log_add, jnp.full((1, 1), 1e30))
    np.testing.assert_allclose(ys[0, 3:, 0], np.exp(0.5), rtol=1e-6)
    final = jax.jit(jax.grad(lambda k, a: gated_sum(k, a, jnp.ones((1, 1)))[0].sum(), argnums=(0, 1)))
    grads = final(log_keep, log_add)
    assert all(bool(jnp.isfinite(g).all()) for g in grads) and np.isfinite(last).all()


def test_log_positive():
    x = jnp.array([-50.0, -1.0, 0.0, 0.5, 30.0])
    expected = np.where(x >= 0, x + 0.5, 1 / (1 + np.exp(-np.float64(x))))
    np.testing.assert_allclose(np.exp(np.float64(log_positive(x))), expected, rtol=1e-6)
    slopes = jax.jit(jax.vmap(jax.grad(log_positive)))(x)
    assert bool(jnp.isfinite(slopes).all()) and bool((slopes > 0).all())
