"""Weights from other libraries and back, as mappings from name to array; none of these need be installed."""

from qlstm_jax.interop.equinox import gru_from_equinox, gru_to_equinox, lstm_from_equinox, lstm_to_equinox
from qlstm_jax.interop.flax import (
    gru_from_flax,
    gru_to_flax,
    lstm_from_flax,
    lstm_to_flax,
    rnn_from_flax,
    rnn_to_flax,
)
from qlstm_jax.interop.haiku import pr_lstm_from_haiku
from qlstm_jax.interop.keras import (
    gru_from_keras,
    gru_to_keras,
    lstm_from_keras,
    lstm_to_keras,
    rnn_from_keras,
    rnn_to_keras,
)
from qlstm_jax.interop.layers import to_cell, to_layer
from qlstm_jax.interop.torch import (
    gru_from_torch,
    gru_layer_from_torch,
    gru_to_torch,
    lstm_from_torch,
    lstm_layer_from_torch,
    lstm_to_torch,
    rnn_from_torch,
    rnn_layer_from_torch,
    rnn_to_torch,
)
from qlstm_jax.interop.xlstm import (
    slstm_from_torch,
    slstm_to_torch,
    xlstm_block_from_torch,
    xlstm_from_torch,
    xlstm_to_torch,
)
from qlstm_jax.interop.xlstm_7b import xlstm_7b_from_torch, xlstm_7b_to_torch
from qlstm_jax.interop.xlstm_options import xlstm_7b_config_from_torch, xlstm_config_from_torch

__all__ = [
    "gru_from_equinox",
    "gru_from_flax",
    "gru_from_keras",
    "gru_from_torch",
    "gru_layer_from_torch",
    "gru_to_equinox",
    "gru_to_flax",
    "gru_to_keras",
    "gru_to_torch",
    "lstm_from_equinox",
    "lstm_from_flax",
    "lstm_from_keras",
    "lstm_from_torch",
    "lstm_layer_from_torch",
    "lstm_to_equinox",
    "lstm_to_flax",
    "lstm_to_keras",
    "lstm_to_torch",
    "pr_lstm_from_haiku",
    "rnn_from_flax",
    "rnn_from_keras",
    "rnn_from_torch",
    "rnn_layer_from_torch",
    "rnn_to_flax",
    "rnn_to_keras",
    "rnn_to_torch",
    "slstm_from_torch",
    "slstm_to_torch",
    "to_cell",
    "to_layer",
    "xlstm_7b_config_from_torch",
    "xlstm_7b_from_torch",
    "xlstm_7b_to_torch",
    "xlstm_block_from_torch",
    "xlstm_config_from_torch",
    "xlstm_from_torch",
    "xlstm_to_torch",
]
