"""PR-LSTM (arXiv 2605.17108): a merge composed over a balanced tree, in logarithmic depth.

The state of a span of tokens is h, with a cell state c in some merges. `leaf` is the state of each token alone, and one
`merge` of two adjacent spans is shared by all nodes of the tree. `init(cell=...)` chooses the merge; each has its
formula in a file of its own (`qlstm_jax.cells.pr_lstm.merges`):

    "lstm"    PR-LSTM: the LSTM cell over two children, then R unary ones       merges/lstm.py
    "rnn"     PR-RNN: the same of relu cells, without c                         merges/rnn.py
    "ldru"    MLP-LDRU (arXiv 2605.26035): gates from an MLP, then R feed-forwards  merges/ldru.py
    "grc"     the gated recursive cell (arXiv 1910.13466)                       merges/grc.py

A merge is not associative, so the tree's shape is part of the model: see `qlstm_jax.cells.pr_lstm.tree`. y_t is the h
of the state of tokens 0..t. `step` streams in log2(t) states (`qlstm_jax.cells.pr_lstm.counter`); `unroll` computes all
the prefixes in log2(T) parallel levels; `reduce` computes the last one alone, in half the work. This module applies the
merge to sequences.
"""

from typing import Any

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from qlstm_jax.cells import common
from qlstm_jax.cells.pr_lstm import counter, extension, pieces, tree
from qlstm_jax.cells.pr_lstm.merge import leaf, merge
from qlstm_jax.cells.pr_lstm.merges import MERGES, Params, State

Carry = counter.Counter
MAX_SLOTS = 31  # the count of tokens is an int32


def initial_carry(params: Params, batch_size: int, *, max_length: int = 2**MAX_SLOTS - 1) -> Carry:
    """A stream before its first token: no states yet, room for those of max_length tokens.

    Args:
        params: from `init`.
        batch_size: B.
        max_length: tokens that the stream may grow to; log2(max_length + 1) slots are allocated. Beyond it, outputs
            are NaN.

    Raises:
        ValueError: unless 1 <= max_length < 2**31.
    """
    common.check_params(params, Params)
    common.check_batch_size(batch_size)
    check_max_length(max_length)
    shape = (batch_size, params.hidden_size)
    c = jnp.zeros(shape, common.accumulator(params.dtype)) if MERGES[params.cell].HAS_CELL_STATE else None
    return counter.empty(State(h=jnp.zeros(shape, params.dtype), c=c), int(max_length).bit_length())


def check_max_length(max_length: Any) -> None:
    """Raises ValueError unless a stream may grow to so many tokens."""
    if not common.is_integer(max_length) or not 1 <= max_length < 2**MAX_SLOTS:
        raise ValueError(f"max_length is {common.shown(max_length)}; expected 1 to {2**MAX_SLOTS - 1}")


def _empty_like(params: Params, carry: Any, batch_size: int) -> Carry:
    """The initial carry with as many slots as `carry` has, where it is one."""
    h: Any = getattr(carry.slots, "h", None) if isinstance(carry, counter.Counter) else None
    slots = h.shape[1] if getattr(h, "ndim", 0) == 3 and 1 <= h.shape[1] <= MAX_SLOTS else MAX_SLOTS
    return initial_carry(params, batch_size, max_length=2**slots - 1)


@common.on_any_mesh("x")
def step(
    params: Params, carry: Carry, x: Float[Array, "batch d"], *, reset: ArrayLike | None = None
) -> tuple[Carry, Float[Array, "batch h"]]:
    """One token of a stream.

    After t tokens a stream holds ceil(log2(t + 1)) states; a token costs two merges on average, whatever t.

    Args:
        params: from `init`.
        carry: from `initial_carry`, or the step before.
        x: (B, D).
        reset: optional (B,) booleans, true where a new sequence begins: the carry before this token is dropped.

    Raises:
        TypeError: if x is not an array of real numbers, or the params are another cell's.
        ValueError: if the shape of x, the carry or the reset does not fit.
    """
    common.check_params(params, Params)
    common.check_step(x, params.input_size)
    carry = common.step_carry(carry, _empty_like(params, carry, x.shape[0]), reset)
    params = common.varying_as(params, (x, carry))  # devices merge or not by their own counts: gradients add up outside
    carry, prefix = counter.push(merge(params), carry, leaf(params, x))
    return carry, prefix.h


