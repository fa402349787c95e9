"""PR-LSTM: `cell` has the formula and the public functions, `merge` what is merged, `tree` all prefixes in parallel.

`counter` is the tree as a stream and `extension` many tokens added to one; `tokens` and `tables` save merges over a small
vocabulary; `regularization` and `offset` are ways to train that the paper does not have.
"""

from qlstm_jax.cells.pr_lstm.cell import MAX_SLOTS, Carry, Params, init, initial_carry, last, reduce, step, unroll
from qlstm_jax.cells.pr_lstm.merge import State

__all__ = [
    "MAX_SLOTS",
    "Carry",
    "Params",
    "State",
    "init",
    "initial_carry",
    "last",
    "reduce",
    "step",
    "unroll",
]
