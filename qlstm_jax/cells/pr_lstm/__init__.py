"""PR-LSTM: `cell` has the public functions, `merges` the formulas of what two spans are merged by, `params` has `init`.

`merge` is a merge in the forms that the tree wants, `tree` all prefixes in parallel, `counter` the tree as a stream,
and `extension` many tokens added to one; `tokens` and `tables` save merges over a small vocabulary; `regularization`
and `offset` are ways to train that are not in the paper.
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
from qlstm_jax.cells.pr_lstm.merges import State
from qlstm_jax.cells.pr_lstm.merges.nary import NaryParams as Params
from qlstm_jax.cells.pr_lstm.params import init

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