@common.on_any_mesh("xs")
def unroll(
    params: Params,
    xs: Float[Array, "batch time d"],
    *,
    seq_lengths: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    carry: Carry | None = None,
) -> tuple[Carry, Float[Array, "batch time h"]]:
    """A whole sequence: xs (B, T, D) to (carry, ys (B, T, H)), equal to folding `step`, level by level in parallel.

    Args:
        params: from `init`.
        xs: (B, T, D).
        seq_lengths: optional (B,) number of valid positions; outputs beyond are 0 and the carry is that after the last.
        resets: optional (B, T) booleans, true where a new sequence begins: its tree is aligned to its own first token,
            and nothing of before reaches value or gradient. All trees of a row are computed together.
        carry: where to continue from; default `initial_carry`. The rows of a carry may have seen different numbers
            of tokens.

    Raises:
        TypeError: if xs is not an array of real numbers, or the params are another cell's.
        ValueError: if a shape or the carry does not fit, or a length lies outside 0..T.
    """
    common.check_params(params, Params)
    xs, lengths, valid, resets = common.check_sequence(xs, seq_lengths, params.input_size, resets)
    start = None if carry is None else common.check_carry(carry, _empty_like(params, carry, xs.shape[0]))
    params = common.varying_as(params, (xs, start))  # as in `step`
    leaves, merge_fn = leaf(params, xs), merge(params)
    if resets is not None and xs.shape[1]:
        begin = initial_carry(params, xs.shape[0]) if start is None else start
        end, states = pieces.extend(merge_fn, begin, leaves, lengths, resets, continues=start is not None)
    elif start is not None or xs.shape[1] == 0:
        begin = initial_carry(params, xs.shape[0]) if start is None else start
        end, states = extension.extend(merge_fn, begin, leaves, lengths)
    else:
        levels = tree.blocks(merge_fn, leaves)
        prefixes = tree.prefixes(merge_fn, levels)
        count = jnp.full(xs.shape[:1], xs.shape[1], jnp.int32) if lengths is None else lengths
        end, states = extension.from_tree(levels, prefixes, count, MAX_SLOTS), prefixes[0]
    return end, common.zero_padding(states.h, valid)


@common.on_any_mesh("xs")
def reduce(
    params: Params,
    xs: Float[Array, "batch time d"],
    *,
    seq_lengths: ArrayLike | None = None,
    resets: ArrayLike | None = None,
) -> State:
    """The state (h, c) of the whole sequence alone, each (B, H), in T − 1 merges where `unroll` takes about 2T.

    Args:
        params: from `init`.
        xs: (B, T, D).
        seq_lengths: optional (B,) number of valid positions; a row of length 0 gives zeros. Rows shorter than T cost at
            most log2(T) more merges.
        resets: optional (B, T) booleans, true where a new sequence begins: the state is that of the last one.

    Raises:
        TypeError: if xs is not an array of real numbers, or the params are another cell's.
        ValueError: if a shape or the carry does not fit, or a length lies outside 0..T.
    """
    common.check_params(params, Params)
    xs, lengths, _, resets = common.check_sequence(xs, seq_lengths, params.input_size, resets)
    leaves = leaf(params, xs)
    if resets is not None and xs.shape[1]:
        leaves, lengths = pieces.last_leaves(leaves, lengths, resets)
    return tree.reduce(merge(params), leaves, lengths)


@common.on_any_mesh("xs")
def last(
    params: Params,
    xs: Float[Array, "batch time d"],
    *,
    seq_lengths: ArrayLike | None = None,
    resets: ArrayLike | None = None,
) -> Float[Array, "batch h"]:
    """The output at each row's last valid position, (B, H), as `reduce` computes it; zeros at length 0."""
    return reduce(params, xs, seq_lengths=seq_lengths, resets=resets).h
