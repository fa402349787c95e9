import math
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from qlstm_jax.models import positions as schemes
from qlstm_jax.models.transformer import Transformer
from qlstm_jax.nnx.dropout import applied

B, T, D, H, N = 4, 6, 3, 8, 2
LENGTHS = np.array([6, 0, 3, 1], np.int32)
FULL = np.full(B, T, np.int32)
VALID = np.arange(T) < LENGTHS[:, None]
each_scheme = pytest.mark.parametrize("positions", schemes.POSITIONS)
KINDS = [("none", False), ("sinusoidal", True), ("rotary", False), ("alibi", False), ("alibi", True)]
each_kind = pytest.mark.parametrize(("positions", "causal"), KINDS)


def inputs(seed=0, steps=T):
    return jax.random.normal(jax.random.key(seed), (B, steps, D))


def make(**options):
    """A layer whose biases and norm scales are not those of a new one, which would hide their absence."""
    layer = Transformer(D, H, **{"num_heads": N, "rngs": nnx.Rngs(params=0), **options})
    rng = np.random.default_rng(1)
    params = nnx.state(layer, nnx.Param)
    nnx.update(layer, jax.tree.map(lambda a: (a + 0.3 * rng.standard_normal(a.shape)).astype(a.dtype), params))
    layer.eval()
    return layer


@cache
def made(positions, causal=False):
    """Two blocks with one of the schemes, as each further one takes time to compile."""
    return nnx.split(make(positions=positions, causal=causal, num_layers=2 if positions == "rotary" else 1))


@partial(jax.jit, static_argnums=0)
def read(graph, params, xs, lengths=None):
    layer = nnx.merge(graph, params)
    return layer(xs, seq_lengths=lengths), layer.last(xs, seq_lengths=lengths)


@partial(jax.jit, static_argnums=0)
def gradients(graph, params, xs, lengths, weights):
    """Of the outputs' weighted sum, by parameters and inputs."""

    def total(params, xs):
        return jnp.sum(nnx.merge(graph, params)(xs, seq_lengths=lengths) * weights)

    return jax.grad(total, argnums=(0, 1))(nnx.to_pure_dict(params), xs)


