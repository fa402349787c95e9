"""Cells and layers on a mesh with explicit axes, `jax.make_mesh`'s default: a split batch gives the same numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from qlstm_jax import linen
from qlstm_jax import nnx as layers
from qlstm_jax.nnx import GRU, LSTM, LSTMCell
from tests.cells import cases

B, T = 4, 7


@pytest.fixture
def mesh():
    return jax.make_mesh((2,), ("rows",), devices=jax.devices()[:2], axis_types=(AxisType.Explicit,))


def split(mesh, tree, *axes):
    return jax.device_put(tree, NamedSharding(mesh, P(*axes, "rows")))


def close(found, expected, atol=2e-5):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(a, b, atol=atol)


def spec(a):
    return jax.typeof(a).sharding.spec


@cases.MAIN
def test_values_and_gradients_equal_those_of_one_device(case, mesh):
    params, xs = case.params(), cases.sequence(B, T)
    lengths = jnp.array([7, 0, 4, 6])
    resets = jnp.asarray(np.random.default_rng(0).random((B, T)) < 0.3)

    def gradients(params, xs, lengths, resets, carry):
        def loss(params, xs):
            carry_and_ys = case.cell.unroll(params, xs, seq_lengths=lengths, resets=resets, carry=carry)
            return jnp.sum(jnp.sin(carry_and_ys[1])), carry_and_ys

        gradient, (carry, ys) = jax.grad(loss, argnums=(0, 1), has_aux=True)(params, xs)
        _, y = case.cell.step(params, carry, xs[:, 0])
        last = case.cell.last(params, xs, seq_lengths=lengths)
        return gradient, carry, ys, y, last

    carry, _ = case.cell.unroll(params, xs[:, :3])
    expected = jax.jit(gradients)(params, xs, lengths, resets, carry)
    with jax.set_mesh(mesh):
        given = split(mesh, (xs, lengths, resets, carry))
        found = jax.jit(gradients)(params, *given)
        *_, ys, y, last = found
        assert spec(ys) == P("rows", None, None) and spec(y) == spec(last) == P("rows", None)
        assert all(spec(a)[0] == "rows" for a in jax.tree.leaves(found[1]))
    close(found, expected)


def test_without_jit_and_without_a_mesh_in_the_context(mesh):
    case = next(c for c in cases.CASES if c.name == "lstm")
    params, xs = case.params(), cases.sequence(B, T)
    _, expected = case.cell.unroll(params, xs)
    _, found = case.cell.unroll(params, split(mesh, xs))
    assert spec(found) == P("rows", None, None)
    close(found, expected)
    with jax.set_mesh(mesh):
        close(case.cell.unroll(params, split(mesh, xs), plain=True)[1], expected)
        close(case.cell.unroll(params, xs)[1], expected)  # split over nothing


@pytest.mark.parametrize("options", [{}, {"time_major": True}, {"reverse": True, "keep_order": True}], ids=str)
def test_layers_of_both_front_ends(options, mesh):
    xs, lengths = cases.sequence(B, T), jnp.array([7, 0, 4, 6])
    time_major = "time_major" in options
    xs = jnp.swapaxes(xs, 0, 1) if time_major else xs
    layer = GRU(cases.D, cases.H, num_layers=2, rngs=nnx.Rngs(0))
    wide = LSTM(cases.D, cases.H, bidirectional=True, rngs=nnx.Rngs(0))
    module = linen.GRU(cases.H)
    variables = module.init(jax.random.key(0), xs)

    def run(xs, lengths):
        given = {"seq_lengths": lengths, **options}
        carry, ys = layer(xs, return_carry=True, **given)
        sided = {"seq_lengths": lengths, "time_major": time_major}
        return ys, wide(xs, **sided), module.apply(variables, xs, **given), layer.last(xs, **sided), carry

    expected = jax.jit(run)(xs, lengths)
    with jax.set_mesh(mesh):
        found = jax.jit(run)(split(mesh, xs, *[None] * time_major), split(mesh, lengths))
        for ys in found[:3]:
            assert spec(ys) == (P(None, "rows", None) if time_major else P("rows", None, None))
        assert all(spec(a) == P("rows", None) for a in jax.tree.leaves(found[3:]))
    close(found, expected)


def test_dropout_and_gradients_of_a_layer(mesh):
    xs = cases.sequence(B, T)

    @nnx.jit
    def gradient(layer, xs):
        layer.train()
        return nnx.grad(lambda layer: jnp.sum(jnp.sin(layer(xs, rngs=jax.random.key(1)))))(layer)

    layer = GRU(cases.D, cases.H, num_layers=2, dropout=0.5, rngs=nnx.Rngs(0))
    expected = nnx.to_pure_dict(gradient(layer, xs))
    with jax.set_mesh(mesh):
        found = nnx.to_pure_dict(gradient(layer, split(mesh, xs)))
    close(found, expected)


def test_a_cell_inside_flaxs_rnn_steps_over_a_split_carry(mesh):
    cell, xs = LSTMCell(cases.D, cases.H, rngs=nnx.Rngs(0)), cases.sequence(B, T)
    expected, _ = cell(cell.initialize_carry((B, cases.D)), xs[:, 0])
    with jax.set_mesh(mesh):
        carry = split(mesh, cell.initialize_carry((B, cases.D)))
        found, _ = nnx.jit(lambda cell, carry, x: cell(carry, x))(cell, carry, split(mesh, xs[:, 0]))
        assert all(spec(a) == P("rows", None) for a in jax.tree.leaves(found))
    close(found, expected)


def test_a_mesh_with_another_axis_that_the_compiler_has():
    types = (AxisType.Explicit, AxisType.Auto)
    two = jax.make_mesh((2, 2), ("rows", "model"), devices=jax.devices()[:4], axis_types=types)
    layer, xs = layers.QLSTM(cases.D, cases.H, block_size=2, rngs=nnx.Rngs(0)), cases.sequence(B, T)
    expected = layer(xs)
    with jax.set_mesh(two):
        found = nnx.jit(lambda layer, xs: layer(xs))(layer, split(two, xs))
    close(found, expected)
