"""What PR-LSTM computes of a token and of two spans side by side; the formulas stand in `qlstm_jax.cells.pr_lstm`.

`leaf` is the state of a token alone and `combine` that of two adjacent spans together. `combine_pairs` and
`combine_coded` are the same merge of states that lie in memory in certain ways, and `merge` hands both to a tree, with
what a gradient keeps of them. `params` is a `pr_lstm.Params` everywhere.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from qlstm_jax.cells import common
from qlstm_jax.cells.pr_lstm import tables, tree

NORM_EPS = 1e-6
GROUP = 2**10  # merges that are computed at once with remat, at least


class State(NamedTuple):
    """The state of a span of tokens."""

    h: jax.Array  # (..., H)
    c: jax.Array | None  # (..., H), float32 or wider; None for PR-RNN


def leaf(params, x) -> State:
    """The state of each token alone: x (..., D)."""
    z = common.affine(x, params.leaf_kernel, params.leaf_bias, params.dtype)
    if params.cell == "rnn":
        return State(h=z.astype(params.dtype), c=None)
    return _lstm(params, z, ())


def _lstm(params, z, cells, norm_scale=None) -> State:
    """Gates z (..., (3 + N)·H) over the children's c to the new state."""
    i, g, o, *forget = jnp.split(z, 3 + len(cells), axis=-1)
    c = jax.nn.sigmoid(i) * jnp.tanh(g)
    for f, child in zip(forget, cells, strict=True):
        c = c + jax.nn.sigmoid(f) * child
    if norm_scale is not None:
        c = common.row(norm_scale, c.ndim) * c * jax.lax.rsqrt(NORM_EPS + jnp.mean(c**2, axis=-1, keepdims=True))
    return State(h=(jax.nn.sigmoid(o) * jnp.tanh(c)).astype(params.dtype), c=c)


def _cell(params, number, z, cells) -> State:
    """The binary cell (number 0) or a refinement (1 .. R) from its pre-activations and its children's c."""
    if params.cell == "rnn":
        return State(jax.nn.relu(z).astype(params.dtype), None)
    return _lstm(params, z, cells, None if params.norm_scale is None else params.norm_scale[number])


def _refine(params, state) -> State:
    for r, (kernel, bias) in enumerate(zip(params.refine_kernel, params.refine_bias, strict=True), 1):
        state = _cell(params, r, common.affine(state.h, kernel, bias, params.dtype), (state.c,))
    return state


def combine(params, left: State, right: State) -> State:
    """The state of the union of two adjacent spans, (..., H) each: binary cell, then refinements.

    The children are not concatenated: each meets its own rows of the kernel.
    """
    w_left, w_right = jnp.split(params.merge_kernel, 2)
    z = common.affine(left.h, w_left, params.merge_bias, params.dtype)
    z = z + common.matmul(right.h, w_right, params.dtype)
    return _refine(params, _cell(params, 0, z, (left.c, right.c)))


def combine_coded(params, left: State, table: State, codes) -> State:
    """`combine` of left (B, M, H) with the rows `codes` (B, M) of a table (R, H), which meets the kernel but once."""
    w_left, w_right = jnp.split(params.merge_kernel, 2)
    z = common.affine(left.h, w_left, params.merge_bias, params.dtype)
    z = z + tables.read(common.matmul(table.h, w_right, params.dtype), codes)
    return _refine(params, _cell(params, 0, z, (left.c, tables.read(table.c, codes))))


def combine_pairs(params, states: State) -> State:
    """Neighbours 2r and 2r + 1 of (B, 2M, H) merged, to (B, M, H).

    Neighbours lie side by side in memory, so seeing them as one row of 2H costs nothing.
    """
    batch, spans, hidden = states.h.shape
    pairs = states.h.reshape(batch, spans // 2, 2 * hidden)
    z = common.affine(pairs, params.merge_kernel, params.merge_bias, params.dtype)
    cells = (None, None) if states.c is None else (states.c[:, 0::2], states.c[:, 1::2])
    return _refine(params, _cell(params, 0, z, cells))


def merge(params) -> tree.Merge:
    """`combine` and `combine_pairs`, as the functions of `qlstm_jax.cells.pr_lstm.tree` take them."""
    if not params.remat:
        return tree.Merge(partial(combine, params), partial(combine_pairs, params))
    return tree.Merge(
        lambda left, right: _in_groups(partial(combine, params), 1, left, right),
        lambda states: _in_groups(partial(combine_pairs, params), 2, states),
    )


def _in_groups(function, spans: int, *states):
    """`function` of states (B, spans·M, H), some rows after the others; a gradient computes each group anew."""
    rows = math.prod(states[0].h.shape[:-1]) // spans
    groups = math.gcd(rows, 2 ** max(0, (rows // GROUP).bit_length() - 1))
    if groups == 1:
        return jax.checkpoint(function)(*states)
    parts = jax.tree.map(lambda a: a.reshape(groups, rows // groups, spans, a.shape[-1]), states)
    merged = jax.lax.map(lambda part: jax.checkpoint(function)(*part), parts)
    shape = *states[0].h.shape[:-2], states[0].h.shape[-2] // spans
    return jax.tree.map(lambda a: a.reshape(*shape, a.shape[-1]), merged)
