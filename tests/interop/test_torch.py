"""PyTorch's recurrent modules: against numbers that it gave, and its equations; it need not be installed."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from qlstm_jax import interop
from qlstm_jax.cells import gru, lstm, rnn
from qlstm_jax.nnx import GRU, LSTM
from tests.interop.peers import TORCH

D, H = 3, 4
CELLS = {"lstm": lstm, "gru": gru, "rnn": rnn}
EACH_CELL = pytest.mark.parametrize("name", list(CELLS))


def from_torch(name):
    return getattr(interop, f"{name}_from_torch")


def to_torch(name):
    return getattr(interop, f"{name}_to_torch")


def layer_from_torch(name):
    return getattr(interop, f"{name}_layer_from_torch")


def drawn(name, layer="_l0", prefix="", inputs=D, seed=3):
    """Random weights by PyTorch's names."""
    rows, rng = {"lstm": 4, "gru": 3, "rnn": 1}[name] * H, np.random.default_rng(seed)
    shapes = {"weight_ih": (rows, inputs), "weight_hh": (rows, H), "bias_ih": (rows,), "bias_hh": (rows,)}
    return {f"{prefix}{k}{layer}": rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}


@pytest.fixture(scope="module")
def golden(goldens):
    return dict(np.load(goldens / "torch_rnn.npz"))


def part(golden, case):
    start = f"{case}/sd/"
    return {name[len(start) :]: a for name, a in golden.items() if name.startswith(start)}


@pytest.mark.parametrize("case", list(TORCH))
def test_numbers_of_pytorch(golden, case):
    name, state = case.partition("/")[0], part(golden, case)
    is_cell = "weight_ih" in state
    layer = interop.to_layer(from_torch(name)(state, layer=None)) if is_cell else layer_from_torch(name)(state)
    np.testing.assert_allclose(layer(golden["x"]), golden[f"{case}/y"], rtol=2e-6, atol=2e-6)
    # Back: the names and shapes of the state dict, and a module with the same outputs.
    if is_cell:
        back = to_torch(name)(layer.cells[0].params, layer=None)
    else:
        back = to_torch(name)(layer, bias=any("bias" in key for key in state))
    assert {key: a.shape for key, a in back.items()} == {key: a.shape for key, a in state.items()}
    for key in state:
        if "weight" in key:
            np.testing.assert_array_equal(back[key], state[key])
    again = interop.to_layer(from_torch(name)(back, layer=None)) if is_cell else layer_from_torch(name)(back)
    chex.assert_trees_all_equal(nnx.state(again), nnx.state(layer))


def test_a_whole_layer_is_of_its_class_and_size(golden):
    layer = interop.gru_layer_from_torch(part(golden, "gru/stack"), dropout=0.5)
    assert isinstance(layer, GRU) and layer.bidirectional and layer.output_size == 2 * H
    assert len(layer.cells) == 2 and layer.dropout.rate == 0.5


@EACH_CELL
def test_params_go_to_a_chosen_place_and_back(name):
    params = CELLS[name].init(jax.random.key(0), D, H)
    params = jax.tree.map(lambda a: jax.random.normal(jax.random.key(a.size), a.shape), params)
    place = {"layer": 2, "reverse": True, "prefix": "a."}
    state = to_torch(name)(params, **place)
    assert set(state) == set(drawn(name, "_l2_reverse", "a."))
    others = drawn(name, "_l2", "a.") | drawn(name, "_l2_reverse") | {"a.head.weight": np.zeros(1)}
    chex.assert_trees_all_equal(from_torch(name)(others | state, **place), params)
    assert from_torch(name)(state, **place, dtype="bfloat16").dtype == "bfloat16"


class Tensor:
    """What is asked of a PyTorch tensor: one in bfloat16 that wants gradients refuses numpy as PyTorch's does."""

    class dtype:
        is_floating_point = True

        def __repr__(self):
            return "torch.bfloat16"

    dtype = dtype()

    def __init__(self, array, wants_gradient=True):
        self.array, self.wants_gradient, self.shape = np.asarray(array, jnp.bfloat16), wants_gradient, np.shape(array)

    def __array__(self, *args, **kwargs):
        raise TypeError("Got unsupported ScalarType BFloat16")

    def detach(self):
        return Tensor(self.array, wants_gradient=False)

    def cpu(self):
        return self

    def float(self):
        assert not self.wants_gradient
        return self

    def numpy(self):
        return self.array.astype(np.float32)


@EACH_CELL
def test_bfloat16_tensors_that_want_gradients(name):
    state = drawn(name)
    params = from_torch(name)({key: Tensor(a) for key, a in state.items()})
    assert {a.dtype for a in jax.tree.leaves(params)} == {jnp.dtype("bfloat16")}
    np.testing.assert_array_equal(params.input_kernel, state["weight_ih_l0"].T.astype(jnp.bfloat16))
    wide = from_torch(name)({key: Tensor(a) for key, a in state.items()}, param_dtype="float32")
    rounded = {key: a.astype(jnp.bfloat16).astype(np.float32) for key, a in state.items()}
    chex.assert_trees_all_equal(wide, from_torch(name)(rounded))
    back = to_torch(name)(params)
    assert {a.dtype for a in back.values()} == {np.dtype("float32")}
    np.testing.assert_array_equal(back["weight_hh_l0"], rounded["weight_hh_l0"])


