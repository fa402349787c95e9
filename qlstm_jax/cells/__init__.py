"""Cells as pure functions: each has `init`, `initial_carry`, `step` and `unroll`, with its formula at the top.

A cell is a file or a folder of this name; `common` holds what several use.
"""

from qlstm_jax.cells import gru, lstm, mlstm, pr_lstm, ql_lstm, rnn, slstm

__all__ = ["gru", "lstm", "mlstm", "pr_lstm", "ql_lstm", "rnn", "slstm"]
