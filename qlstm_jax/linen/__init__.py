"""Flax Linen modules over the cells: they own the parameters, the cells do the computing.

The names and the parameters are those of `qlstm_jax.nnx`, in Linen's conventions: sizes of inputs are inferred, a
cell works inside `flax.linen.RNN`, dropout is on with `deterministic=False` and draws from the rng "dropout". A
layer's parameters lie under "cells_0", "cells_1", ... and, bidirectional, "backward_cells_0", ...
"""

from qlstm_jax.linen.cells import GRUCell, LSTMCell, MLSTMCell, PRLSTMCell, QLSTMCell, SimpleCell, SLSTMCell
from qlstm_jax.linen.layers import GRU, LSTM, MLSTM, QLSTM, SLSTM, SimpleRNN
from qlstm_jax.linen.pr_lstm import PRLSTM

__all__ = [
    "GRU",
    "LSTM",
    "MLSTM",
    "PRLSTM",
    "QLSTM",
    "SLSTM",
    "GRUCell",
    "LSTMCell",
    "MLSTMCell",
    "PRLSTMCell",
    "QLSTMCell",
    "SLSTMCell",
    "SimpleCell",
    "SimpleRNN",
]
