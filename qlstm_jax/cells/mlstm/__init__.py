"""mLSTM: `cell` has the public functions, `matrix_memory` the formula, `chunked` its fast form in chunks of tokens."""

from qlstm_jax.cells.mlstm import matrix_memory
from qlstm_jax.cells.mlstm.cell import Carry, Params, init, initial_carry, last, step, unroll
from qlstm_jax.cells.mlstm.chunked import chunkwise

__all__ = ["Carry", "Params", "chunkwise", "init", "initial_carry", "last", "matrix_memory", "step", "unroll"]
