import dataclasses
import functools
import inspect

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from qlstm_jax import describe
from qlstm_jax import nnx as layers
from qlstm_jax.cells import CELLS, gru, lstm, pr_lstm
from qlstm_jax.nnx.dropout import applied
from tests.cells.cases import SMALL

B, T, D, H = 4, 6, 3, 5
LENGTHS = np.array([6, 0, 3, 1], np.int32)
CASES = {
    describe.config_name(functions): (
        getattr(layers, name),
        getattr(layers, describe.cell_class_name(name)),
        SMALL.get(describe.config_name(functions), {}),
    )
    for name, functions in CELLS.items()
}
each_case = pytest.mark.parametrize("case", CASES)
each_stack = pytest.mark.parametrize(
    ("case", "bidirectional"),
    [("rnn", False), ("lstm", False), ("ql_lstm", True), ("gru", True), ("pr_lstm", False), ("pr_lstm", True)],
)


def make_layer(case, **kwargs):
    layer, _, options = CASES[case]
    return layer(D, H, rngs=nnx.Rngs(1), **options, **kwargs)


def make_cell(case, **kwargs):
    _, cell, options = CASES[case]
    # A small stream compiles faster than one of 31 slots.
    options = {"max_length": T} if case == "pr_lstm" else options
    return cell(D, H, rngs=nnx.Rngs(2), **{**options, **kwargs})


def inputs(dtype=jnp.float32):
    return jax.random.normal(jax.random.key(0), (B, T, D), dtype)


def valid(lengths=LENGTHS):
    return np.arange(T)[None, :] < lengths[:, None]


def allclose(a, b, tolerance=2e-5):
    a, b = (jax.tree.map(lambda x: np.asarray(x, np.float64), tree) for tree in (a, b))
    chex.assert_trees_all_close(a, b, atol=tolerance, rtol=tolerance)


@nnx.jit
def read(layer, xs, lengths=None, rngs=None):
    return layer(xs, seq_lengths=lengths, rngs=rngs), layer.last(xs, seq_lengths=lengths, rngs=rngs)


@functools.cache
def stacked(case, bidirectional):
    """A stack of two, its outputs and their `last`, with lengths."""
    layer = make_layer(case, num_layers=2, bidirectional=bidirectional)
    return layer, *read(layer, inputs(), LENGTHS)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@each_case
def test_nnx_rnn_layer_and_functions_agree(case, dtype):
    cell, layer = make_cell(case, dtype=dtype), make_layer(case, dtype=dtype)
    graph, weights = nnx.split(cell)
    layer_graph, _ = nnx.split(layer)
    lengths, xs = np.array([6, 2, 3, 1], np.int32), inputs(dtype)

    def by_rnn(weights):
        carry, ys = nnx.RNN(nnx.merge(graph, weights))(xs, seq_lengths=lengths, return_carry=True)
        return carry, ys * valid(lengths)[:, :, None].astype(dtype)

    def by_layer(weights):
        layer = nnx.merge(layer_graph, nnx.State({"cells": {0: weights}}))
        return layer(xs, seq_lengths=lengths, return_carry=True)

    def by_functions(weights):
        return cell.functions.unroll(nnx.merge(graph, weights).params, xs, seq_lengths=lengths)

    run = jax.jit(lambda w: (by_rnn(w), by_layer(w), by_functions(w)))
    (carry_rnn, ys_rnn), (carry, ys), of_functions = run(weights)
    assert ys.dtype == ys_rnn.dtype == dtype and float(jnp.max(jnp.abs(ys))) > 0.1
    assert {leaf.dtype for leaf in jax.tree.leaves(weights)} == {jnp.dtype("float32")}
    tolerance = 1e-5 if dtype == jnp.float32 else 0.03
    allclose((carry, ys), of_functions, tolerance)
    if case == "pr_lstm":  # the streams differ in how many slots they have
        carry = carry._replace(slots=jax.tree.map(lambda a: a[:, :3], carry.slots))
    chex.assert_trees_all_equal_dtypes(carry, carry_rnn)
    allclose((ys, carry), (ys_rnn, carry_rnn), tolerance)