def test_no_memory_is_shared():
    """Training on either side leaves the other as it is."""
    state = drawn("lstm")
    params = interop.lstm_from_torch(state)
    layer = interop.to_layer(params)
    before = np.array(params.recurrent_kernel)
    for array in state.values():
        array[:] = 0
    for array in interop.lstm_to_torch(layer).values():
        array[:] = 0
    np.testing.assert_array_equal(params.recurrent_kernel, before)
    np.testing.assert_array_equal(layer.cells[0].recurrent_kernel[...], before)


def test_weights_that_are_no_floats_are_named():
    state = drawn("lstm") | {"weight_hh_l0": np.zeros((4 * H, H), np.int8)}
    with pytest.raises(ValueError, match="weight_hh_l0 is an array of int8; expected floating-point numbers"):
        interop.lstm_from_torch(state)


def test_errors_list_every_name():
    state = drawn("lstm")
    del state["bias_hh_l0"]
    state["weight_ih_l0"] = np.zeros((3 * H, D))
    with pytest.raises(ValueError, match="layer 0 of a PyTorch LSTM") as error:
        interop.lstm_from_torch(state)
    assert "missing: bias_hh_l0" in str(error.value)
    assert f"weight_ih_l0 is ({3 * H}, {D}), expected ({4 * H}, {D})" in str(error.value)
    with pytest.raises(ValueError, match="weight_hr_l0 belongs to an LSTM with proj_size"):
        interop.lstm_from_torch(drawn("lstm") | {"weight_hr_l0": np.zeros((2, H))})
    with pytest.raises(ValueError, match=r"weight_ih_l0 is \(12, 3\), expected \(16, 3\)"):
        interop.lstm_from_torch(drawn("gru"))
    with pytest.raises(ValueError, match=r"layer 1 of a PyTorch GRU.*missing: weight_hh_l1, weight_ih_l1"):
        interop.gru_layer_from_torch(drawn("gru") | drawn("gru", "_l2", inputs=H))


@pytest.mark.parametrize(
    ("state", "place", "message"),
    [
        (
            drawn("lstm", prefix="net."),
            {},
            "missing: weight_hh_l0, weight_ih_l0. What is there: prefix='net.', layer=0",
        ),
        (
            drawn("lstm"),
            {"prefix": "rnn.", "layer": 3},
            "missing: rnn.weight_hh_l3, rnn.weight_ih_l3. What is there: prefix='', layer=0",
        ),
        (
            drawn("lstm", prefix="a.") | drawn("lstm", "_l1_reverse", prefix="a.") | drawn("lstm", "", prefix="b."),
            {},
            "What is there: prefix='a.', layer=0, 1 with reverse; prefix='b.', layer=None",
        ),
        ({"head.weight": np.zeros(1)}, {}, "No name there ends as weight_ih_l0 does"),
    ],
)
def test_a_wrong_prefix_is_named_with_those_that_are_there(state, place, message):
    with pytest.raises(ValueError) as error:
        interop.lstm_from_torch(state, **place)
    assert str(error.value).endswith(message)
    if "layer" not in place:
        with pytest.raises(ValueError) as error:
            interop.lstm_layer_from_torch(state, **place)
        assert str(error.value).endswith(message)


def test_what_our_cells_lack_is_refused():
    for read in (interop.rnn_from_torch, interop.rnn_layer_from_torch):
        with pytest.raises(ValueError, match="nonlinearity is 'relu'; expected 'tanh'"):
            read(drawn("rnn"), nonlinearity="relu")
    layer = interop.lstm_layer_from_torch(drawn("lstm"))
    with pytest.raises(ValueError, match="bias is False, but the bias for bias_ih_l0 is not zero"):
        interop.lstm_to_torch(layer, bias=False)
    with pytest.raises(ValueError, match="layer is 1 and reverse False; leave both out, as all layers of an LSTM"):
        interop.lstm_to_torch(layer, layer=1)
    for weights in (layer, layer.cells[0].params):
        with pytest.raises(ValueError, match=r"expected params or a layer of qlstm_jax\.cells\.gru"):
            interop.gru_to_torch(weights)


def test_params_become_cells_and_layers():
    params = interop.lstm_from_torch(drawn("lstm", ""), layer=None, dtype="bfloat16")
    chex.assert_trees_all_equal(interop.to_cell(params).params, params)
    scanned = dataclasses.replace(params, implementation="scan")
    chex.assert_trees_all_equal(interop.to_cell(scanned).params, scanned)
    chex.assert_trees_all_equal(interop.to_layer(scanned).layer_params(), [(scanned,)])
    layer = interop.to_layer(params)
    assert isinstance(layer, LSTM)
    chex.assert_trees_all_equal(layer.layer_params(), [(params,)])
    upper = interop.lstm_from_torch(drawn("lstm", inputs=H), dtype="bfloat16")
    chex.assert_trees_all_equal(interop.to_layer([params, upper]).layer_params(), [(params,), (upper,)])


def test_params_that_make_no_layer_are_named():
    params, other = interop.lstm_from_torch(drawn("lstm")), interop.gru_from_torch(drawn("gru", inputs=H))
    with pytest.raises(
        ValueError, match=r"params are qlstm_jax\.cells\.lstm, qlstm_jax\.cells\.gru; expected params of"
    ):
        interop.to_layer([params, other])
    with pytest.raises(ValueError, match=r"hidden features\) \[\(1, 3, 4\), \(1, 3, 4\)\]; expected .*\(1, 4, 4\)\]"):
        interop.to_layer([params, params])
    with pytest.raises(ValueError, match="params are none; expected"):
        interop.to_layer([])
    with pytest.raises(ValueError, match=r"expected those of qlstm_jax\.cells\.lstm, gru or rnn"):
        interop.to_cell(7)
