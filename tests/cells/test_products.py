"""Products over all positions: equal with and without merged axes, and what the compiler may split stays apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from qlstm_jax import nnx as layers
from qlstm_jax.cells.common import products

T, B, D, H = 6, 8, 3, 5


def draw():
    rng = np.random.default_rng(0)
    return (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in [(T, B, D), (D, H), (T, B, H)])


def both(x, kernel, dz):
    return products.matmul(x, kernel, jnp.float32), products.kernel_gradient(x, dz)


def shapes_of_products(function, *args):
    """Those of the operands of each product in a program."""
    eqns = jax.make_jaxpr(function)(*args).jaxpr.eqns
    inner = [e for outer in eqns for p in outer.params.values() if hasattr(p, "eqns") for e in p.eqns]
    return [[v.aval.shape for v in e.invars] for e in [*eqns, *inner] if e.primitive.name == "dot_general"]


def test_axes_are_merged_in_a_program_of_one_device_alone():
    """The tests run on eight: outside of shard_map the batch may be split over them by the compiler."""
    x, kernel, dz = draw()
    mesh = jax.make_mesh((1,), ("rows",), axis_types=(AxisType.Auto,))
    alone = jax.shard_map(both, mesh=mesh, in_specs=P(), out_specs=P(), check_vma=False)
    rows = T * B
    assert shapes_of_products(both, x, kernel, dz) == [[(T, B, D), (D, H)], [(T, B, D), (T, B, H)]]
    assert shapes_of_products(alone, x, kernel, dz) == [[(rows, D), (D, H)], [(rows, D), (rows, H)]]
    expected = np.einsum("tbd,dh->tbh", x, kernel), np.einsum("tbd,tbh->dh", x, dz)
    for values in (both(x, kernel, dz), alone(x, kernel, dz)):
        for value, reference in zip(values, expected, strict=True):
            np.testing.assert_allclose(value, reference, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["SimpleRNN", "LSTM", "GRU", "QLSTM", "SLSTM", "MLSTM", "PRLSTM"])
def test_a_split_batch_stays_split(name):
    """Forward and backward need no rows of another device: only the gradient of the parameters is summed over them."""
    layer = getattr(layers, name)(D, 8, rngs=nnx.Rngs(0))
    graph, params = nnx.split(layer)
    mesh = jax.make_mesh((8,), ("rows",), axis_types=(AxisType.Auto,))
    xs = jax.device_put(jnp.ones((B, T, D)), NamedSharding(mesh, P("rows")))

    def loss(params, xs):
        return jnp.sum(nnx.merge(graph, params)(xs) ** 2)

    forward = jax.jit(lambda params, xs: nnx.merge(graph, params)(xs)).lower(params, xs).compile()
    assert forward.output_shardings.is_equivalent_to(NamedSharding(mesh, P("rows")), 3)
    backward = jax.jit(jax.grad(loss)).lower(params, xs).compile()
    for program in (forward.as_text(), backward.as_text()):
        assert not any(f" {move}(" in program for move in ("all-gather", "all-to-all", "collective-permute"))
    assert " all-reduce(" in backward.as_text()


def test_auto_axes_let_a_layer_run_where_axes_are_explicit():
    layer = layers.QLSTM(D, 8, rngs=nnx.Rngs(0))
    mesh = jax.make_mesh((8,), ("rows",), axis_types=(AxisType.Explicit,))
    xs = jnp.asarray(np.random.default_rng(0).normal(size=(B, T, D)), jnp.float32)
    run = jax.sharding.auto_axes(lambda xs: layer(xs), axes="rows", out_sharding=P("rows"))
    with jax.set_mesh(mesh):
        ys = run(jax.device_put(xs, NamedSharding(mesh, P("rows"))))
    assert ys.sharding.is_equivalent_to(NamedSharding(mesh, P("rows")), 3)
    np.testing.assert_allclose(ys, layer(xs), rtol=1e-5, atol=1e-6)
