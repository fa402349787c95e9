"""Cells as pure functions: each has `init`, `initial_carry`, `step`, `unroll` and `last`, with its formula at the top.

A cell is a file or a folder of this name; `common` holds what several use. `CELLS` registers them: the layer's class
name to the cell's module. From this line come the cell and layer classes of `qlstm_jax.nnx` and `qlstm_jax.linen`, and
the cell's name in configs.
"""

from qlstm_jax.cells import gru, lstm, min_gru, min_lstm, mlstm, pr_lstm, ql_lstm, rnn, slstm
from qlstm_jax.cells.common import Cell

CELLS: dict[str, Cell] = {
    "SimpleRNN": rnn,
    "LSTM": lstm,
    "GRU": gru,
    "QLSTM": ql_lstm,
    "PRLSTM": pr_lstm,
    "SLSTM": slstm,
    "MLSTM": mlstm,
    "MinGRU": min_gru,
    "MinLSTM": min_lstm,
}

__all__ = ["CELLS", "Cell", "gru", "lstm", "min_gru", "min_lstm", "mlstm", "pr_lstm", "ql_lstm", "rnn", "slstm"]
