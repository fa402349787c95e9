import functools
import inspect

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from qlstm_jax import linen as layers
from qlstm_jax import nnx as nnx_layers
from qlstm_jax.cells import CELLS, gru, pr_lstm
from qlstm_jax.cells.common import cell_options
from qlstm_jax.describe import cell_class_name, config_name
from tests.cells.cases import SMALL

B, T, D, H = 4, 5, 3, 4
LENGTHS = np.array([5, 0, 3, 1], np.int32)
# H is 4: another number of heads than in the table.
OPTIONS = SMALL | {
    "ql_lstm": {"block_size": 2, "num_heads": 2},
    "slstm": {"num_heads": 2, "forget_gate": "exponential"},
}
CASES = {
    config_name(functions): (name, cell_class_name(name), OPTIONS.get(config_name(functions), {}))
    for name, functions in CELLS.items()
}


def make_layer(case, **kwargs):
    layer, _, options = CASES[case]
    return getattr(layers, layer)(features=H, **options, **kwargs)


def make_cell(case, **kwargs):
    _, cell, options = CASES[case]
    # A small stream compiles faster than one of 31 slots.
    options = dict(options, max_length=T) if case == "pr_lstm" else options
    return getattr(layers, cell)(features=H, **options, **kwargs)


def inputs(dtype=jnp.float32):
    return jax.random.normal(jax.random.key(0), (B, T, D), dtype)


def allclose(a, b, tolerance=2e-5):
    a, b = (jax.tree.map(lambda x: np.asarray(x, np.float64), tree) for tree in (a, b))
    chex.assert_trees_all_close(a, b, atol=tolerance, rtol=tolerance)


def parameters(module):
    """The parameters of an NNX layer, under the names that its Linen sibling gives them."""
    tree = {}
    for (kind, number, name), value in nnx.to_flat_state(nnx.state(module, nnx.Param)):
        tree.setdefault(f"{kind}_{number}", {})[name] = value[...]
    return {"params": tree}


@functools.cache
def stacked(case, bidirectional):
    """A stack of two in NNX, the same in Linen, and Linen's parameters."""
    name, _, options = CASES[case]
    kwargs = {"num_layers": 2, "bidirectional": bidirectional, **options}
    module = getattr(nnx_layers, name)(D, H, rngs=nnx.Rngs(1), **kwargs)
    return module, make_layer(case, num_layers=2, bidirectional=bidirectional), parameters(module)


@functools.cache
def weights(case):
    """Parameters of one cell, drawn by NNX."""
    name, _, options = CASES[case]
    return parameters(getattr(nnx_layers, name)(D, H, rngs=nnx.Rngs(1), **options))["params"]["cells_0"]


@pytest.mark.parametrize(
    ("case", "dtype"),
    [(case, jnp.float32) for case in CASES] + [(case, jnp.bfloat16) for case in ("gru", "ql_lstm", "pr_lstm")],
)
def test_linen_rnn_and_layer_agree(case, dtype):
    layer, rnn = make_layer(case, dtype=dtype), nn.RNN(make_cell(case, dtype=dtype))
    lengths, xs = np.array([5, 2, 3, 1], np.int32), inputs(dtype)
    params = weights(case)

    @jax.jit
    def run(params):
        by_rnn = rnn.apply({"params": {"cell": params}}, xs, seq_lengths=lengths, return_carry=True)
        by_layer = {"params": {"cells_0": params}}
        return by_rnn, layer.apply(by_layer, xs, seq_lengths=lengths, return_carry=True)

    (carry_rnn, ys_rnn), (carry, ys) = run(params)
    variables = jax.eval_shape(rnn.init, jax.random.key(0), xs)
    chex.assert_trees_all_equal_shapes_and_dtypes(variables, {"params": {"cell": params}})
    valid = (np.arange(T)[None, :] < lengths[:, None])[:, :, None]
    assert ys.dtype == ys_rnn.dtype == dtype and float(jnp.max(jnp.abs(ys))) > 0.1
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    if case == "pr_lstm":  # the streams differ in how many slots they have
        carry = carry._replace(slots=jax.tree.map(lambda a: a[:, :3], carry.slots))
    chex.assert_trees_all_equal_dtypes(carry, carry_rnn)
    tolerance = 1e-5 if dtype == jnp.float32 else 0.03
    allclose((ys, carry), (np.asarray(ys_rnn, np.float32) * valid, carry_rnn), tolerance)