@pytest.mark.parametrize("case", ["gru", "ql_lstm", "pr_lstm"])
def test_gradients_of_nnx_rnn_and_layer_agree(case):
    xs = inputs()[:, :3]
    cell, layer = make_cell(case, **({"max_length": 3} if case == "pr_lstm" else {})), make_layer(case)
    nnx.update(layer.cells[0], nnx.state(cell))
    weight = jax.random.normal(jax.random.key(3), (B, 3, H))

    @nnx.jit
    def gradients(cell, layer):
        by_rnn = nnx.grad(lambda cell: jnp.sum(nnx.RNN(cell)(xs) * weight))(cell)
        return by_rnn, nnx.grad(lambda layer: jnp.sum(layer(xs) * weight))(layer)["cells"][0]

    by_rnn, by_layer = gradients(cell, layer)
    assert set(by_rnn) == set(by_layer) == set(nnx.state(cell))
    # Three tokens, in blocks of 2, write the memory once: from a memory of 0, where its kernel has no effect.
    assert all(jnp.any(g[...] != 0) for name, g in by_layer.items() if name != "memory_kernel")
    allclose(nnx.to_pure_dict(by_rnn), nnx.to_pure_dict(by_layer), 1e-4)


def reversed_rows(xs):
    index = np.tile(np.arange(T), (B, 1))
    for row, n in zip(index, LENGTHS, strict=True):
        row[:n] = row[:n][::-1].copy()
    return xs[np.arange(B)[:, None], index]


@each_stack
def test_stack_is_its_cells_one_after_the_other(case, bidirectional):
    layer, ys, _ = stacked(case, bidirectional)
    unroll = functools.partial(layer.cells[0].functions.unroll, seq_lengths=LENGTHS)

    @jax.jit
    def by_hand(forward, backward, xs):
        for number, params in enumerate(forward):
            _, ahead = unroll(params, xs)
            if backward:
                _, back = unroll(backward[number], reversed_rows(xs))
                ahead = jnp.concatenate([ahead, reversed_rows(back)], axis=-1)
            xs = ahead
        return xs

    backward = [cell.params for cell in layer.backward_cells] if bidirectional else []
    allclose(ys, by_hand([cell.params for cell in layer.cells], backward, inputs()))
    assert ys.shape[2] == layer.output_size == (2 * H if bidirectional else H)


@each_stack
def test_last_is_the_output_at_the_last_valid_position(case, bidirectional):
    _, ys, last = stacked(case, bidirectional)
    ys, some = np.array(ys), (LENGTHS > 0)[:, None]
    expected = ys[np.arange(B), np.maximum(LENGTHS - 1, 0)] * some
    if bidirectional:
        expected[:, H:] = ys[:, 0, H:] * some
    allclose(last, expected)
    assert not np.any(last[1]) and np.all(last[0] != 0)


@pytest.mark.parametrize("case", ["gru", "pr_lstm"])
def test_last_without_lengths(case):
    layer = make_layer(case)
    ys, last = read(layer, inputs())
    allclose(last, ys[:, -1])
    empty = layer.last(jnp.zeros((B, 0, D)))
    assert empty.shape == (B, H) and not jnp.any(empty)


@each_stack
def test_padding_has_no_influence(case, bidirectional):
    layer, ys, last = stacked(case, bidirectional)
    other = jnp.where(valid()[:, :, None], inputs(), jnp.nan)
    chex.assert_trees_all_equal(read(layer, other, LENGTHS), (ys, last))
    assert not np.any(np.array(ys)[~valid()])


@each_stack
def test_split_and_merge(case, bidirectional):
    layer, ys, last = stacked(case, bidirectional)
    graph, state = nnx.split(layer)
    assert hash(graph) == hash(nnx.split(make_layer(case, num_layers=2, bidirectional=bidirectional))[0])
    chex.assert_trees_all_equal(read(nnx.merge(graph, state), inputs(), LENGTHS), (ys, last))
    chex.assert_trees_all_equal(nnx.merge(graph, state).cells[1].params, layer.cells[1].params)


