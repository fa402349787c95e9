"""The mLSTM: its equations in numpy, `unroll` against a fold of `step`, and how it begins."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qlstm_jax.cells import mlstm
from tests.cells import cases
from tests.cells import test_matrix_memory as memory

D, H, N, K = 3, 6, 2, 4


def weights(**options):
    """Parameters with nothing left at its default."""
    shapes = jax.eval_shape(
        lambda: mlstm.init(jax.random.key(0), D, H, num_heads=N, key_size=K, chunk_size=4, **options)
    )
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda a: jnp.asarray(0.7 * rng.normal(size=a.shape), a.dtype), shapes)


def oracle(p, x):
    """x (T, D) to y (T, H), head after head, with `memory.oracle` for what a head does."""
    ys = []
    gates = x @ p["gate_kernel"] + p["gate_bias"]
    for n in range(N):
        keys, values = slice(n * K, (n + 1) * K), slice(n * H // N, (n + 1) * H // N)
        q = x @ p["query_kernel"][:, keys] + p["query_bias"][keys]
        k = x @ p["key_kernel"][:, keys] + p["key_bias"][keys]
        v = x @ p["value_kernel"][:, values] + p["value_bias"][values]
        _, h = memory.oracle([a[None, :, None] for a in (q, k, v)] + [gates[None, :, [n]], gates[None, :, [N + n]]])
        o = x @ p["output_kernel"][:, values] + p["output_bias"][values]
        ys.append(h[0, :, 0] / (1 + np.exp(-o)))
    return np.concatenate(ys, axis=1)


def test_outputs_and_gradients():
    params, xs, lengths = weights(), cases.sequence(4, 13), np.array([13, 9, 0, 1])
    padding = np.arange(13)[None, :] >= lengths[:, None]
    weigh = np.random.default_rng(4).normal(size=(4, 13, H))

    def loss(params, xs):
        _, ys = mlstm.unroll(params, jnp.where(padding[:, :, None], jnp.nan, xs), seq_lengths=lengths)
        return jnp.sum(ys * weigh.astype(np.float32)), ys

    grads, ys = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(params, xs)
    arrays = {**cases.as_arrays(params), "xs": np.asarray(xs, np.float64)}
    grads = {**cases.as_arrays(grads[0]), "xs": np.asarray(grads[1], np.float64)}

    def outputs(arrays):
        ys = np.zeros((4, 13, H))
        for b, n in enumerate(lengths):
            ys[b, :n] = oracle(arrays, arrays["xs"][b, :n])
        return ys

    np.testing.assert_allclose(ys, outputs(arrays), rtol=1e-5, atol=3e-6)
    rng = np.random.default_rng(5)
    for name, value in arrays.items():
        direction = rng.normal(size=value.shape)
        direction *= 1e-6 / np.linalg.norm(direction)
        up, down = (np.sum(weigh * outputs({**arrays, name: value + s * direction})) for s in (1, -1))
        length = np.linalg.norm(grads[name])
        assert length > 1e-2, name
        slope = np.sum(grads[name] * direction) / 1e-6
        np.testing.assert_allclose(slope, (up - down) / 2e-6, rtol=0, atol=1e-5 * max(length, 1), err_msg=name)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_unroll_is_a_fold_of_step(dtype):
    params, xs = weights(dtype=dtype), cases.sequence(3, 11)
    lengths = np.array([11, 6, 0])
    carry = jax.tree.map(lambda a: a + 0.3, mlstm.initial_carry(params, 3))
    last, ys = jax.jit(lambda p, x: mlstm.unroll(p, x, seq_lengths=lengths, carry=carry))(params, xs)
    expected, folded = jax.jit(lambda p, x: cases.fold(mlstm, p, x, lengths, carry))(params, xs)
    assert ys.dtype == dtype and {a.dtype.name for a in last} == {"float32"}
    close = 3e-6 if dtype == "float32" else 2**-7
    ys, folded = (np.asarray(a, np.float32) for a in (ys, folded))
    np.testing.assert_allclose(ys, folded, rtol=close, atol=close)
    chex.assert_trees_all_close(last, expected, rtol=3e-6, atol=3e-6)
    assert not ys[1, 6:].any() and not ys[2].any()


def test_no_token_changes_nothing():
    params = weights()
    carry = jax.tree.map(lambda a: a + 1, mlstm.initial_carry(params, 2))
    last, ys = mlstm.unroll(params, jnp.zeros((2, 0, D)), carry=carry)
    assert ys.shape == (2, 0, H)
    chex.assert_trees_all_equal(last, carry)


def test_chunk_size_does_not_change_the_result():
    params, xs = weights(), cases.sequence(2, 9)
    carry, ys = mlstm.unroll(params, xs)
    other = mlstm.unroll(dataclasses.replace(params, chunk_size=64), xs)
    chex.assert_trees_all_close(other, (carry, ys), rtol=1e-5, atol=3e-6)


def test_initial_values():
    params = mlstm.init(jax.random.key(0), 5, 4000, num_heads=1000)
    assert params.query_kernel.shape == (5, 4000) and params.num_heads == 1000 and params.chunk_size == 64
    assert not np.any(params.gate_kernel)
    i, f = np.split(np.asarray(params.gate_bias), 2)
    np.testing.assert_allclose(f, np.linspace(3, 6, 1000), rtol=1e-6)
    np.testing.assert_allclose([i.mean(), i.std()], [0, 0.1], atol=0.01)
    for name in ("query", "key", "value", "output"):
        np.testing.assert_allclose(np.std(getattr(params, f"{name}_kernel")), 5**-0.5, rtol=0.03)
        assert not np.any(getattr(params, f"{name}_bias"))
    assert not np.allclose(params.query_kernel, params.key_kernel)
    carry = mlstm.initial_carry(weights(), 7)
    assert jax.tree.map(jnp.shape, carry) == mlstm.Carry(C=(7, N, K, H // N), n=(7, N, K), m=(7, N))
    assert not any(np.any(a) for a in carry)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 5}, "hidden_size is 6 and num_heads 5; expected a hidden_size that is a multiple"),
        ({"num_heads": 0}, "num_heads is 0; expected a positive integer"),
        ({"num_heads": 2, "key_size": 0}, "key_size is 0; expected a positive integer"),
        ({"num_heads": 2, "chunk_size": 0}, "chunk_size is 0; expected a positive integer"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        mlstm.init(jax.random.key(0), D, H, **options)


def test_bad_inputs():
    params = weights()
    with pytest.raises(ValueError, match=r"xs has shape \(2, 3\); expected \(batch, time, 3\).*call step"):
        mlstm.unroll(params, jnp.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"x has shape \(2, 7, 3\); expected \(batch, 3\).*call unroll"):
        mlstm.step(params, mlstm.initial_carry(params, 2), jnp.zeros((2, 7, 3)))
    with pytest.raises(ValueError, match=r"lengths run from 1 to 8; expected 0\.\.7"):
        mlstm.unroll(params, jnp.zeros((2, 7, 3)), seq_lengths=np.array([1, 8]))
