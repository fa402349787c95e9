"""Ways to train a PR-LSTM that are not in its paper: random left offsets of the tree, and an associativity penalty.

Both are used in training only and leave the trained model a plain PR-LSTM. A PR-LSTM trained on short sequences sees
its tokens under few alignments with the tree, and its merge gives another state for another tree over the same tokens.
A random offset shows it the same sequence under many trees. The penalty asks that two trees over three adjacent spans
agree (the Log-Depth Recurrent Unit, arXiv 2605.26035, gains from one such).
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, Key

from qlstm_jax.cells import common
from qlstm_jax.cells.pr_lstm import offset, tree
from qlstm_jax.cells.pr_lstm.merge import leaf, merge
from qlstm_jax.cells.pr_lstm.merges import MERGES, Params, State


@dataclasses.dataclass
class RandomOffset:
    """`unroll`, `reduce` and `last` of `qlstm_jax.cells.pr_lstm` under offsets drawn from 0..max_offset for each row.

    Attributes:
        key: randomness; each call splits it.
        max_offset: the largest offset. The tree has T + max_offset leaves.
    """

    key: Key[Array, ""]
    max_offset: int

    def __post_init__(self) -> None:
        common.check_key(self.key)
        common.check_counts(max_offset=self.max_offset)

    def _draw(self, batch_size: int) -> Int[Array, " batch"]:
        self.key, key = jax.random.split(self.key)
        return jax.random.randint(key, (batch_size,), 0, self.max_offset + 1)

    def unroll(
        self,
        params: Params,
        xs: Float[Array, "batch time d"],
        *,
        seq_lengths: ArrayLike | None = None,
        resets: None = None,
        carry: None = None,
    ) -> tuple[None, Float[Array, "batch time h"]]:
        """xs (B, T, D) to (None, ys (B, T, H)): a tree that began before its first token cannot be continued.

        Raises:
            ValueError: if a shape does not fit, a length lies outside 0..T, or resets or a carry are given.
        """
        _check_no_resets(resets)
        if carry is not None:
            raise ValueError("a carry is given; expected none, as the tree begins before the first token")
        common.check_params(params, Params)
        xs, _, valid, _ = common.check_sequence(xs, seq_lengths, params.input_size)
        leaves, shift = leaf(params, xs), self._draw(xs.shape[0])
        if xs.shape[1] == 0:
            return None, leaves.h
        ys = offset.prefixes(merge(params), leaves, shift, self.max_offset).h
        return None, common.zero_padding(ys, valid)

    def reduce(
        self,
        params: Params,
        xs: Float[Array, "batch time d"],
        *,
        seq_lengths: ArrayLike | None = None,
        resets: None = None,
    ) -> State:
        """The state of the whole sequence alone; arguments and errors as for `pr_lstm.reduce`, but without resets."""
        _check_no_resets(resets)
        xs, lengths = _with_lengths(params, xs, seq_lengths)
        return offset.reduce(merge(params), leaf(params, xs), lengths, self._draw(xs.shape[0]), self.max_offset)

    def last(
        self,
        params: Params,
        xs: Float[Array, "batch time d"],
        *,
        seq_lengths: ArrayLike | None = None,
        resets: None = None,
    ) -> Float[Array, "batch h"]:
        """The output at each row's last valid position; arguments and errors as for `reduce`."""
        return self.reduce(params, xs, seq_lengths=seq_lengths, resets=resets).h


def _check_no_resets(resets: Any) -> None:
    if resets is not None:
        raise ValueError(
            "resets are given in training with a random offset of the tree; expected none: make the layer with "
            "max_offset=0, or call eval()"
        )


def _with_lengths(
    params: Params, xs: Float[Array, "batch time d"], seq_lengths: ArrayLike | None
) -> tuple[Float[Array, "batch time d"], Int[Array, " batch"]]:
    common.check_params(params, Params)
    xs, lengths, *_ = common.check_sequence(xs, seq_lengths, params.input_size)
    return xs, jnp.full(xs.shape[:1], xs.shape[1], jnp.int32) if lengths is None else lengths


def associativity(
    params: Params, xs: Float[Array, "batch time d"], key: Key[Array, ""], *, seq_lengths: ArrayLike | None = None
) -> Float[Array, ""]:
    """The distance of merge(merge(a, b), c) from merge(a, merge(b, c)), for adjacent spans of the tree.

    At each level of the tree, a row draws three adjacent complete blocks a, b, c. The penalty is the mean over all
    triples drawn of the distance of the two results. Each merge has its own (`merges`): mean_H (h - h')² +
    mean_H (tanh c - tanh c')² with cell "lstm", the first part alone with "rnn", and the cosine distance of h with
    "ldru" and "grc".

    Args:
        params: from `pr_lstm.init`.
        xs: (B, T, D).
        key: draws the triples.
        seq_lengths: optional (B,) number of valid positions; a triple lies within them.

    Returns:
        A float32 scalar, 0 where no row has three tokens.

    Raises:
        TypeError: if `key` is no PRNG key, xs no array of real numbers, or the params are another cell's.
        ValueError: if a shape does not fit, or a length lies outside 0..T.
    """
    common.check_key(key)
    xs, lengths = _with_lengths(params, xs, seq_lengths)
    merge_fn = merge(params)
    triples, valid = _draw_triples(tree.blocks(merge_fn, leaf(params, xs)), lengths, key)
    if not triples:
        return jnp.zeros((), jnp.float32)
    stacked: list[State] = [jax.tree.map(lambda *s: jnp.stack(s), *spans) for spans in zip(*triples, strict=True)]
    a, b, c = stacked
    left, right = merge_fn.two(merge_fn.two(a, b), c), merge_fn.two(a, merge_fn.two(b, c))
    distance = MERGES[params.cell].distance(left, right)
    counted = jnp.stack(valid).astype(jnp.float32)
    return jnp.sum(distance * counted) / jnp.maximum(jnp.sum(counted), 1)


def _draw_triples(
    levels: list[State], lengths: Int[Array, " batch"], key: Key[Array, ""]
) -> tuple[list[list[State]], list[Bool[Array, " batch"]]]:
    """For each level three adjacent blocks of each row, (B, H), and whether the row has as many."""
    triples, valid = [], []
    for j, level in enumerate(levels):
        if tree.num_spans(level) < 3:
            break
        choices = (lengths >> j) - 2
        first = jax.random.randint(jax.random.fold_in(key, j), lengths.shape, 0, jnp.maximum(choices, 1))
        triples.append([common.at_position(level, first + k) for k in range(3)])
        valid.append(choices > 0)
    return triples, valid
