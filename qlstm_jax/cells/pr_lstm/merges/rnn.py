"""The merge of PR-RNN (arXiv 2605.17108): leaf x W_leaf + b_leaf, cell relu(concat(h_1 .. h_N) W + b), no c.

N is 2, and 1 in a refinement. W_leaf is (D, H), W (N·H, H). `value_init` is not in the paper [ours].
"""

from typing import Any

import jax
from jaxtyping import Array, Float, Key

from qlstm_jax.cells.pr_lstm.merges import nary, shared
from qlstm_jax.cells.pr_lstm.merges.interface import State
from qlstm_jax.cells.pr_lstm.merges.nary import Cells, NaryParams

OPTIONS = ("refinements", "value_init")
HAS_CELL_STATE = False
GATES = (1, 1, 1)  # of the leaf, the binary cell and a refinement

distance = shared.squared_distance


def init(key: Key[Array, ""], input_size: int, hidden_size: int, **options: Any) -> NaryParams:
    """Draws weights; options as in `pr_lstm.init`."""
    return nary.init(key, input_size, hidden_size, gates=GATES, value=0, **options)


def leaf(params: NaryParams, z: Float[Array, "*spans h"]) -> State:
    """The state of a token alone."""
    return State(h=z.astype(params.dtype), c=None)


def join(params: NaryParams, z: Float[Array, "*spans h"], left: State, right: State) -> State:
    """The binary cell, then the refinements."""
    return nary.refine(params, _cell(params, 0, z, ()), _cell)


def _cell(params: NaryParams, number: int, z: Float[Array, "*spans h"], cells: Cells) -> State:
    return State(jax.nn.relu(z).astype(params.dtype), None)
