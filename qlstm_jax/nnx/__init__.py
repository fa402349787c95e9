"""Flax NNX modules over the cells: they own the parameters, the cells do the computing.

A cell (`QLSTMCell`, `PRLSTMCell`, `SLSTMCell`, `MLSTMCell`, `LSTMCell`, `GRUCell`, `SimpleCell`) is one time step and
works inside `flax.nnx.RNN`. A sequence layer (`QLSTM`, `PRLSTM`, `SLSTM`, `MLSTM`, `LSTM`, `GRU`, `SimpleRNN`) reads
whole sequences by the cell's own `unroll`, the fast way, in one or more layers. Both take the options of the cell's
`init` as keywords. Each parameter bears the name of its field in the cell's `Params`.
"""

from qlstm_jax.nnx.cells import GRUCell, LSTMCell, MLSTMCell, PRLSTMCell, QLSTMCell, SimpleCell, SLSTMCell
from qlstm_jax.nnx.layers import GRU, LSTM, MLSTM, QLSTM, SLSTM, SimpleRNN
from qlstm_jax.nnx.options import cell_options
from qlstm_jax.nnx.pr_lstm import PRLSTM

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
    "cell_options",
]