@pytest.mark.parametrize(
    ("case", "bidirectional"),
    [("rnn", False), ("lstm", True), ("gru", False), ("ql_lstm", True), ("pr_lstm", False)],
)
def test_equals_nnx_given_its_weights(case, bidirectional):
    module, layer, variables = stacked(case, bidirectional)
    xs = inputs()

    @nnx.jit
    def run(module, variables, xs, lengths):
        ours = (
            layer.apply(variables, xs, seq_lengths=lengths),
            layer.apply(variables, xs, seq_lengths=lengths, method="last"),
        )
        return ours, (module(xs, seq_lengths=lengths), module.last(xs, seq_lengths=lengths))

    (ys, last), expected = run(module, variables, xs, LENGTHS)
    assert ys.shape == (B, T, layer.output_size) and float(jnp.max(jnp.abs(ys))) > 0.05
    allclose((ys, last), expected)
    chex.assert_trees_all_equal_shapes_and_dtypes(jax.eval_shape(layer.init, jax.random.key(0), xs), variables)


def test_init_by_either_method():
    _, layer, variables = stacked("rnn", False)
    for method in ("__call__", "last"):
        init = functools.partial(layer.init, method=method)
        chex.assert_trees_all_equal_shapes(jax.eval_shape(init, jax.random.key(0), inputs()), variables)


def test_parameters_are_drawn_as_the_cell_draws_them():
    layer = make_layer("ql_lstm", num_layers=2)
    init = jax.jit(layer.init)
    first, again, other = (init(jax.random.key(n), inputs())["params"] for n in (0, 0, 1))
    chex.assert_trees_all_equal(first, again)
    for params in first.values():
        for kernel in (*params["recurrent_kernel"], params["memory_kernel"]):  # those of each head
            allclose(kernel @ kernel.T, np.eye(len(kernel)))
        assert set(np.unique(params["gate_scale"])) == {0.5, 1.5}
        assert np.array_equal(params["gate_bias"], np.eye(4)[1][:, None] * np.ones((1, H)))
    assert not np.allclose(first["cells_0"]["recurrent_kernel"], first["cells_1"]["recurrent_kernel"])
    assert not np.allclose(first["cells_0"]["recurrent_kernel"], other["cells_0"]["recurrent_kernel"])


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("QLSTM", {"sharing": "none", "skip": False}, {"input_kernel", "recurrent_kernel", "gate_bias"}),
        ("GRU", {}, {"input_kernel", "recurrent_kernel", "bias", "recurrent_bias"}),
    ],
)
def test_parameters_are_named_as_the_fields(name, options, expected):
    layer = getattr(layers, name)(H, **options)
    assert set(jax.eval_shape(layer.init, jax.random.key(0), inputs())["params"]["cells_0"]) == expected


def test_options_reach_the_cell():
    def shapes(layer):
        return jax.tree.map(jnp.shape, jax.eval_shape(layer.init, jax.random.key(0), inputs())["params"]["cells_0"])

    assert shapes(layers.QLSTM(H, sharing="gates"))["input_kernel"] == (D, 2 * H)
    ours = shapes(layers.PRLSTM(H, refinements=2, cell="rnn"))
    assert ours["refine_kernel"] == (2, H, H) and ours["leaf_kernel"] == (D, H)


def test_param_dtype():
    layer = layers.PRLSTM(H, param_dtype=jnp.bfloat16)
    variables = jax.eval_shape(layer.init, jax.random.key(0), inputs())
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("bfloat16")}
    assert jax.eval_shape(layer.apply, variables, inputs()).dtype == jnp.float32


