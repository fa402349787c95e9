"""The LSTM: `cell` has the formula and the public functions, `cudnn` the same by NVIDIA's cuDNN."""

from qlstm_jax.cells.lstm.cell import Carry, Params, init, initial_carry, last, step, unroll

__all__ = ["Carry", "Params", "init", "initial_carry", "last", "step", "unroll"]
