"""Ways to train a PR-LSTM that are not in its paper: random left offsets of the tree, and an associativity penalty.

Both act in training alone and leave the trained model a plain PR-LSTM. A PR-LSTM trained on short sequences knows its
tokens under few alignments with the tree, and its merge gives another state for another tree over the same tokens.
A random offset shows it the same sequence under many trees. The penalty asks that two trees over three adjacent spans
agree (the Log-Depth Recurrent Unit, arXiv 2605.26035, gains from one such).
"""

import dataclasses

import jax
import jax.numpy as jnp

from qlstm_jax.cells import common
from qlstm_jax.cells.common import at_position, where
from qlstm_jax.cells.pr_lstm import cell, offset, tree
from qlstm_jax.cells.pr_lstm.merge import State, leaf, merge


@dataclasses.dataclass
class RandomOffset:
    """`unroll` and `reduce` of `qlstm_jax.cells.pr_lstm` under left offsets drawn from 0..max_offset for each row.

    Attributes:
        key: randomness; each call takes a part of its own.
        max_offset: the largest offset. The tree has T + max_offset leaves.
    """

    key: jax.Array
    max_offset: int

    def _draw(self, batch_size: int):
        self.key, key = jax.random.split(self.key)
        return jax.random.randint(key, (batch_size,), 0, self.max_offset + 1)

    def unroll(self, params, xs, *, seq_lengths=None, carry=None):
        """xs (B, T, D) to (None, ys (B, T, H)): a tree that began before its first token cannot be continued.

        Raises:
            ValueError: if a shape does not fit, a length lies outside 0..T, or a carry is given.
        """
        if carry is not None:
            raise ValueError("a carry is given; expected none, as the tree begins before the first token")
        xs, seq_lengths, valid = common.check_sequence(xs, seq_lengths, params.leaf_kernel.shape[0])
        if xs.shape[1] == 0:
            return None, cell.unroll(params, xs, seq_lengths=seq_lengths)[1]
        leaves, shift = leaf(params, xs), self._draw(xs.shape[0])
        ys = offset.prefixes(merge(params), leaves, shift, self.max_offset).h
        return None, (ys if valid is None else where(valid, ys, jnp.zeros_like(ys)))

    def reduce(self, params, xs, *, seq_lengths=None) -> State:
        """The state of the whole sequence alone; arguments and errors as for `pr_lstm.reduce`."""
        xs, seq_lengths, _ = common.check_sequence(xs, seq_lengths, params.leaf_kernel.shape[0])
        seq_lengths = jnp.full(xs.shape[:1], xs.shape[1], jnp.int32) if seq_lengths is None else seq_lengths
        leaves, shift = leaf(params, xs), self._draw(xs.shape[0])
        return offset.reduce(merge(params), leaves, seq_lengths, shift, self.max_offset)

    def last(self, params, xs, *, seq_lengths=None):
        """The output at each row's last valid position, (B, H); arguments and errors as for `pr_lstm.last`."""
        return self.reduce(params, xs, seq_lengths=seq_lengths).h


def associativity(params: cell.Params, xs, key, *, seq_lengths=None):
    """How far merge(merge(a, b), c) lies from merge(a, merge(b, c)), for adjacent spans of the tree.

    At each level of the tree, a row draws three adjacent complete blocks a, b, c. The distance of the two results is
    mean_H (h - h')² + mean_H (tanh c - tanh c')², and the penalty its mean over all triples drawn.

    Args:
        params: from `pr_lstm.init`.
        xs: (B, T, D).
        key: draws the triples.
        seq_lengths: optional (B,) number of valid positions; a triple lies within them.

    Returns:
        A float32 scalar, 0 where no row has three tokens.

    Raises:
        ValueError: if a shape does not fit, or a length lies outside 0..T.
    """
    xs, seq_lengths, _ = common.check_sequence(xs, seq_lengths, params.leaf_kernel.shape[0])
    seq_lengths = jnp.full(xs.shape[:1], xs.shape[1], jnp.int32) if seq_lengths is None else seq_lengths
    both = merge(params)
    triples, counted = [], []
    for j, level in enumerate(tree.blocks(both, leaf(params, xs))):
        if tree.width(level) < 3:
            break
        choices = (seq_lengths >> j) - 2
        first = jax.random.randint(jax.random.fold_in(key, j), seq_lengths.shape, 0, jnp.maximum(choices, 1))
        triples.append([at_position(level, first + k) for k in range(3)])
        counted.append(choices > 0)
    if not triples:
        return jnp.float32(0)
    a, b, c = (jax.tree.map(lambda *s: jnp.stack(s), *[t[k] for t in triples]) for k in range(3))
    left, right = both.two(both.two(a, b), c), both.two(a, both.two(b, c))
    distance = jnp.mean((left.h - right.h).astype(jnp.float32) ** 2, axis=-1)
    if left.c is not None:
        distance = distance + jnp.mean((jnp.tanh(left.c) - jnp.tanh(right.c)) ** 2, axis=-1)
    counted = jnp.stack(counted).astype(jnp.float32)
    return jnp.sum(distance * counted) / jnp.maximum(jnp.sum(counted), 1)