@pytest.mark.parametrize("case", ["lstm", "ql_lstm", "pr_lstm"])
def test_continues_from_a_carry(case):
    layer = make_layer(case, num_layers=2)
    resume = nnx.jit(lambda layer, xs, carry: layer(xs, initial_carry=carry, return_carry=True))
    whole, _ = read(layer, inputs(), np.full(B, T, np.int32))
    carry = layer.initialize_carry(B, **({"max_length": T} if case == "pr_lstm" else {}))
    carry, first = resume(layer, inputs()[:, : T // 2], carry)
    assert len(carry) == 2 and all(isinstance(c, layer.cell_class.functions.Carry) for c in carry)
    _, second = resume(layer, inputs()[:, T // 2 :], carry)
    allclose(jnp.concatenate([first, second], axis=1), whole)


def test_dropout_lies_between_layers_only():
    layer = make_layer("lstm", num_layers=3, dropout=0.5)

    @jax.jit
    def by_hand(all_params, xs, key):
        rngs, mask = nnx.Rngs(key), nnx.Dropout(0.5)
        for number, params in enumerate(all_params):
            xs = mask(xs, rngs=rngs) if number else xs
            _, xs = layer.cells[0].functions.unroll(params, xs)
        return xs

    key = jax.random.key(5)
    expected = by_hand([cell.params for cell in layer.cells], inputs(), key)
    ys, last = read(layer, inputs(), None, key)
    allclose((ys, last), (expected, expected[:, -1]))
    allclose(layer(inputs(), rngs=nnx.Rngs(key)), expected)


def test_dropout_follows_train_and_eval():
    layer, plain = make_layer("rnn", num_layers=2, dropout=0.5), make_layer("rnn", num_layers=2)
    nnx.update(plain, nnx.state(layer, nnx.Param))
    expected, _ = read(plain, inputs())
    layer.train()
    first, second = read(layer, inputs())[0], read(layer, inputs())[0]
    assert jnp.max(jnp.abs(first - second)) > 0.01  # the layer's own stream moves on
    by_key = [read(layer, inputs(), None, jax.random.key(n))[0] for n in (0, 1, 0)]
    assert jnp.max(jnp.abs(by_key[0] - by_key[1])) > 0.01
    chex.assert_trees_all_equal(by_key[0], by_key[2])
    allclose(layer(inputs(), deterministic=True), expected)
    layer.eval()
    allclose(read(layer, inputs())[0], expected)
    assert jnp.max(jnp.abs(layer.last(inputs(), deterministic=False) - expected[:, -1])) > 0.01


def test_dropout_of_one_layer_is_reported():
    with pytest.warns(UserWarning, match="between layers"):
        make_layer("rnn", dropout=0.5)


def count(module):
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))


@each_case
def test_parameters_are_named_as_the_fields(case):
    cell = make_cell(case)
    arrays = {f.name for f in dataclasses.fields(cell.params) if isinstance(getattr(cell.params, f.name), jax.Array)}
    assert set(nnx.state(cell, nnx.Param)) == set(nnx.state(cell)) == arrays


@each_case
def test_param_dtype(case):
    cell = make_cell(case, param_dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(cell))} == {jnp.dtype("bfloat16")}
    assert cell.params.dtype == "float32"


def test_parameters_that_an_option_leaves_out():
    cell = layers.QLSTMCell(D, H, sharing="none", skip=False, rngs=nnx.Rngs(0))
    assert set(nnx.state(cell)) == {"input_kernel", "recurrent_kernel", "gate_bias"}
    assert cell.params.gate_scale is None and cell.params.sharing == "none" and not cell.params.skip


def test_options_reach_the_cell():
    params = layers.QLSTM(D, H, sharing="gates", block_size=4, epsilon=2, rngs=nnx.Rngs(0)).cells[0].params
    assert (params.sharing, params.block_size, params.epsilon, params.skip) == ("gates", 4, 2.0, True)
    params = layers.PRLSTM(D, H, refinements=2, cell="rnn", rngs=nnx.Rngs(0)).cells[0].params
    assert params.cell == "rnn" and params.refine_kernel.shape == (2, H, H)


def test_parameter_counts():
    assert count(layers.QLSTM(H, H, rngs=nnx.Rngs(0))) == 4 * H**2 + 13 * H
    assert count(layers.LSTM(H, H, rngs=nnx.Rngs(0))) == 8 * H**2 + 4 * H
    assert count(layers.PRLSTM(3, 256, rngs=nnx.Rngs(0))) == 923_394 - 514  # the paper's, less a readout to 2 classes


def test_nnx_rnn_with_other_batch_axes():
    cell, xs = make_cell("gru"), inputs()
    run = nnx.jit(lambda cell, xs: [nnx.RNN(cell)(x) for x in (xs, xs[0], xs.reshape(2, 2, T, D))])
    expected, one, four = run(cell, xs)
    allclose((one, four), (expected[0], expected.reshape(2, 2, T, H)))


@pytest.mark.parametrize("case", ["ql_lstm", "pr_lstm"])
def test_step_with_other_batch_axes(case):
    def run(cell, xs):
        return [cell(cell.initialize_carry(x.shape), x) for x in (xs, xs[0], xs.reshape(2, 2, D))]

    (carry, y), one, four = nnx.jit(run)(make_cell(case), inputs()[:, 0])
    allclose(one, jax.tree.map(lambda a: a[0], (carry, y)))
    allclose(four, jax.tree.map(lambda a: a.reshape(2, 2, *a.shape[1:]), (carry, y)))


@pytest.mark.parametrize("merge", ["ldru", "grc"])
def test_a_merge_has_parameters_of_its_own(merge):
    layer, xs = make_layer("pr_lstm", cell=merge), inputs()
    params = layer.cells[0].params
    names = {path[-1] for path, _ in nnx.to_flat_state(nnx.state(layer, nnx.Param))}
    assert names == {name for name, a in vars(params).items() if isinstance(a, jax.Array)} > {"gate_kernel"}
    unroll, last = (jax.jit(functools.partial(f, seq_lengths=LENGTHS)) for f in (pr_lstm.unroll, pr_lstm.last))
    allclose(read(layer, xs, LENGTHS), (unroll(params, xs)[1], last(params, xs)))


def test_max_length_sets_the_size_of_a_stream():
    cell = layers.PRLSTMCell(D, H, max_length=12, rngs=nnx.Rngs(0))
    assert cell.initialize_carry((B, D)).slots.h.shape == (B, 4, H)
    carry = layers.PRLSTM(D, H, rngs=nnx.Rngs(0)).initialize_carry(B)
    assert carry.slots.h.shape == (B, pr_lstm.MAX_SLOTS, H)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_layers": 0}, "num_layers is 0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"hidden_features": -1}, "hidden_features is -1"),
        ({"sharing": "some"}, "sharing is 'some'"),
        ({"block_size": 0}, "block_size is 0"),
    ],
)
def test_options_out_of_range(kwargs, message):
    with pytest.raises(ValueError, match=message):
        layers.QLSTM(D, **{"hidden_features": H, "rngs": nnx.Rngs(0), **kwargs})