def test_continues_from_a_carry():
    _, layer, variables = stacked("gru", False)
    resume = jax.jit(functools.partial(layer.apply, return_carry=True))
    xs = inputs()[:, :4]
    carry, first = resume(variables, xs[:, :2], initial_carry=layer.initialize_carry(B))
    _, second = resume(variables, xs[:, 2:], initial_carry=carry)
    allclose(jnp.concatenate([first, second], axis=1), jax.jit(layer.apply)(variables, xs))


def test_dropout():
    _, plain, variables = stacked("rnn", False)
    layer = make_layer("rnn", num_layers=2, dropout=0.5)
    apply = jax.jit(layer.apply, static_argnames=("deterministic", "method"))
    expected = jax.jit(plain.apply)(variables, inputs())
    allclose(apply(variables, inputs()), expected)
    on = [apply(variables, inputs(), deterministic=False, rngs={"dropout": jax.random.key(n)}) for n in (0, 1, 0)]
    assert jnp.max(jnp.abs(on[0] - on[1])) > 0.01 and jnp.max(jnp.abs(on[0] - expected)) > 0.01
    chex.assert_trees_all_equal(on[0], on[2])
    assert jnp.all(on[0] != 0)  # none after the last layer
    rngs = {"dropout": jax.random.key(0)}
    allclose(apply(variables, inputs(), deterministic=False, rngs=rngs, method="last"), on[0][:, -1])


def test_dropout_of_one_layer_is_reported():
    with pytest.warns(UserWarning, match="between layers"):
        jax.eval_shape(make_layer("rnn", dropout=0.5).init, jax.random.key(0), inputs())


def test_initial_carries():
    cell = layers.PRLSTMCell(H, max_length=12)
    assert cell.initialize_carry(jax.random.key(0), (B, D)).slots.h.shape == (B, 4, H)
    assert cell.initialize_carry(jax.random.key(0), (2, B, D)).slots.h.shape == (2, B, 4, H)
    carry = layers.PRLSTM(H, num_layers=2).initialize_carry(B)
    assert [c.slots.h.shape for c in carry] == [(B, pr_lstm.MAX_SLOTS, H)] * 2


@pytest.mark.parametrize("merge", ["ldru", "grc"])
def test_a_merge_has_parameters_of_its_own(merge):
    layer, ours = make_layer("pr_lstm", cell=merge), nnx_layers.PRLSTM(D, H, cell=merge, rngs=nnx.Rngs(0))
    variables = parameters(ours)
    own = jax.eval_shape(layer.init, jax.random.key(0), inputs())
    chex.assert_trees_all_equal_shapes(own, variables)
    apply, read = jax.jit(layer.apply), nnx.jit(lambda layer, xs, lengths: layer(xs, seq_lengths=lengths))
    allclose(apply(variables, inputs(), seq_lengths=LENGTHS), read(ours, inputs(), LENGTHS))


def test_linen_rnn_with_other_batch_axes():
    rnn, xs = nn.RNN(make_cell("gru")), inputs()

    @jax.jit
    def run(key, xs):
        expected, variables = rnn.init_with_output(key, xs)
        return expected, rnn.apply(variables, xs[0]), rnn.apply(variables, xs.reshape(2, 2, T, D))

    expected, one, four = run(jax.random.key(0), xs)
    allclose((one, four), (expected[0], expected.reshape(2, 2, T, H)))


def init_error(layer, xs=None, **kwargs):
    return jax.eval_shape(functools.partial(layer.init, **kwargs), jax.random.key(0), inputs() if xs is None else xs)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_layers": 0}, "num_layers is 0"),
        ({"dropout": -0.5}, "dropout is -0.5"),
        ({"features": 0}, "features is 0"),
        ({"sharing": "some"}, "sharing is 'some'"),
    ],
)
def test_options_out_of_range(kwargs, message):
    with pytest.raises(ValueError, match=message):
        init_error(layers.QLSTM(**{"features": H, **kwargs}))


