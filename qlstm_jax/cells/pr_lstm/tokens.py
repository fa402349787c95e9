"""PR-LSTM over tokens of a small vocabulary, in fewer merges: `qlstm_jax.cells.pr_lstm.tables` over the cell's leaves.

Of a bit string with an end mark (three symbols) the first two levels of the tree, three quarters of all merges, are
tables of 9 and of 81 states. The result is that of `qlstm_jax.cells.pr_lstm`, and gradients flow through the tables.
"""

import jax
import jax.numpy as jnp

from qlstm_jax.cells import common
from qlstm_jax.cells.common import where
from qlstm_jax.cells.pr_lstm import cell, tables, tree
from qlstm_jax.cells.pr_lstm.merge import State, combine_coded, leaf, merge


def reduce(params: cell.Params, symbols, ids, *, seq_lengths=None) -> State:
    """The state (h, c) of the whole sequence alone, each (B, H): `pr_lstm.reduce` of the inputs symbols[ids].

    Args:
        params: from `pr_lstm.init`.
        symbols: (V, D), the input of each symbol.
        ids: (B, T) integers in 0..V-1; what stands beyond `seq_lengths` is not read.
        seq_lengths: optional (B,) number of valid positions; a row of length 0 gives zeros.

    Raises:
        ValueError: if a shape does not fit, or a length lies outside 0..T.
    """
    both, leaves, ids, seq_lengths, _ = _prepare(params, symbols, ids, seq_lengths)
    if ids.shape[1] == 0:
        return jax.tree.map(lambda a: jnp.zeros((ids.shape[0], *a.shape[1:]), a.dtype), leaves)
    return tree.fold(both, tables.blocks(both, leaves, ids), ids.shape, seq_lengths, tables.pick)


def unroll(params: cell.Params, symbols, ids, *, seq_lengths=None):
    """Every prefix: the outputs (B, T, H) of `pr_lstm.unroll` of the inputs symbols[ids], 0 beyond `seq_lengths`.

    On the way down a right child that is read from a small table has met the kernel there already. Arguments and
    errors are those of `reduce`.
    """
    both, leaves, ids, seq_lengths, valid = _prepare(params, symbols, ids, seq_lengths)
    if ids.shape[1] == 0:
        return jnp.zeros((*ids.shape, params.hidden_size), leaves.h.dtype)

    def merge_coded(left, table, codes):
        # A product with one-hot codes of R rows is cheaper than one with H rows only if R is well below H.
        if params.remat or table.h.shape[0] > params.hidden_size // 2:
            return both.two(left, tables.read(table, codes))
        return combine_coded(params, left, table, codes)

    ys = tables.prefixes(both, merge_coded, tables.blocks(both, leaves, ids)).h
    return ys if valid is None else where(valid, ys, jnp.zeros_like(ys))


def _prepare(params, symbols, ids, seq_lengths):
    """(the merge, leaves of the symbols, ids, seq_lengths, valid), checked."""
    size = params.leaf_kernel.shape[0]
    if symbols.ndim != 2 or symbols.shape[1] != size:
        raise ValueError(f"symbols has shape {symbols.shape}; expected (vocabulary, {size}), the input of each symbol")
    if ids.ndim != 2 or not jnp.issubdtype(ids.dtype, jnp.integer):
        raise ValueError(f"ids is {ids.dtype} of shape {ids.shape}; expected integers of shape (batch, time)")
    _, seq_lengths, valid = common.check_sequence(jnp.zeros((*ids.shape, size)), seq_lengths, size)
    ids = jnp.clip(ids, 0, symbols.shape[0] - 1).astype(jnp.int32)
    return merge(params), leaf(params, symbols), ids, seq_lengths, valid
