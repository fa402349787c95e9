"""Keras's layers and Equinox's cells: against numbers that they gave; neither need be installed."""

import types

import chex
import numpy as np
import pytest

from qlstm_jax import interop
from tests.interop.peers import EQUINOX, KERAS, from_keras

D, H = 3, 4


def read(goldens, name, case):
    """(inputs, outputs, weights by the rest of their name)."""
    golden = np.load(goldens / f"{name}_rnn.npz")
    start = f"{case}/"
    weights = {key[len(start) :]: golden[key] for key in golden.files if key.startswith(start)}
    return golden["x"], weights.pop("y"), weights


@pytest.mark.parametrize("case", list(KERAS))
def test_numbers_of_keras(goldens, case):
    xs, ys, arrays = read(goldens, "keras", case)
    name, (_, options, both) = case.partition("/")[0], KERAS[case]
    weights = [arrays[str(n)] for n in range(len(arrays))]
    layer = from_keras(name, weights, both)
    np.testing.assert_allclose(layer(xs), ys, rtol=2e-6, atol=2e-6)
    write, bias = getattr(interop, f"{name}_to_keras"), options.get("use_bias", True)
    back = [a for params in layer.layer_params()[0] for a in write(params, bias=bias)]
    assert [a.shape for a in back] == [a.shape for a in weights]
    chex.assert_trees_all_equal([a for a in back if a.shape[0] in (D, H)], [a for a in weights if a.shape[0] in (D, H)])
    chex.assert_trees_all_equal(from_keras(name, back, both).layer_params(), layer.layer_params())


@pytest.mark.parametrize("case", list(EQUINOX))
def test_numbers_of_equinox(goldens, case):
    xs, ys, weights = read(goldens, "equinox", case)
    name, use_bias = case.partition("/")[0], "bias" in weights
    cell = types.SimpleNamespace(**{"bias": None, "bias_n": None} | weights)
    params = getattr(interop, f"{name}_from_equinox")(cell)
    np.testing.assert_allclose(interop.to_layer(params)(xs), ys, rtol=2e-6, atol=2e-6)
    chex.assert_trees_all_equal(getattr(interop, f"{name}_to_equinox")(params, bias=use_bias), weights)


def weights_of_keras(gates=4, bias=None):
    shapes = (D, gates * H), (H, gates * H), bias or (gates * H,)
    return [np.full(shape, 0.5, np.float32) for shape in shapes]


def test_a_gru_of_keras_with_its_reset_before_the_product_is_refused():
    for weights, options in (
        (weights_of_keras(3), {}),
        (weights_of_keras(3)[:2], {"reset_after": False}),
        (weights_of_keras(3)[:2], {"config": {"reset_after": False}}),
    ):
        with pytest.raises(ValueError, match=r"reset_after=False, whose reset gate .* expected reset_after=True"):
            interop.gru_from_keras(weights, **options)


def test_functions_of_keras_that_our_cells_lack_are_named():
    config = {"activation": "tanh", "recurrent_activation": "hard_sigmoid", "reset_after": True}
    with pytest.raises(ValueError, match="tion of the Keras LSTM is 'hard_sigmoid'; expected 'sigmoid'"):
        interop.lstm_from_keras(weights_of_keras(), config=config)
    with pytest.raises(ValueError, match="recurrent_activation of the Keras GRU is 'hard_sigmoid'"):
        interop.gru_from_keras(weights_of_keras(3, (2, 3 * H)), config=config)
    with pytest.raises(ValueError, match="activation of the Keras SimpleRNN is 'relu'; expected 'tanh'"):
        interop.rnn_from_keras(weights_of_keras(1), config={"activation": "relu"})
    interop.lstm_from_keras(weights_of_keras(), config=config | {"recurrent_activation": "sigmoid"})


def test_errors_list_every_array():
    with pytest.raises(ValueError, match=r"a Keras LSTM\. missing: recurrent_kernel$"):
        interop.lstm_from_keras(weights_of_keras()[:1])
    with pytest.raises(
        ValueError, match=r"Keras LSTM\. unexpected: array 3; .*kernel is \(3, 12\), expected \(3, 16\)"
    ):
        interop.lstm_from_keras([*weights_of_keras(3), np.zeros(1)])
    with pytest.raises(ValueError, match=r"Equinox GRUCell\. missing: bias_n; .*: weight_ih is \(16, 3\), expected"):
        interop.gru_from_equinox(
            {"weight_ih": np.zeros((4 * H, D)), "weight_hh": np.zeros((3 * H, H)), "bias": np.zeros(3 * H)}
        )


def test_biases_that_are_not_zero_are_not_left_out():
    lstm, gru = interop.lstm_from_keras(weights_of_keras()), interop.gru_from_keras(weights_of_keras(3, (2, 3 * H)))
    for write, params in ((interop.lstm_to_keras, lstm), (interop.gru_to_keras, gru)):
        with pytest.raises(ValueError, match="bias is False, but the bias of the params is not zero"):
            write(params, bias=False)
    for write, params in ((interop.lstm_to_equinox, lstm), (interop.gru_to_equinox, gru)):
        with pytest.raises(ValueError, match="bias is False, but the array for bias is not zero"):
            write(params, bias=False)
