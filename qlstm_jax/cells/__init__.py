"""Cells as pure functions: each module has `init`, `initial_carry`, `step` and `unroll`, and its formula at the top."""

from qlstm_jax.cells import gru, lstm, mlstm, pr_lstm, ql_lstm, rnn, slstm

__all__ = ["gru", "lstm", "mlstm", "pr_lstm", "ql_lstm", "rnn", "slstm"]
