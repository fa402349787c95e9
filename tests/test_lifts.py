"""Every cell under Flax's own lifts, in both front ends; docs/transformations.md has the table."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.nnx import bridge
from jax.sharding import AxisType, PartitionSpec

from qlstm_jax import describe, linen
from qlstm_jax import nnx as layers
from qlstm_jax.cells import CELLS
from qlstm_jax.describe import cell_class_name

B, T, D, H = 2, 5, 3, 4
SMALL = {"SLSTM": {"num_heads": 2}, "MLSTM": {"num_heads": 2, "chunk_size": 2}, "QLSTM": {"block_size": 2}}


def sequence(features=D):
    return jnp.asarray(np.random.default_rng(2).normal(size=(B, T, features)), jnp.float32)


def layer(name, features=D, *, seed=0, **options):
    return getattr(layers, name)(features, H, rngs=nnx.Rngs(seed), **SMALL.get(name, {}), **options)


def cell(name, base=None, **options):
    kind = base or getattr(layers, cell_class_name(name))
    return kind(D, H, rngs=nnx.Rngs(0), **SMALL.get(name, {}), **options)


def linen_layer(name, **options):
    return getattr(linen, name)(H, **SMALL.get(name, {}), **options)


def linen_cell(name, **options):
    return getattr(linen, cell_class_name(name))(H, **SMALL.get(name, {}), **options)


def close(found, expected, atol=2e-5):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(np.asarray(a, np.float64), np.asarray(b, np.float64), atol=atol)


def gradient(model, xs, call=lambda model, xs: model(xs)):
    return nnx.to_pure_dict(nnx.jit(nnx.grad(lambda model: jnp.sum(jnp.sin(call(model, xs)))))(model))


def nnx_scan_over_layers(name):
    """Layers of one shape as one module whose arrays have an axis for the layers."""
    several = [layer(name, H, seed=seed) for seed in range(3)]
    graphdef, _ = nnx.split(several[0])
    stacked = nnx.merge(graphdef, jax.tree.map(lambda *a: jnp.stack(a), *map(nnx.state, several)))

    @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
    def run(one, xs):
        return one(xs)

    xs = sequence(H)
    expected = xs
    for one in several:
        expected = one(expected)
    close(nnx.jit(run)(stacked, xs), expected)


def nnx_scan_over_time(name):
    """A cell's call as the body of a scan, its params the same at each step."""
    one, xs = cell(name), sequence()

    @nnx.scan(in_axes=(None, nnx.Carry, 1), out_axes=(nnx.Carry, 1))
    def run(one, carry, x):
        return one(carry, x)

    _, ys = nnx.jit(run)(one, one.initialize_carry((B, D)), xs)
    close(ys, layer(name)(xs))


def nnx_remat(name):
    """Of a function of positional arguments: `nnx.remat` takes no others, as those of the call of `nnx.RNN` are."""
    one, xs = layer(name), sequence()
    again = nnx.remat(lambda one, xs: one(xs))
    close(gradient(one, xs, again), gradient(one, xs))


def nnx_vmap(name):
    """An ensemble made and called by `nnx.vmap`, over its own params and one input."""
    xs = sequence()

    @nnx.split_rngs(splits=3)
    @nnx.vmap
    def make(rngs):
        return getattr(layers, name)(D, H, rngs=rngs, **SMALL.get(name, {}))

    ensemble = make(nnx.Rngs(0))
    ys = nnx.jit(nnx.vmap(lambda one, xs: one(xs), in_axes=(0, None)))(ensemble, xs)
    graphdef, state = nnx.split(ensemble)
    for number in range(3):
        one = nnx.merge(graphdef, jax.tree.map(lambda a, number=number: a[number], state))
        close(ys[number], one(xs))


LIFTS = [nnx_scan_over_layers, nnx_scan_over_time, nnx_remat, nnx_vmap]


def to_linen(name):
    """An NNX layer inside Linen, with the variables of Linen's `init`."""
    module = bridge.ToLinen(getattr(layers, name), args=(D, H), kwargs=SMALL.get(name, {}))
    xs = sequence()
    variables = module.init(jax.random.key(0), xs)
    one = layer(name)
    nnx.update(one, plain(variables["params"], nnx.state(one, nnx.Param)))
    close(jax.jit(module.apply)(variables, xs), one(xs))


def plain(params, like):
    """`params` of the bridge as values in the places of a state."""
    flat = {tuple(map(str, path)): a for path, a in flat_arrays(nn.meta.unbox(params))}
    pure = nnx.to_pure_dict(like)
    return jax.tree_util.tree_map_with_path(lambda path, a: flat[keys(path)], pure)


def keys(path):
    return tuple(str(getattr(k, "key", getattr(k, "idx", k))) for k in path)


def flat_arrays(tree):
    return [(keys(path), a) for path, a in jax.tree_util.tree_leaves_with_path(tree)]


def to_nnx(name):
    """A Linen layer inside NNX."""
    xs = sequence()
    module = linen_layer(name)
    one = bridge.lazy_init(bridge.ToNNX(module, rngs=nnx.Rngs(0)), xs)
    variables = {"params": nnx.to_pure_dict(nnx.state(one, nnx.Param))}
    close(nnx.jit(lambda one, xs: one(xs))(one, xs), module.apply(variables, xs))
    assert jax.tree.leaves(gradient(one, xs))


