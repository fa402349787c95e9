"""PR-LSTM over tokens of a small vocabulary, in fewer merges: `qlstm_jax.cells.pr_lstm.tables` over the cell's leaves.

Of a bit string with an end mark (three symbols) the first two levels of the tree, three quarters of all merges, are
tables of 9 and of 81 states. The result is that of `qlstm_jax.cells.pr_lstm`, and gradients flow through the tables.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from qlstm_jax.cells import common
from qlstm_jax.cells.pr_lstm import tables, tree
from qlstm_jax.cells.pr_lstm.merge import combine_coded, leaf, merge
from qlstm_jax.cells.pr_lstm.merges import Params, State


def reduce(
    params: Params,
    symbols: Float[Array, "vocabulary d"],
    ids: Int[Array, "batch time"],
    *,
    seq_lengths: ArrayLike | None = None,
) -> State:
    """The state (h, c) of the whole sequence alone, each (B, H): `pr_lstm.reduce` of the inputs symbols[ids].

    Args:
        params: from `pr_lstm.init`.
        symbols: (V, D), the input of each symbol.
        ids: (B, T) integers in 0..V-1; nothing beyond `seq_lengths` is read.
        seq_lengths: optional (B,) number of valid positions; a row of length 0 gives zeros.

    Raises:
        TypeError: if an argument is no array of numbers, or the params are another cell's.
        ValueError: if a shape does not fit, a length lies outside 0..T, or an id outside 0..V−1 where it is known.
    """
    leaves, tokens = _prepare(params, symbols, ids, seq_lengths)
    ids = tokens.ids
    if ids.shape[1] == 0:
        zeros: State = jax.tree.map(lambda a: jnp.zeros((ids.shape[0], *a.shape[1:]), a.dtype), leaves)
        return zeros
    merge_fn, (batch, steps) = merge(params), ids.shape
    levels = tables.blocks(merge_fn, leaves, tokens.ids)
    state: State = tree.fold(merge_fn, levels, (batch, steps), tokens.seq_lengths, tables.block_at)
    return state


def unroll(
    params: Params,
    symbols: Float[Array, "vocabulary d"],
    ids: Int[Array, "batch time"],
    *,
    seq_lengths: ArrayLike | None = None,
) -> Float[Array, "batch time h"]:
    """Every prefix: the outputs (B, T, H) of `pr_lstm.unroll` of the inputs symbols[ids], 0 beyond `seq_lengths`.

    In the down-sweep a right child from a small table has been multiplied by the kernel before the lookup. Arguments
    and errors are those of `reduce`.
    """
    leaves, tokens = _prepare(params, symbols, ids, seq_lengths)
    ids = tokens.ids
    if ids.shape[1] == 0:
        return jnp.zeros((*ids.shape, params.hidden_size), leaves.h.dtype)
    merge_fn = merge(params)

    def merge_coded(left: State, table: State, codes: Int[Array, "batch m"]) -> State:
        # A product with one-hot codes of R rows is cheaper than one with H rows only if R is well below H.
        if params.remat or table.h.shape[0] > params.hidden_size // 2:
            return merge_fn.two(left, tables.lookup(table, codes))
        return combine_coded(params, left, table, codes)

    ys = tables.prefixes(merge_fn, merge_coded, tables.blocks(merge_fn, leaves, tokens.ids)).h
    return common.zero_padding(ys, tokens.valid)


class _Tokens(NamedTuple):
    ids: Int[Array, "batch time"]
    seq_lengths: Int[Array, " batch"] | None
    valid: Bool[Array, "batch time"] | None


def _prepare(params: Params, symbols: Array, ids: Array, seq_lengths: ArrayLike | None) -> tuple[State, _Tokens]:
    """The leaves of the symbols, and the tokens checked."""
    common.check_params(params, Params)
    size = params.input_size
    common.check_symbols(symbols, size)
    ids = common.check_ids("ids", ids, symbols.shape[0], seq_lengths=seq_lengths)
    _, lengths, valid, _ = common.check_sequence(jnp.zeros((*ids.shape, size)), seq_lengths, size)
    ids = jnp.clip(ids, 0, symbols.shape[0] - 1).astype(jnp.int32)
    return leaf(params, symbols), _Tokens(ids, lengths, valid)