def oracle(p, xs, positions, causal):
    """One row (T, D) in float64, position by position and head by head."""

    def linear(p, x):
        return x @ p["kernel"] + p["bias"]

    def norm(p, x):
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * p["scale"] + p["bias"]

    def turn(x, t):
        k = len(x)
        z = x[: k // 2] + 1j * x[k // 2 :]
        z = z * np.exp(1j * t * 10_000.0 ** (-2 * np.arange(k // 2) / k))
        return np.concatenate([z.real, z.imag])

    def attention(p, x):
        q, k, v = (linear(p[name], x).reshape(len(x), N, H // N) for name in ("query", "key", "value"))
        mixed = np.zeros_like(v)
        for i in range(len(x)):
            seen = range(i + 1 if causal else len(x))
            for n in range(N):
                if positions == "rotary":
                    scores = np.array([turn(q[i, n], i) @ turn(k[j, n], j) for j in seen]) / math.sqrt(H // N)
                else:
                    scores = np.array([q[i, n] @ k[j, n] for j in seen]) / math.sqrt(H // N)
                if positions == "alibi":
                    scores -= np.array([abs(i - j) for j in seen]) / 2 ** (8 * (n + 1) / N)
                weights = np.exp(scores) / np.exp(scores).sum()
                mixed[i, n] = sum(w * v[j, n] for w, j in zip(weights, seen, strict=True))
        return linear(p["output"], mixed.reshape(len(x), H))

    gelu = np.vectorize(lambda a: a * 0.5 * (1 + math.erf(a / math.sqrt(2))))
    x = linear(p["embed"], xs)
    if positions == "sinusoidal":
        for t in range(len(x)):
            for c in range(H):
                x[t, c] += (math.cos if c % 2 else math.sin)(t / 10_000 ** (c // 2 * 2 / H))
    for block in p["blocks"].values():
        x = x + attention(block["attention"], norm(block["attention_norm"], x))
        wide = gelu(linear(block["feedforward_in"], norm(block["feedforward_norm"], x)))
        x = x + linear(block["feedforward_out"], wide)
    return norm(p["norm"], x)


def oracle_rows(params, xs, positions, causal):
    """Each row cut to its length, so that there is no padding to hide."""
    ys = np.zeros((B, T, H))
    for row, length in enumerate(LENGTHS):
        if length:
            ys[row, :length] = oracle(params, xs[row, :length], positions, causal)
    return ys


@each_kind
def test_against_oracle(positions, causal):
    graph, state = made(positions, causal)
    params = jax.tree.map(lambda a: np.asarray(a, np.float64), nnx.to_pure_dict(state))
    xs = np.asarray(inputs(), np.float64)
    ys, last = read(graph, state, inputs(), LENGTHS)
    expected = oracle_rows(params, xs, positions, causal)
    np.testing.assert_allclose(ys, expected, atol=2e-5)
    for row, length in enumerate(LENGTHS):
        np.testing.assert_allclose(last[row], expected[row, length - 1] if length else np.zeros(H), atol=2e-5)


@each_kind
def test_padding_has_no_influence(positions, causal):
    graph, state = made(positions, causal)
    weights = jax.random.normal(jax.random.key(3), (B, T, H))
    plain, spoilt = inputs(), jnp.where(VALID[:, :, None], inputs(), jnp.nan)
    for one, other in (
        (read(graph, state, plain, LENGTHS), read(graph, state, spoilt, LENGTHS)),
        (gradients(graph, state, plain, LENGTHS, weights), gradients(graph, state, spoilt, LENGTHS, weights)),
    ):
        jax.tree.map(np.testing.assert_array_equal, one, other)
    assert not np.any(np.asarray(read(graph, state, spoilt, LENGTHS)[0])[~VALID])
    by_params, by_xs = gradients(graph, state, spoilt, LENGTHS, weights)
    assert all(np.all(np.isfinite(g)) for g in jax.tree.leaves((by_params, by_xs)))
    assert not np.any(np.asarray(by_xs)[~VALID])


@each_kind
def test_what_a_position_sees(positions, causal):
    graph, state = made(positions, causal)
    for t in (0, 2, T - 1):
        weights = jax.random.normal(jax.random.key(t), (B, T, H)).at[:, :t].set(0).at[:, t + 1 :].set(0)
        _, by_xs = gradients(graph, state, inputs(), LENGTHS, weights)
        seen = np.abs(by_xs).max(axis=-1) > 1e-6
        expected = VALID & VALID[:, t : t + 1]
        if causal:
            expected &= (np.arange(T) <= t)[None]
        np.testing.assert_array_equal(seen, expected)


def test_without_lengths_all_is_valid():
    graph, state = made("alibi")
    ys, last = read(graph, state, inputs())
    full, _ = read(graph, state, inputs(), FULL)
    np.testing.assert_array_equal(last, ys[:, -1])
    np.testing.assert_allclose(full, ys, atol=1e-6)


@pytest.mark.parametrize("lengths", [None, np.zeros(B, np.int32)], ids=["none", "zeros"])
def test_no_positions(lengths):
    ys, last = read(*made("alibi"), inputs(steps=0), lengths)
    assert ys.shape == (B, 0, H) and last.shape == (B, H) and not np.any(last)


@each_scheme
def test_permutation_of_the_inputs(positions):
    """Attention alone knows no order; any scheme of positions does."""
    graph, state = made(positions)
    order = np.array([3, 0, 5, 1, 4, 2])
    there, _ = read(graph, state, inputs()[:, order], FULL)
    gap = np.abs(there - read(graph, state, inputs(), FULL)[0][:, order]).max()
    assert gap < 1e-5 if positions == "none" else gap > 0.01


def test_rotary_scores_depend_on_distance_alone():
    q, k = jax.random.normal(jax.random.key(0), (2, 1, 1, N, 6))
    steps = 40
    q, k = (schemes.rotate(jnp.tile(a, (1, steps, 1, 1))) for a in (q, k))
    scores = np.einsum("bsnk,btnk->bnst", q, k)[0]
    for distance in (-7, -1, 0, 1, 12):
        diagonal = np.diagonal(scores, distance, axis1=1, axis2=2)
        np.testing.assert_allclose(diagonal, np.tile(diagonal[:, :1], (1, diagonal.shape[1])), atol=1e-5)
    assert np.ptp(scores[:, 0], axis=-1).min() > 0.1  # and they do depend on it


def test_sinusoidal_far_from_the_start():
    steps, features = 3000, 5
    t, pair = np.arange(steps)[:, None], np.arange(features)[None] // 2
    angles = t / 10_000 ** (2 * pair / features)
    expected = np.where(np.arange(features)[None] % 2, np.cos(angles), np.sin(angles))
    np.testing.assert_allclose(schemes.sinusoidal(steps, features), expected, atol=1e-3)


def test_alibi_slopes_of_eight_heads():
    """Those that the paper lists: 1/2, 1/4, ..., 1/256."""
    bias = np.asarray(schemes.alibi(5, 8))
    np.testing.assert_allclose(-bias[:, 3, 2], 0.5 ** np.arange(1, 9), rtol=1e-6)
    np.testing.assert_allclose(bias[2, 1], -np.array([1, 0, 1, 2, 3]) / 8, rtol=1e-6)


@pytest.mark.parametrize("positions", ["sinusoidal", "rotary"])
def test_bfloat16(positions):
    graph, state = made(positions)
    layer = make(positions=positions, num_layers=len(nnx.merge(graph, state).blocks), dtype="bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(layer))} == {jnp.dtype("float32")}
    got = read(*nnx.split(layer), inputs(), LENGTHS)
    for one, other in zip(got, read(graph, state, inputs(), LENGTHS), strict=True):
        assert one.dtype == jnp.bfloat16
        gap = np.abs(one.astype(jnp.float32) - other)
        assert gap.max() < 0.15 and gap.mean() < 0.02


def test_residual_sum_is_float32():
    """On a large constant bfloat16 has steps of 8, in which what the blocks add would be lost."""
    layers = [make(positions="alibi", dtype=dtype) for dtype in ("bfloat16", "float32")]
    for layer in layers:
        layer.embed.kernel[...], layer.embed.bias[...] = jnp.zeros((D, H)), jnp.full(H, 1024.0)
    got, expected = (read(*nnx.split(layer), inputs(), LENGTHS)[0].astype(jnp.float32) for layer in layers)
    np.testing.assert_allclose(got, expected, atol=0.1)


def test_param_dtype():
    layer = make(param_dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(layer))} == {jnp.dtype("bfloat16")}
    assert jax.eval_shape(layer, inputs()).dtype == jnp.float32


@pytest.mark.parametrize("silent", ["attention.output", "feedforward_out"])
def test_dropout_acts_on_what_each_part_adds(silent):
    """One part adds nothing, so that what differs between masks is the other's."""
    layer, plain = make(dropout=0.5), make()
    for module in (layer, plain):
        part = module.blocks[0]
        for name in silent.split("."):
            part = getattr(part, name)
        part.kernel[...], part.bias[...] = jnp.zeros_like(part.kernel), jnp.zeros_like(part.bias)
    layer.train()
    run = nnx.jit(lambda layer, key: layer(inputs(), rngs=key))
    first, second, again = (run(layer, jax.random.key(n)) for n in (0, 1, 0))
    assert np.abs(first - second).max() > 0.01
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(layer(inputs(), deterministic=True), plain(inputs()), atol=1e-5)
    layer.eval()
    np.testing.assert_allclose(layer(inputs()), plain(inputs()), atol=1e-5)


def test_a_key_gives_every_part_a_mask_of_its_own():
    layer = make(dropout=0.5)
    layer.train()
    mask = applied(layer.dropout, None, jax.random.key(0))
    added = [np.asarray(mask(jnp.ones((B, T, H)))) for _ in range(4)]
    assert all(np.any(a != b) for i, a in enumerate(added) for b in added[:i])
    got = [layer(inputs(), rngs=rngs) for rngs in (jax.random.key(0), nnx.Rngs(jax.random.key(0)))]
    np.testing.assert_array_equal(*got)


def test_training_step_needs_parameters_alone():
    """With no dropout stream at construction there is no state but the parameters, and keys come with each call."""
    layer = make(dropout=0.5)
    layer.train()
    graph = nnx.graphdef(layer)
    assert not jax.tree.leaves(nnx.state(layer, nnx.Not(nnx.Param)))

    @jax.jit
    def step(params, key):
        def loss(params):
            return jnp.sum(
                nnx.merge(graph, params).last(inputs(), seq_lengths=LENGTHS, rngs=nnx.Rngs(dropout=key)) ** 2
            )

        return jax.value_and_grad(loss)(params)

    params = nnx.to_pure_dict(nnx.state(layer, nnx.Param))
    (first, grads), (second, _) = (step(params, jax.random.key(n)) for n in (0, 1))
    assert abs(first - second) > 1e-3
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
    own = make(dropout=0.5, rngs=nnx.Rngs(0))
    own.train()
    assert np.abs(own(inputs()) - own(inputs())).max() > 0.01  # the layer's own stream moves on


@pytest.mark.parametrize(("size", "layers", "width"), [((3, 8), 1, 4), ((5, 12), 3, 2)])
def test_parameter_count_is_that_of_the_docstring(size, layers, width):
    layer = Transformer(*size, num_layers=layers, feedforward=width, num_heads=2, rngs=nnx.Rngs(0))
    (d, h), count = size, sum(leaf.size for leaf in jax.tree.leaves(nnx.state(layer, nnx.Param)))
    assert count == d * h + 3 * h + layers * ((4 + 2 * width) * h**2 + (9 + width) * h)
    assert (layer.in_features, layer.hidden_features, layer.output_size) == (d, h, h)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bidirectional": True}, "bidirectional is True; expected False"),
        ({"num_layers": 0}, "num_layers is 0"),
        ({"num_heads": 0}, "num_heads is 0"),
        ({"feedforward": 1.5}, r"feedforward is 1\.5"),
        ({"dropout": 1.0}, r"dropout is 1\.0"),
        ({"positions": "learned"}, "positions is 'learned'"),
        ({"num_heads": 3, "positions": "none"}, "hidden_features is 8; expected a multiple of 3"),
        ({"num_heads": 8}, "hidden_features is 8; expected a multiple of 16, as num_heads is 8, and rotary"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        Transformer(D, H, **options, rngs=nnx.Rngs(0))
    assert Transformer(D, H, num_heads=8, positions="alibi", rngs=nnx.Rngs(0)).output_size == H  # one channel a head


def test_refuses_what_does_not_fit():
    layer, xs = make(), inputs()
    for carry in ({"initial_carry": ()}, {"return_carry": True}):
        with pytest.raises(ValueError, match="a Transformer has no carry"):
            layer(xs, **carry)
    with pytest.raises(ValueError, match=r"expected \(\*batch, time, 3\)"):
        layer(xs[:, :, :2])
    with pytest.raises(ValueError, match=r"expected 0\.\.6"):
        layer.last(xs, seq_lengths=LENGTHS + 1)