def test_refuses_what_does_not_fit():
    layer = make_layer("gru")
    with pytest.raises(ValueError, match=r"expected \(\*batch, time, 3\)"):
        init_error(layer, inputs()[0, 0])
    with pytest.raises(ValueError, match=r"expected 0\.\.5"):
        init_error(layer, seq_lengths=LENGTHS + 1)
    with pytest.raises(ValueError, match="a tuple of 2"):
        init_error(make_layer("gru", num_layers=2), initial_carry=gru.Carry(h=jnp.zeros((B, H))))
    with pytest.raises(ValueError, match="batch of the input"):
        init_error(layer, initial_carry=layer.initialize_carry(B + 1))
    with pytest.raises(TypeError, match="block_size"):
        layers.GRU(H, block_size=2)


def test_bidirectional_has_no_carry():
    layer = make_layer("gru", bidirectional=True)
    carry = make_layer("gru").initialize_carry(B)
    for use in (
        lambda: init_error(layer, initial_carry=carry),
        lambda: init_error(layer, return_carry=True),
        lambda: layer.initialize_carry(B),
    ):
        with pytest.raises(ValueError, match="bidirectional layer has no carry"):
            use()


@pytest.mark.parametrize("name", CELLS)
def test_modules_have_every_option_of_their_cell(name):
    layer, cell = getattr(layers, name), getattr(layers, cell_class_name(name))
    assert layers.LAYERS[name] is layer and layer.functions is cell.functions is CELLS[name]
    for option, parameter in cell_options(CELLS[name]).items():
        assert getattr(layer, option) == getattr(cell, option) == parameter.default
        assert inspect.signature(layer).parameters[option].default == parameter.default
        assert f"{option}:" in layer.__doc__ and f"{option}:" in cell.__doc__


@pytest.mark.parametrize(
    "call",
    [{}, {"time_major": True}, {"reverse": True}, {"reverse": True, "keep_order": True}],
    ids=lambda call: "-".join(call) or "plain",
)
def test_a_layer_is_called_as_flax_rnn(call):
    layer, rnn, lengths = make_layer("lstm"), nn.RNN(make_cell("lstm")), np.array([5, 2, 3, 1], np.int32)
    xs = inputs().swapaxes(0, 1) if "time_major" in call else inputs()
    options = {"initial_carry": (jnp.full((B, H), 0.3), jnp.full((B, H), -0.2)), "seq_lengths": lengths, **call}

    @jax.jit
    def run(params):
        ours = layer.apply({"params": {"cells_0": params}}, xs, return_carry=True, **options)
        return ours, rnn.apply({"params": {"cell": params}}, xs, return_carry=True, **options)

    (carry, ys), (expected_carry, expected) = run(weights("lstm"))
    valid = np.arange(T)[None, :] < lengths[:, None]
    valid = valid.T if "time_major" in call else valid
    assert type(carry) is type(expected_carry) is tuple
    allclose((carry, ys), (expected_carry, expected * valid[:, :, None]))


def test_initializers_and_their_metadata():
    ones = nn.with_partitioning(nn.initializers.ones_init(), (None, "model"))
    layer = layers.GRU(H, kernel_init=ones, bias_init=nn.initializers.constant(2.0))
    params = layer.init(jax.random.key(0), inputs())["params"]["cells_0"]
    assert params["input_kernel"].names == (None, "model") and jnp.all(params["input_kernel"].value == 1)
    assert jnp.all(params["bias"] == 2) and jnp.all(params["recurrent_bias"] == 2)
    assert layer.apply({"params": {"cells_0": params}}, inputs()).shape == (B, T, H)


def test_carry_init():
    cell = layers.LSTMCell(H, carry_init=nn.initializers.normal(1.0))
    carry = cell.initialize_carry(jax.random.key(0), (B, D))
    assert jnp.std(carry.c) > 0.3 and not jnp.array_equal(carry.c, carry.h)
    with pytest.raises(ValueError, match="no state before its first token"):
        layers.PRLSTM(H).initialize_carry(B, jax.random.key(0), nn.initializers.ones_init())
