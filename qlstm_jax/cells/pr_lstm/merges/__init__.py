"""The merges of the tree, one file each; `interface` says what a merge is, and `MERGES` names them for `pr_lstm.init`.

A merge of another kind is one more file with the functions of `interface.MergeRule`, one line here, its options in
`qlstm_jax.cells.pr_lstm.params` if it has new ones, and its oracle in the tests. Tree, stream, resets, offsets, tables
and the penalty then have it.
"""

from qlstm_jax.cells.pr_lstm.merges import grc, ldru, lstm, rnn
from qlstm_jax.cells.pr_lstm.merges.interface import MergeRule, Params, State

MERGES: dict[str, MergeRule] = {"lstm": lstm, "rnn": rnn, "ldru": ldru, "grc": grc}

__all__ = ["MERGES", "MergeRule", "Params", "State"]
