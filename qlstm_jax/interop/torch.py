"""Weights from and to `torch.nn.LSTM`, `GRU`, `RNN` and their Cells, which keep kernels as (out, in) and two biases.

A state dict is a mapping from name to array; the arrays may be PyTorch tensors (bfloat16 ones and those that want
gradients too), but PyTorch is not needed. For a layer or cell of ours in one call:

    layer = lstm_layer_from_torch(net.state_dict())             # nnx.LSTM; any number of layers, one or both directions
    cell = to_cell(lstm_from_torch(cell.state_dict(), layer=None))              # nnx.LSTMCell of a torch.nn.LSTMCell
    net.load_state_dict({name: torch.from_numpy(a) for name, a in lstm_to_torch(layer).items()})

Both sides order the gates i, f, g, o in an LSTM and r, z, n in a GRU. Our params have one bias where PyTorch adds two;
in a GRU b_hn stays apart:

    W = weight_ih^T,  U = weight_hh^T,  b = bias_ih + bias_hh,  GRU: b = bias_ih + [b_hr, b_hz, 0], b_n = b_hn

A state dict has no record of `batch_first` (our layers are batch-major; `time_major` is an argument of their call), of
the dropout between layers, nor of an RNN's nonlinearity.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jax.typing import DTypeLike
from numpy.typing import ArrayLike

from qlstm_jax.cells import gru, lstm, rnn
from qlstm_jax.interop import state_dicts
from qlstm_jax.interop.layers import to_layer
from qlstm_jax.interop.state_dicts import StateDict
from qlstm_jax.nnx import GRU, LSTM, SimpleRNN


def lstm_from_torch(
    state_dict: Mapping[str, ArrayLike],
    *,
    layer: int | None = 0,
    reverse: bool = False,
    prefix: str = "",
    dtype: DTypeLike = "float32",
    param_dtype: DTypeLike | None = None,
) -> lstm.Params:
    """Parameters of `qlstm_jax.cells.lstm` from one layer and direction of a `torch.nn.LSTM`, or from an `LSTMCell`.

    Args:
        state_dict: mapping from name to array: weight_ih_l0 (4H, D), weight_hh_l0 (4H, H), bias_ih_l0 and bias_hh_l0
            (4H,). A layer made with bias=False has neither bias and gets zeros. Other names are ignored, as a model has
            more than one layer.
        layer: which layer; None for a Cell, whose names have no number.
        reverse: whether its backward direction is meant.
        prefix: the beginning of each name, "encoder." for instance.
        dtype: of the cell's activations and products.
        param_dtype: of the stored weights; None for that of the state dict.

    Raises:
        ValueError: that lists every name missing or of another shape, and the prefixes that there are; for one with
            proj_size, which this cell lacks.
    """
    return lstm.Params(
        **state_dicts.fields(state_dicts.LSTM, state_dict, layer, reverse, prefix, param_dtype), dtype=_name(dtype)
    )


def gru_from_torch(
    state_dict: Mapping[str, ArrayLike],
    *,
    layer: int | None = 0,
    reverse: bool = False,
    prefix: str = "",
    dtype: DTypeLike = "float32",
    param_dtype: DTypeLike | None = None,
) -> gru.Params:
    """Parameters of `qlstm_jax.cells.gru` from a `torch.nn.GRU` or `GRUCell`; arguments as of `lstm_from_torch`, 3H."""
    return gru.Params(
        **state_dicts.fields(state_dicts.GRU, state_dict, layer, reverse, prefix, param_dtype), dtype=_name(dtype)
    )


def rnn_from_torch(
    state_dict: Mapping[str, ArrayLike],
    *,
    layer: int | None = 0,
    reverse: bool = False,
    prefix: str = "",
    nonlinearity: str = "tanh",
    dtype: DTypeLike = "float32",
    param_dtype: DTypeLike | None = None,
) -> rnn.Params:
    """Parameters of `qlstm_jax.cells.rnn` from a `torch.nn.RNN` or `RNNCell`; arguments as of `lstm_from_torch`, H.

    Args:
        nonlinearity: that of the PyTorch module, of which a state dict has no record; the cell has "tanh" alone.
    """
    _check_nonlinearity(nonlinearity)
    return rnn.Params(
        **state_dicts.fields(state_dicts.RNN, state_dict, layer, reverse, prefix, param_dtype), dtype=_name(dtype)
    )


def lstm_layer_from_torch(
    state_dict: Mapping[str, ArrayLike],
    *,
    prefix: str = "",
    dropout: float = 0.0,
    dtype: DTypeLike = "float32",
    param_dtype: DTypeLike | None = None,
) -> LSTM:
    """An `nnx.LSTM` with the weights of a whole `torch.nn.LSTM`: all its layers, and both directions where it has them.

    Args:
        state_dict: mapping from name to array; names that are not of this LSTM are ignored.
        prefix: the beginning of each name.
        dropout: rate between layers, of which a state dict has no record; its keys come with each call.
        dtype: of activations and products.
        param_dtype: of the stored weights; None for that of the state dict.

    Raises:
        ValueError: as `lstm_from_torch`.
    """
    options: dict[str, Any] = {"prefix": prefix, "dtype": dtype, "param_dtype": param_dtype}
    places = state_dicts.places(state_dicts.LSTM, state_dict, prefix)
    return to_layer(
        [tuple(lstm_from_torch(state_dict, **p, **options) for p in layer) for layer in places], dropout=dropout
    )


def gru_layer_from_torch(
    state_dict: Mapping[str, ArrayLike],
    *,
    prefix: str = "",
    dropout: float = 0.0,
    dtype: DTypeLike = "float32",
    param_dtype: DTypeLike | None = None,
) -> GRU:
    """An `nnx.GRU` with the weights of a whole `torch.nn.GRU`, as `lstm_layer_from_torch`."""
    options: dict[str, Any] = {"prefix": prefix, "dtype": dtype, "param_dtype": param_dtype}
    places = state_dicts.places(state_dicts.GRU, state_dict, prefix)
    return to_layer(
        [tuple(gru_from_torch(state_dict, **p, **options) for p in layer) for layer in places], dropout=dropout
    )


def rnn_layer_from_torch(
    state_dict: Mapping[str, ArrayLike],
    *,
    prefix: str = "",
    nonlinearity: str = "tanh",
    dropout: float = 0.0,
    dtype: DTypeLike = "float32",
    param_dtype: DTypeLike | None = None,
) -> SimpleRNN:
    """An `nnx.SimpleRNN` with the weights of a whole `torch.nn.RNN`, as `lstm_layer_from_torch`.

    Args:
        nonlinearity: as of `rnn_from_torch`.
    """
    _check_nonlinearity(nonlinearity)
    options: dict[str, Any] = {"prefix": prefix, "dtype": dtype, "param_dtype": param_dtype}
    places = state_dicts.places(state_dicts.RNN, state_dict, prefix)
    return to_layer(
        [tuple(rnn_from_torch(state_dict, **p, **options) for p in layer) for layer in places], dropout=dropout
    )


def lstm_to_torch(
    weights: lstm.Params | LSTM, *, layer: int | None = 0, reverse: bool = False, prefix: str = "", bias: bool = True
) -> StateDict:
    """A state dict of a `torch.nn.LSTM` (or `LSTMCell`) as numpy arrays, the inverse of `lstm_from_torch`.

    Weights in bfloat16 become float32, as numpy and PyTorch share no bfloat16: no number changes, and
    `load_state_dict` rounds back to what the module has.

    Args:
        weights: params of one layer and direction, or an `nnx.LSTM` with all of them.
        layer, reverse: where params go in the state dict, as of `lstm_from_torch`; of an `nnx.LSTM` all layers are
            written.
        prefix: the beginning of each name.
        bias: whether the PyTorch module has biases: bias_ih gets ours, bias_hh zeros (in a GRU, b_hn).

    Raises:
        ValueError: for weights of another cell, or with bias=False where a bias is not zero.
    """
    return state_dicts.state_dict(state_dicts.LSTM, weights, layer, reverse, prefix, bias)


def gru_to_torch(
    weights: gru.Params | GRU, *, layer: int | None = 0, reverse: bool = False, prefix: str = "", bias: bool = True
) -> StateDict:
    """A state dict of a `torch.nn.GRU` (or `GRUCell`), as `lstm_to_torch`."""
    return state_dicts.state_dict(state_dicts.GRU, weights, layer, reverse, prefix, bias)


def rnn_to_torch(
    weights: rnn.Params | SimpleRNN,
    *,
    layer: int | None = 0,
    reverse: bool = False,
    prefix: str = "",
    bias: bool = True,
) -> StateDict:
    """A state dict of a `torch.nn.RNN` (or `RNNCell`) of nonlinearity "tanh", as `lstm_to_torch`."""
    return state_dicts.state_dict(state_dicts.RNN, weights, layer, reverse, prefix, bias)


def _name(dtype: DTypeLike) -> str:
    return jnp.dtype(dtype).name


def _check_nonlinearity(nonlinearity: str) -> None:
    if nonlinearity != "tanh":
        raise ValueError(f"nonlinearity is {nonlinearity!r}; expected 'tanh', as qlstm_jax.cells.rnn has no other")
