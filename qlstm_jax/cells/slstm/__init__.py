"""sLSTM: `cell` has the formula and the public functions, `recurrence` the same from pre-activations on."""

from qlstm_jax.cells.slstm.cell import Params, init, initial_carry, last, powerlaw_forget_bias, step, unroll
from qlstm_jax.cells.slstm.recurrence import FORGET_GATES, Carry, recur, unroll_preactivations, zero_carry

__all__ = [
    "FORGET_GATES",
    "Carry",
    "Params",
    "init",
    "initial_carry",
    "last",
    "powerlaw_forget_bias",
    "recur",
    "step",
    "unroll",
    "unroll_preactivations",
    "zero_carry",
]
