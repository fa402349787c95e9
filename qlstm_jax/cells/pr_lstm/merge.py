"""Leaf and merge of PR-LSTM, by the formulas of `qlstm_jax.cells.pr_lstm.merges`, on states of any number of spans.

`leaf` is the state of a token alone and `combine` that of two adjacent spans together. `combine_pairs` and
`combine_coded` are the same merge for other memory layouts. `merge` gives a tree the first two, rematerialised if the
params say so.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from qlstm_jax.cells import common
from qlstm_jax.cells.pr_lstm import tables, tree
from qlstm_jax.cells.pr_lstm.merges import MERGES, Params, State

MIN_GROUP = 2**10  # merges that are computed at once with remat, at least


def leaf(params: Params, x: Float[Array, "*spans d"]) -> State:
    """The state of each token alone."""
    z = common.affine(x, params.leaf_kernel, params.leaf_bias, params.dtype)
    return MERGES[params.cell].leaf(params, z)


def combine(params: Params, left: State, right: State) -> State:
    """The state of the union of two adjacent spans, (..., H) each.

    The children are not concatenated: each is multiplied by its own rows of the kernel.
    """
    w_left, w_right = jnp.split(params.merge_kernel, 2)
    z = common.affine(left.h, w_left, params.merge_bias, params.dtype)
    z = z + common.matmul(right.h, w_right, params.dtype)
    return MERGES[params.cell].join(params, z, left, right)


def combine_coded(params: Params, left: State, table: State, codes: Int[Array, "batch m"]) -> State:
    """`combine` of left (B, M, H) with table[codes], the table (R, H) multiplied by the kernel before the lookup."""
    w_left, w_right = jnp.split(params.merge_kernel, 2)
    z = common.affine(left.h, w_left, params.merge_bias, params.dtype)
    z = z + tables.lookup(common.matmul(table.h, w_right, params.dtype), codes)
    return MERGES[params.cell].join(params, z, left, tables.lookup(table, codes))


def combine_pairs(params: Params, states: State) -> State:
    """Neighbours 2r and 2r + 1 of (B, 2M, H) merged, to (B, M, H).

    Neighbours are adjacent in memory, so that reshaping them to one row of 2H costs nothing.
    """
    batch, spans, hidden = states.h.shape
    pairs = states.h.reshape(batch, spans // 2, 2 * hidden)
    z = common.affine(pairs, params.merge_kernel, params.merge_bias, params.dtype)
    left, right = tree.slice_spans(states, 0, None, 2), tree.slice_spans(states, 1, None, 2)
    return MERGES[params.cell].join(params, z, left, right)


def merge(params: Params) -> tree.Merge[State]:
    """`combine` and `combine_pairs`, as the functions of `qlstm_jax.cells.pr_lstm.tree` take them."""
    if not params.remat:
        return tree.Merge(partial(combine, params), partial(combine_pairs, params))
    return tree.Merge(
        lambda left, right: _rematerialised(partial(combine, params), 1, left, right),
        lambda states: _rematerialised(partial(combine_pairs, params), 2, states),
    )


def _rematerialised(function: Callable[..., State], spans: int, *states: State) -> State:
    """`function` of states (B, spans·M, H), a group of rows at a time; the backward pass recomputes each group."""
    rows = math.prod(states[0].h.shape[:-1]) // spans
    groups = math.gcd(rows, 2 ** max(0, (rows // MIN_GROUP).bit_length() - 1))
    if groups == 1:
        whole: State = jax.checkpoint(function)(*states)
        return whole

    def split(a: Array) -> Array:
        return a.reshape(groups, rows // groups, spans, a.shape[-1])

    def run(group: tuple[State, ...]) -> Any:
        return jax.checkpoint(function)(*group)

    merged = jax.lax.map(run, jax.tree.map(split, states))
    shape = *states[0].h.shape[:-2], states[0].h.shape[-2] // spans
    result: State = jax.tree.map(lambda a: a.reshape(*shape, a.shape[-1]), merged)
    return result