def test_unknown_option():
    with pytest.raises(TypeError, match="SimpleRNN has no option block_size; expected none"):
        layers.SimpleRNN(D, H, block_size=3, rngs=nnx.Rngs(0))
    with pytest.raises(TypeError, match="LSTM has no option block_size; expected chrono"):
        layers.LSTM(D, H, block_size=3, rngs=nnx.Rngs(0))
    with pytest.raises(TypeError, match="QLSTMCell has no option block; expected sharing, num_heads, block_size"):
        layers.QLSTMCell(D, H, block=3, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="max_length is 0"):
        layers.PRLSTMCell(D, H, max_length=0, rngs=nnx.Rngs(0))


def test_cell_refuses_what_does_not_fit():
    cell = make_cell("gru")
    carry = cell.initialize_carry((B, D))
    with pytest.raises(ValueError, match=r"expected \(..., 3\)"):
        cell(carry, jnp.zeros((B, D + 1)))
    with pytest.raises(ValueError, match="batch of the input"):
        cell(carry, jnp.zeros((B + 1, D)))
    with pytest.raises(ValueError, match=r"expected qlstm_jax.cells.gru.Carry"):
        cell((carry,), jnp.zeros((B, D)))
    with pytest.raises(ValueError, match="carry_init is given and rngs is None"):
        cell.initialize_carry((B, D), carry_init=nnx.initializers.ones_init())
    with pytest.raises(ValueError, match="no state before its first token"):
        make_cell("pr_lstm").initialize_carry((B, D), nnx.Rngs(0), nnx.initializers.ones_init())


