"""The merge of PR-LSTM (arXiv 2605.17108): the N-ary LSTM cell over children (h_1, c_1) .. (h_N, c_N), earliest first.

    leaf    [i, g, o] = split3(x W_leaf + b_leaf);  c = σ(i) ⊙ tanh(g);  h = σ(o) ⊙ tanh(c)      W_leaf (D, 3H)
    cell    [i, g, o, f_1 .. f_N] = split(concat(h_1 .. h_N) W + b)                              W (N·H, (3 + N)·H)
            c = σ(i) ⊙ tanh(g) + Σ_n σ(f_n) ⊙ c_n;   h = σ(o) ⊙ tanh(c)

N is 2, and 1 in a refinement. `norm`, `value_init` and `forget_bias` are not in the paper [ours].
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from qlstm_jax.cells import common
from qlstm_jax.cells.pr_lstm.merges import nary, shared
from qlstm_jax.cells.pr_lstm.merges.interface import State
from qlstm_jax.cells.pr_lstm.merges.nary import Cells, NaryParams

OPTIONS = ("refinements", "norm", "value_init", "forget_bias")
HAS_CELL_STATE = True
GATES = (3, 5, 4)  # of the leaf, the binary cell and a refinement
VALUE = 1  # the place of g among the gates
NORM_EPS = 1e-6

distance = shared.squared_distance


def init(
    key: Key[Array, ""],
    input_size: int,
    hidden_size: int,
    *,
    norm: str,
    forget_bias: float,
    param_dtype: DTypeLike,
    **options: Any,
) -> NaryParams:
    """Draws weights; options as in `pr_lstm.init`."""
    params = nary.init(key, input_size, hidden_size, gates=GATES, value=VALUE, param_dtype=param_dtype, **options)
    forget = 3 * hidden_size
    return dataclasses.replace(
        params,
        merge_bias=params.merge_bias.at[forget:].set(forget_bias),
        refine_bias=params.refine_bias.at[:, forget:].set(forget_bias),
        norm_scale=jnp.ones((1 + len(params.refine_bias), hidden_size), param_dtype) if norm == "rms" else None,
    )


def leaf(params: NaryParams, z: Float[Array, "*spans gates"]) -> State:
    """The state of a token alone."""
    return _gated(params, z, ())


def join(params: NaryParams, z: Float[Array, "*spans gates"], left: State, right: State) -> State:
    """The binary cell, then the refinements."""
    return nary.refine(params, _cell(params, 0, z, (left.c, right.c)), _cell)


def _cell(params: NaryParams, number: int, z: Float[Array, "*spans gates"], cells: Cells) -> State:
    """The binary cell (number 0) or a refinement (1 .. R) from its pre-activations and its children's c."""
    return _gated(params, z, cells, None if params.norm_scale is None else params.norm_scale[number])


def _gated(
    params: NaryParams, z: Float[Array, "*spans gates"], cells: Cells, norm_scale: Float[Array, " h"] | None = None
) -> State:
    """Gates z (..., (3 + N)·H) over the children's c to the new state."""
    i, g, o, *forget = jnp.split(z, 3 + len(cells), axis=-1)
    c = jax.nn.sigmoid(i) * jnp.tanh(g)
    for f, child in zip(forget, cells, strict=True):
        c = c + jax.nn.sigmoid(f) * child
    if norm_scale is not None:
        c = common.row(norm_scale, c.ndim) * c * jax.lax.rsqrt(NORM_EPS + jnp.mean(c**2, axis=-1, keepdims=True))
    return State(h=(jax.nn.sigmoid(o) * jnp.tanh(c)).astype(params.dtype), c=c)