def nn_scan(name):
    """A Linen cell under `nn.scan` over time."""
    scanned = nn.scan(
        type(linen_cell(name)), variable_broadcast="params", split_rngs={"params": False}, in_axes=1, out_axes=1
    )(H, **SMALL.get(name, {}))
    xs, carry = sequence(), linen_cell(name).initialize_carry(None, (B, D))
    variables = scanned.init(jax.random.key(0), carry, xs)
    _, ys = jax.jit(scanned.apply)(variables, carry, xs)
    close(ys, linen_layer(name).apply({"params": {"cells_0": variables["params"]}}, xs))


def nn_remat(name):
    xs = sequence()
    kept, again = linen_layer(name), nn.remat(type(linen_layer(name)))(H, **SMALL.get(name, {}))
    variables = kept.init(jax.random.key(0), xs)
    found, expected = (
        jax.jit(jax.grad(lambda v, m=m: jnp.sum(jnp.sin(m.apply(v, xs)))))(variables) for m in (again, kept)
    )
    close(found, expected)


def nn_vmap(name):
    xs = sequence()
    kind = nn.vmap(
        type(linen_layer(name)), variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=None, axis_size=3
    )
    ensemble = kind(H, **SMALL.get(name, {}))
    variables = ensemble.init(jax.random.key(0), xs)
    ys = jax.jit(ensemble.apply)(variables, xs)
    for number in range(3):
        one = jax.tree.map(lambda a, number=number: a[number], variables)
        close(ys[number], linen_layer(name).apply(one, xs))


def bidirectional(name):
    """`nn.Bidirectional` of Linen and of NNX over two cells, against a layer that reads both ways."""
    xs, lengths = sequence(), jnp.array([T, 3])
    both = nn.Bidirectional(nn.RNN(linen_cell(name)), nn.RNN(linen_cell(name)))
    variables = both.init(jax.random.key(0), xs, seq_lengths=lengths)
    halves = {"cells_0": "forward_rnn", "backward_cells_0": "backward_rnn"}
    params = {place: variables["params"][half]["cell"] for place, half in halves.items()}
    found = jax.jit(both.apply)(variables, xs, seq_lengths=lengths)
    expected = linen_layer(name, bidirectional=True).apply({"params": params}, xs, seq_lengths=lengths)
    valid = (jnp.arange(T)[None] < lengths[:, None])[:, :, None]  # Flax leaves what it reads in padding
    close(jnp.where(valid, found, 0), expected)

    one = layer(name, bidirectional=True)
    both = nnx.Bidirectional(nnx.RNN(one.cells[0]), nnx.RNN(one.backward_cells[0]))
    found = nnx.jit(lambda both, xs: both(xs, seq_lengths=lengths))(both, xs)
    close(jnp.where(valid, found, 0), one(xs, seq_lengths=lengths))


def recurrent_dropout(name):
    """A cell that drops from its state, by a mask that `nnx.RNN` draws once a sequence or once a step."""
    plain_cell = getattr(layers, cell_class_name(name))

    class Dropping(plain_cell):
        def __init__(self, *args, rate, rngs, **kwargs):
            super().__init__(*args, rngs=rngs, **kwargs)
            self.dropout = nnx.Dropout(rate, rng_collection="recurrent_dropout", rngs=rngs)

        def __call__(self, carry, inputs):
            drop = lambda a: self.dropout(a) if jnp.issubdtype(a.dtype, jnp.floating) else a  # noqa: E731
            return super().__call__(jax.tree.map(drop, carry), inputs)

    xs = sequence()
    rngs = nnx.Rngs(0, recurrent_dropout=1)
    one = Dropping(D, H, rate=0.5, rngs=rngs, **SMALL.get(name, {}))
    rnn = nnx.RNN(one, broadcast_rngs="recurrent_dropout")
    first, second = rnn(xs), rnn(xs)
    close(first[:, 0], second[:, 0])  # the state is zeros before the first token
    assert np.isfinite(first).all() and not np.allclose(first, second)
    rnn.eval()
    close(rnn(xs), layer(name)(xs))


def sharding_metadata(name):
    """Names of mesh axes reach the partition specs of the kernels that the input meets, and their arrays."""
    mesh = jax.make_mesh((2,), ("model",), devices=jax.devices()[:2], axis_types=(AxisType.Auto,))
    with jax.set_mesh(mesh):
        one = layer(name, kernel_metadata={"out_sharding": (None, "model")})
        init = nn.with_partitioning(nn.initializers.lecun_normal(), (None, "model"))
        variables = linen_layer(name, kernel_init=init).init(jax.random.key(0), sequence())
        xs = sequence()
        close(nnx.jit(lambda one, xs: one(xs))(one, xs), layer(name)(xs))
    params = {f.name: getattr(one.cells[0], f.name) for f in dataclasses.fields(one.cells[0].params)}
    kernels = {key for key, p in params.items() if describe.role(key) == "kernel" and isinstance(p, nnx.Param)}
    assert kernels and all(params[key].sharding.spec == PartitionSpec(None, "model") for key in kernels)
    specs = nnx.to_pure_dict(nnx.get_partition_spec(nnx.state(one.cells[0], nnx.Param)))
    assert {key for key, spec in specs.items() if "model" in tuple(spec)} == kernels
    specs = nn.get_partition_spec(variables)["params"]["cells_0"]
    assert {key for key, spec in specs.items() if "model" in tuple(spec)} == kernels


LIFTS += [to_linen, to_nnx, nn_scan, nn_remat, nn_vmap, bidirectional, recurrent_dropout, sharding_metadata]


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("lift", LIFTS, ids=lambda f: f.__name__)
def test_lift(name, lift):
    lift(name)