def test_layer_refuses_what_does_not_fit():
    layer, xs = make_layer("gru"), inputs()
    with pytest.raises(ValueError, match=r"expected \(\*batch, time, 3\)"):
        layer(xs[:, :, :2])
    with pytest.raises(ValueError, match=r"expected 0\.\.6"):
        layer.last(xs, seq_lengths=LENGTHS + 1)
    with pytest.raises(ValueError, match="a tuple of 2"):
        make_layer("gru", num_layers=2)(xs, initial_carry=gru.Carry(h=jnp.zeros((B, H))))
    with pytest.raises(ValueError, match=r"expected qlstm_jax.cells.gru.Carry"):
        layer(xs, initial_carry=lstm.Carry(c=jnp.zeros((B, H)), h=jnp.zeros((B, H))))
    with pytest.raises(ValueError, match=r"seq_lengths has shape \(2,\); expected \(4,\)"):
        layer(xs, seq_lengths=LENGTHS[:2])
    with pytest.raises(ValueError, match="batch of the input"):
        layer(xs, initial_carry=layer.initialize_carry(B + 1))


def test_bidirectional_has_no_carry():
    layer = make_layer("gru", bidirectional=True)
    carry = make_layer("gru").initialize_carry(B)
    for use in (
        lambda: layer(inputs(), initial_carry=carry),
        lambda: layer(inputs(), return_carry=True),
        lambda: layer.initialize_carry(B),
    ):
        with pytest.raises(ValueError, match="bidirectional layer has no carry"):
            use()


def test_variational_dropout_drops_the_same_channels_at_all_positions():
    xs = jnp.ones((2, 5, 3))
    seen = []
    for variational in (True, False):
        layer = make_layer("rnn", num_layers=2, dropout=0.5, variational=variational)
        layer.train()
        seen.append(np.asarray(applied(layer.dropout, None, jax.random.key(0))(jnp.ones((2, 5, 64)))))
        assert layer(xs, rngs=nnx.Rngs(dropout=0)).shape[:2] == (2, 5)
    assert set(np.unique(seen[0])) == {0, 2}
    np.testing.assert_array_equal(seen[0], np.broadcast_to(seen[0][:, :1], seen[0].shape))
    assert not np.array_equal(seen[1], np.broadcast_to(seen[1][:, :1], seen[1].shape))
    assert not np.array_equal(seen[0][0], seen[0][1])


def flax_layer(case):
    """Flax's own cell of the same equations, in Flax's RNN."""
    cell = {"lstm": nnx.OptimizedLSTMCell, "gru": nnx.GRUCell, "rnn": nnx.SimpleCell}[case]
    return nnx.RNN(cell(D, H, rngs=nnx.Rngs(2)), rngs=nnx.Rngs(3))


