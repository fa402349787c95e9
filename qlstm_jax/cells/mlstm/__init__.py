"""mLSTM: `cell` has the formula of the cell, `matrix_memory` that of its memory, `chunked` the fast form in chunks."""

from qlstm_jax.cells.mlstm import matrix_memory
from qlstm_jax.cells.mlstm.cell import Carry, Params, init, initial_carry, last, step, unroll
from qlstm_jax.cells.mlstm.chunked import chunkwise

__all__ = ["Carry", "Params", "chunkwise", "init", "initial_carry", "last", "matrix_memory", "step", "unroll"]
