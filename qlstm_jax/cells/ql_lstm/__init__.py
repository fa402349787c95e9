"""QL-LSTM: `cell` has the formula and the public functions, `block` a block of tokens, `blockwise` the scan."""

from qlstm_jax.cells.ql_lstm.cell import init, initial_carry, last, step, unroll
from qlstm_jax.cells.ql_lstm.params import SHARING, Carry, Params

__all__ = ["SHARING", "Carry", "Params", "init", "initial_carry", "last", "step", "unroll"]
