"""PR-LSTM: `cell` has the formula and the public functions, `params` the weights and `init`.

`merge` is the binary cell, `tree` all prefixes in parallel, `counter` the tree as a stream, and `extension` many tokens
added to one; `tokens` and `tables` save merges over a small vocabulary; `regularization` and `offset` are ways to train
that are not in the paper.
"""

from qlstm_jax.cells.pr_lstm.cell import (
    MAX_SLOTS,
    Carry,
    check_max_length,
    initial_carry,
    last,
    reduce,
    step,
    unroll,
)
from qlstm_jax.cells.pr_lstm.merge import State
from qlstm_jax.cells.pr_lstm.params import Params, init

__all__ = [
    "MAX_SLOTS",
    "Carry",
    "Params",
    "State",
    "check_max_length",
    "init",
    "initial_carry",
    "last",
    "reduce",
    "step",
    "unroll",
]
