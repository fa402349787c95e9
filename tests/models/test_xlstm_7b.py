"""The block of xLSTM 7B against its equations, token by token, padded and continued."""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from qlstm_jax.models.xlstm_7b import MLSTM7BBlock, MLSTM7BConfig
from qlstm_jax.unroll import sequential

B, T, H, N = 3, 7, 8, 2
CONFIG = MLSTM7BConfig(embedding_size=H, num_blocks=3, num_heads=N, feedforward_multiple=8, gate_cap=2.5, chunk_size=3)
LENGTHS, FULL = np.array([7, 0, 4], np.int32), np.full(B, T, np.int32)
VALID = np.arange(T) < LENGTHS[:, None]
XS = np.random.default_rng(0).normal(size=(B, T, H)).astype(np.float32)
WEIGHTS = np.random.default_rng(1).normal(size=(B, T, H)).astype(np.float32)


@pytest.fixture(scope="module")
def block():
    """With random parameters, of gates some beyond the cap."""
    module = nnx.eval_shape(lambda: MLSTM7BBlock(CONFIG, rngs=nnx.Rngs(params=0)))
    rng = np.random.default_rng(2)
    draw = jax.tree.map(lambda a: jnp.asarray(0.5 * rng.normal(size=a.shape), a.dtype), nnx.state(module))
    nnx.update(module, draw)
    module.gate_bias[...] = 4 * module.gate_bias[...]
    return module


@jax.jit
def run(module, xs, lengths, carry):
    """((ys, carry), gradients by parameters, xs and carry) of the sum of ys * WEIGHTS."""
    graph, params = nnx.split(module)

    def total(params, xs, carry):
        outputs = nnx.merge(graph, params)(xs, lengths=lengths, carry=carry, return_carry=True)
        return jnp.sum(outputs[0] * WEIGHTS), outputs

    gradients, outputs = jax.grad(total, argnums=(0, 1, 2), has_aux=True)(params, xs, carry)
    return outputs, gradients


def oracle(p, xs):
    """One row (T, H) in float64 from an empty memory, each head alone."""

    def rms(x, w):
        return x / np.sqrt(np.mean(x**2) + 1e-6) * (1 + w["scale"])

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    keys, values = H // 2 // N, H // N
    C, n, m = np.zeros((N, keys, values)), np.zeros((N, keys)), np.zeros(N)
    ys = []
    for x in xs:
        u = rms(x, p["norm"])
        q, k, v, o = np.split(u @ p["inputs"]["kernel"], [H // 2, H, 2 * H])
        i, f = np.split(2.5 * np.tanh((u @ p["gate_kernel"] + p["gate_bias"]) / 2.5), 2)
        parts = []
        for a in range(N):
            q_a, k_a, v_a = (b.reshape(N, -1)[a] for b in (q, k / math.sqrt(keys), v))
            m_new = max(math.log(sigmoid(f[a])) + m[a], i[a])
            keep, write = math.exp(math.log(sigmoid(f[a])) + m[a] - m_new), math.exp(i[a] - m_new)
            C[a], n[a], m[a] = keep * C[a] + write * np.outer(k_a, v_a), keep * n[a] + write * k_a, m_new
            h = q_a @ C[a] / (max(abs(q_a @ n[a]), math.exp(-m[a])) + 1e-6)
            parts.append((h - h.mean()) / np.sqrt(h.var() + 1e-6))
        h = np.concatenate(parts) * (1 + p["head_norm"]["scale"])
        x = x + (sigmoid(o) * h) @ p["down"]["kernel"]
        g, wide = np.split(rms(x, p["feedforward_norm"]) @ p["feedforward_in"]["kernel"], 2)
        ys.append(x + (g * sigmoid(g) * wide) @ p["feedforward_out"]["kernel"])
    return np.stack(ys)


def test_against_oracle(block):
    (ys, _), (by_params, by_xs, _) = run(block, XS, FULL, block.initialize_carry(B))
    point = jax.tree.map(np.float64, (nnx.to_pure_dict(nnx.state(block)), XS))
    np.testing.assert_allclose(ys, [oracle(point[0], row) for row in point[1]], rtol=3e-5, atol=3e-5)
    rng = np.random.default_rng(3)
    direction = jax.tree.map(lambda a: rng.normal(size=a.shape), point)
    got = nnx.to_pure_dict(by_params), by_xs
    along = sum(np.sum(g * d) for g, d in zip(jax.tree.leaves(got), jax.tree.leaves(direction), strict=True))

    def value(distance):
        params, xs = jax.tree.map(lambda a, d: a + distance * d, point, direction)
        return sum(np.sum(w * oracle(params, row)) for w, row in zip(WEIGHTS, xs, strict=True))

    np.testing.assert_allclose(along, (value(1e-6) - value(-1e-6)) / 2e-6, rtol=2e-4)


def test_streams_and_padding(block):
    """From the middle of a stream: a call equals folded steps, and NaN in padding reaches nothing."""
    _, carry = run(block, XS[:, ::-1], FULL, block.initialize_carry(B))[0]
    outputs, gradients = run(block, XS, LENGTHS, carry)
    spoilt = np.where(VALID[:, :, None], XS, np.nan)
    chex.assert_trees_all_equal((outputs, gradients), run(block, spoilt, LENGTHS, carry))
    valid = jnp.asarray(VALID)
    folded = jax.jit(lambda xs: sequential.scan(block.step, carry, xs, valid=valid))(XS)
    chex.assert_trees_all_close(outputs, folded, rtol=2e-5, atol=2e-5)
    assert not np.any(outputs[0][~VALID]) and not np.any(gradients[1][~VALID])
    assert all(np.any(a) for a in jax.tree.leaves(gradients))


def test_initial_values():
    block = jax.jit(lambda: MLSTM7BBlock(CONFIG, rngs=nnx.Rngs(0)))()
    np.testing.assert_allclose(block.gate_bias[...], [-10, -10, 3, 6])
    assert not np.any(block.gate_kernel[...]) and not np.any(block.norm.scale[...])
    assert abs(float(jnp.std(block.inputs.kernel[...])) / (2 / (5 * H)) ** 0.5 - 1) < 0.2
    assert abs(float(jnp.std(block.feedforward_out.kernel[...])) / (2 / 3 / H**0.5) - 1) < 0.2
    assert MLSTM7BConfig(embedding_size=4096, num_blocks=32).feedforward_size == 10944


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"embedding_size": 0}, "embedding_size is 0"),
        ({"num_heads": 3}, "embedding_size is 8; expected a multiple of num_heads, which is 3"),
        ({"num_heads": 8}, r"key_factor \* embedding_size is 4; expected a multiple of num_heads, which is 8"),
        ({"gate_cap": 0}, "gate_cap is 0; expected a number above 0"),
        ({"dropout": 1.0}, r"dropout is 1\.0"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        MLSTM7BConfig(**{"embedding_size": 8, "num_blocks": 1, **options})