@pytest.mark.parametrize("case", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize(
    "call",
    [{}, {"time_major": True}, {"reverse": True}, {"reverse": True, "keep_order": True}],
    ids=lambda call: "-".join(call) or "plain",
)
def test_a_layer_is_called_as_flax_rnn(case, call):
    """The same arguments give outputs and carries of the same shapes and order, here of the same cell in nnx.RNN."""
    layer, lengths = make_layer(case), np.array([6, 2, 3, 1], np.int32)
    xs = inputs().swapaxes(0, 1) if "time_major" in call else inputs()
    start = jax.tree.map(lambda a: a + 0.5, layer.initialize_carry(B))

    @nnx.jit
    def run(layer):
        options = {"initial_carry": start, "seq_lengths": lengths, "return_carry": True, **call}
        return layer(xs, **options), nnx.RNN(layer.cells[0], rngs=nnx.Rngs(0))(xs, **options)

    (carry, ys), (expected_carry, expected) = run(layer)
    axes = valid(lengths).T if "time_major" in call else valid(lengths)
    allclose((carry, ys), (expected_carry, expected * axes[:, :, None]))


@pytest.mark.parametrize(("case", "plain"), [("lstm", 2), ("gru", 1), ("rnn", 1)])
def test_flax_carries_are_taken(case, plain):
    """Flax's LSTM carries (c, h), its GRU and simple cell h."""
    layer, carry = make_layer(case), [jnp.full((B, H), 0.3), jnp.full((B, H), -0.2)][:plain]
    theirs = flax_layer(case)(inputs(), initial_carry=tuple(carry) if plain == 2 else carry[0], return_carry=True)
    given = tuple(carry) if plain == 2 else carry[0]
    ours = layer(inputs(), initial_carry=given, return_carry=True)
    assert jax.tree.map(jnp.shape, jax.tree.leaves(ours)) == jax.tree.map(jnp.shape, jax.tree.leaves(theirs))
    assert type(ours[0]) is type(theirs[0])
    named, ys = layer(inputs(), initial_carry=layer.functions.Carry(*carry), return_carry=True)
    allclose(ours, (tuple(named) if plain == 2 else named.h, ys))


@pytest.mark.parametrize("case", ["lstm", "ql_lstm", "pr_lstm"])
def test_a_layer_with_other_batch_axes(case):
    layer = make_layer(case)

    @nnx.jit
    def run(layer, xs, lengths):
        return layer(xs, return_carry=True, seq_lengths=lengths), layer.last(xs, seq_lengths=lengths)

    expected = run(layer, inputs(), LENGTHS)
    for axes in ((2, 2), (2, 1, 2)):
        shape = lambda a, axes=axes: a.reshape(*axes, *a.shape[1:])  # noqa: E731
        allclose(run(layer, shape(inputs()), shape(LENGTHS)), jax.tree.map(shape, expected))
    one, all_rows = nnx.jit(lambda layer, xs: (layer(xs[0]), layer(xs)))(layer, inputs())
    allclose(one, all_rows[0])


def test_initializers_and_metadata():
    ones = nnx.initializers.ones_init()
    layer = layers.QLSTM(
        D, H, kernel_init=ones, recurrent_kernel_init=nnx.initializers.zeros_init(), bias_init=ones, rngs=nnx.Rngs(0)
    )
    cell = layer.cells[0]
    assert jnp.all(cell.input_kernel[...] == 1) and jnp.all(cell.summary_kernel[...] == 1)
    assert not jnp.any(cell.recurrent_kernel[...]) and not jnp.any(cell.memory_kernel[...])
    assert jnp.all(cell.gate_bias[...] == 1) and jnp.any(cell.gate_scale[...] != 1)
    labelled = layers.LSTM(D, H, kernel_metadata={"label": "in"}, bias_metadata={"label": "b"}, rngs=nnx.Rngs(0)).cells[
        0
    ]
    assert (labelled.input_kernel.label, labelled.bias.label) == ("in", "b")


def test_partitioned_initializers():
    mesh = jax.make_mesh((1,), ("model",), axis_types=(jax.sharding.AxisType.Auto,))
    init = nnx.with_partitioning(nnx.initializers.lecun_normal(), (None, "model"))
    with jax.set_mesh(mesh):
        layer = layers.LSTM(D, H, kernel_init=init, rngs=nnx.Rngs(0))
        assert layer.cells[0].input_kernel.sharding.spec == jax.sharding.PartitionSpec(None, "model")
        assert layer(inputs()).shape == (B, T, H)


def test_carry_init_draws_the_carry():
    carry = make_layer("lstm").initialize_carry(B, nnx.Rngs(0), nnx.initializers.normal(1.0))
    assert carry.c.shape == (B, H) and jnp.std(carry.c) > 0.3 and not jnp.array_equal(carry.c, carry.h)
    start = make_layer("ql_lstm").initialize_carry(B, jax.random.key(0), nnx.initializers.ones_init())
    assert jnp.all(start.memory == 1) and not jnp.any(start.position)


def test_help_shows_the_options():
    """Of a class in a notebook or an editor: its signature and its documentation have the cell's options."""
    signature = inspect.signature(layers.QLSTM)
    assert signature.parameters["block_size"].default == 32 and list(signature.parameters)[:2] == [
        "in_features",
        "hidden_features",
    ]
    assert "tokens a block" in layers.QLSTM.__doc__ and "num_layers" in layers.QLSTM.__doc__
    assert "max_length" in inspect.signature(layers.PRLSTMCell).parameters
    assert "seq_lengths" in inspect.signature(make_layer("lstm").__call__).parameters
    assert "block_size" not in inspect.signature(make_layer("ql_lstm")).parameters


def test_every_cell_has_its_classes():
    for name, functions in CELLS.items():
        layer = getattr(layers, name)
        assert layers.LAYERS[name] is layer and layer.functions is functions
        assert layer.cell_class is getattr(layers, describe.cell_class_name(name))
        assert layer.__module__ == layer.cell_class.__module__ == "qlstm_jax.nnx"
        assert isinstance(make_layer(describe.config_name(functions)), layers.SequenceLayer)
