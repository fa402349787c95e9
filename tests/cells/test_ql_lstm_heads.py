"""QL-LSTM with heads: its equations, one head whose U has the same blocks, a fold of `step`, and its initial values."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qlstm_jax.cells import ql_lstm
from tests.cells import cases, oracles

B, T, D, H = 4, 11, 3, 8
LENGTHS = np.array([11, 7, 0, 1])
RESETS = np.random.default_rng(0).random((B, T)) < 0.2
# Tokens read before those of a test: rows stand at different places in their blocks of 4.
BEFORE = np.array([0, 3, 6, 1])
# float64 sums in another order, and those of gradients by differences of a step of 1e-6.
CLOSE = 1e-10
SLOPES_CLOSE = 1e-6
# A number below 2 is rounded by up to 2^-8, at different places on two paths.
BFLOAT16_CLOSE = 2**-5

OPTIONS = "num_heads", "sharing", "skip"
FEW = [(2, "full", True), (4, "gates", True), (4, "none", False)]
MORE = [(1, "full", True), (4, "full", True), (8, "gates", True), (2, "none", True), (2, "gates", False)]


def draw(dtype="float64", **options):
    """Weights with nothing at its default, in float64 or float32."""
    options |= {"block_size": 4, "epsilon": 0.3, "dtype": dtype}
    shapes = jax.eval_shape(lambda: ql_lstm.init(jax.random.key(0), D, H, **options))
    rng = np.random.default_rng(1)
    wide = "float64" if dtype == "float64" else "float32"
    return jax.tree.map(lambda a: jnp.asarray(0.5 * rng.normal(size=a.shape), wide), shapes)


def sequence(steps=T, dtype="float64", seed=2):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(B, steps, D)), dtype)


def one_head(params):
    """The same cell with the blocks of U among zeros (H, G·H)."""
    if params.num_heads == 1:
        return params
    heads, size, width = params.recurrent_kernel.shape
    kernel = jnp.zeros((H, width // size, heads, size), params.recurrent_kernel.dtype)
    for n, block in enumerate(params.recurrent_kernel):
        kernel = kernel.at[n * size : (n + 1) * size, :, n].set(block.reshape(size, -1, size))
    return dataclasses.replace(params, recurrent_kernel=kernel.reshape(H, -1))


def fold(params, xs, carry):
    """`step` over the tokens, with RESETS, each row stopping at its length."""

    def token(carry, inputs):
        x, reset, valid = inputs
        new, y = ql_lstm.step(params, carry, x, reset=reset)
        keep = lambda n, o: jnp.where(valid.reshape((-1,) + (1,) * (n.ndim - 1)), n, o)  # noqa: E731
        return jax.tree.map(keep, new, carry), keep(y, jnp.zeros_like(y))

    valid = np.arange(T)[:, None] < LENGTHS
    carry, ys = jax.lax.scan(token, carry, (jnp.swapaxes(xs, 0, 1), RESETS.T, valid))
    return carry, jnp.swapaxes(ys, 0, 1)


def unroll(params, xs, carry, plain=False):
    return ql_lstm.unroll(params, xs, seq_lengths=LENGTHS, resets=RESETS, carry=carry, plain=plain)


WAYS = {
    "the fast way": unroll,
    "the plain way": functools.partial(unroll, plain=True),
    "one head": lambda params, xs, carry: unroll(one_head(params), xs, carry),
    "a fold": fold,
}


@jax.jit
def results(params, xs, before):
    """Of each way (outputs and last carry), and their gradients by weights, inputs and carry."""
    start, _ = ql_lstm.unroll(params, before, seq_lengths=BEFORE)

    def loss(params, xs, floats, way):
        out = WAYS[way](params, xs, floats._replace(position=start.position))
        return cases.weigh(out, cases.cotangents(out)), out

    grad = jax.grad(loss, argnums=(0, 1, 2), has_aux=True)
    return {way: grad(params, xs, start._replace(position=None), way) for way in WAYS}


@pytest.mark.parametrize(OPTIONS, FEW)
def test_all_ways_are_one(num_heads, sharing, skip):
    """From rows at different places in their blocks, with lengths and resets."""
    with jax.enable_x64(True):
        params = draw(num_heads=num_heads, sharing=sharing, skip=skip)
        found = results(params, sequence(), sequence(6, seed=3))
        for way in ("the plain way", "one head", "a fold"):
            for a, b in zip(*(jax.tree.leaves(found[w]) for w in ("the fast way", way)), strict=True):
                atol = CLOSE * max(1, np.abs(b).max())
                np.testing.assert_allclose(a, b, rtol=0, atol=atol, err_msg=way)


@pytest.mark.parametrize(OPTIONS, FEW + MORE)
def test_outputs_and_gradients(num_heads, sharing, skip):
    """Against the equations in numpy, the gradients by differences."""
    with jax.enable_x64(True):
        params, xs = draw(num_heads=num_heads, sharing=sharing, skip=skip), sequence()
        weights = np.random.default_rng(4).normal(size=(B, T, H))

        def loss(params, xs):
            ys = ql_lstm.unroll(params, xs)[1]
            return jnp.sum(ys * weights), ys

        (grads, grads_xs), ys = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(params, xs)
        arrays = {**cases.as_arrays(params), "xs": np.asarray(xs)}
        grads = {**cases.as_arrays(grads), "xs": np.asarray(grads_xs)}

    def outputs(arrays):
        options = {"num_heads": num_heads, "sharing": sharing, "skip": skip, "block_size": 4, "epsilon": 0.3}
        return np.array([oracles.ql_lstm(arrays, x, **options) for x in arrays["xs"]])

    np.testing.assert_allclose(ys, outputs(arrays), rtol=0, atol=CLOSE)
    rng = np.random.default_rng(5)
    for name, value in arrays.items():
        direction = rng.normal(size=value.shape)
        ends = (np.sum(weights * outputs({**arrays, name: value + step * direction})) for step in (1e-6, -1e-6))
        slope, length = (next(ends) - next(ends)) / 2e-6, np.linalg.norm(grads[name])
        assert length > 1e-2, name
        atol = SLOPES_CLOSE * max(length, 1)
        np.testing.assert_allclose(np.sum(grads[name] * direction), slope, rtol=0, atol=atol, err_msg=name)


@pytest.mark.parametrize(("num_heads", "sharing"), [(2, "full"), (4, "none")])
def test_bfloat16(num_heads, sharing):
    params, xs = draw("bfloat16", num_heads=num_heads, sharing=sharing), sequence(dtype="bfloat16")
    start = ql_lstm.initial_carry(params, B)
    found = jax.jit(lambda params: {way: run(params, xs, start) for way, run in WAYS.items()})(params)
    assert found["the fast way"][1].dtype == jnp.bfloat16
    for way in ("the plain way", "one head", "a fold"):
        for a, b in zip(*(jax.tree.leaves(found[w]) for w in ("the fast way", way)), strict=True):
            a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
            atol = BFLOAT16_CLOSE * max(1, np.abs(b).max())
            np.testing.assert_allclose(a, b, rtol=0, atol=atol, err_msg=way)


@pytest.mark.parametrize("skip", [False, True])
def test_heads_meet_in_the_block_memory_alone(skip):
    """h of one head reaches another's output only once a block of 4 tokens is written."""
    with jax.enable_x64(True):
        params, xs = draw(num_heads=4, skip=skip), sequence()[:1, :5]

        def outputs(h):
            start = ql_lstm.initial_carry(params, 1)
            return ql_lstm.unroll(params, xs, carry=start._replace(h=h[None]))[1][0]

        jacobian = jax.jit(jax.jacrev(outputs))(jnp.full(H, 0.1))
    reach = np.abs(jacobian).reshape(5, 4, 2, 4, 2).max(axis=(2, 4)) > 0
    apart = np.eye(4, dtype=bool)
    np.testing.assert_array_equal(reach[:4], np.broadcast_to(apart, (4, 4, 4)))
    np.testing.assert_array_equal(reach[4], np.ones((4, 4), bool) if skip else apart)


@pytest.mark.parametrize(("sharing", "maps"), [("full", 1), ("gates", 2), ("none", 4)])
def test_initial_values(sharing, maps):
    """Each map of each head is orthogonal, and none is another; all else does not depend on the heads."""
    one, several = (ql_lstm.init(jax.random.key(0), D, 24, sharing=sharing, num_heads=n) for n in (1, 3))
    assert (one.num_heads, several.num_heads) == (1, 3)
    assert one.recurrent_kernel.shape == (24, 24 * maps) and several.recurrent_kernel.shape == (3, 8, 8 * maps)
    blocks = [b for head in np.asarray(several.recurrent_kernel) for b in np.split(head, maps, axis=1)]
    for k, block in enumerate(blocks):
        np.testing.assert_allclose(block.T @ block, np.eye(8), atol=1e-5)
        assert all(np.abs(block - other).max() > 0.1 for other in blocks[:k])
    others = (dataclasses.replace(params, recurrent_kernel=params.gate_bias) for params in (one, several))
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, *others)))
