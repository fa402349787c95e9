"""One vector for each sequence, from the outputs of a layer: the last one, or the mean or maximum over time.

Of rows that hold several sequences, each after a reset, there are several: `packed_summary` gives them side by side,
(B, P, features), P the most sequences of a row. Where a row has fewer, the rest are zeros.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from qlstm_jax.cells import common
from qlstm_jax.nnx.protocol import SequenceLayer

POOLINGS = ("last", "mean", "max", "mean_max")


def pooled_size(layer: SequenceLayer, pooling: str) -> int:
    """Features of a summary of this layer's outputs."""
    return layer.output_size * (2 if pooling == "mean_max" else 1)


def summary(
    layer: SequenceLayer,
    xs: Float[Array, "batch time d"],
    seq_lengths: Any,
    pooling: str,
    rngs: nnx.Rngs | Array | None = None,
) -> Float[Array, "batch features"]:
    """One vector for each row: the "last" output of `layer`, or its outputs pooled.

    Args:
        layer: a `SequenceLayer`.
        xs: (B, T, D).
        seq_lengths: (B,) number of valid positions, None for all T.
        pooling: "last", "mean", "max" or "mean_max".
        rngs: for dropout.

    Raises:
        TypeError, ValueError: as the layer does, or for an unknown pooling.
    """
    common.check_choice("pooling", pooling, POOLINGS)
    if pooling == "last":
        return layer.last(xs, seq_lengths=seq_lengths, rngs=rngs)
    ys = layer(xs, seq_lengths=seq_lengths, rngs=rngs)
    lengths = jnp.full(ys.shape[0], ys.shape[1], jnp.int32) if seq_lengths is None else jnp.asarray(seq_lengths)
    return pool(ys, lengths, pooling)


def pool(
    ys: Float[Array, "batch time h"], seq_lengths: Int[Array, " batch"], pooling: str
) -> Float[Array, "batch features"]:
    """Mean, maximum or both of the valid positions of ys (B, T, H) whose padding is 0; zeros at length 0."""
    ys = ys.astype(jnp.float32)
    parts = []
    if pooling in ("mean", "mean_max"):
        parts.append(jnp.sum(ys, axis=1) / jnp.maximum(seq_lengths, 1)[:, None])
    if pooling in ("max", "mean_max"):
        valid = common.valid_mask(seq_lengths, ys.shape[1])[:, :, None]
        highest = jnp.max(jnp.where(valid, ys, -jnp.inf), axis=1, initial=-jnp.inf)
        parts.append(jnp.where(seq_lengths[:, None] > 0, highest, 0.0))
    return jnp.concatenate(parts, axis=-1)


def packed_summary(
    layer: SequenceLayer,
    xs: Float[Array, "batch time d"],
    seq_lengths: Int[Array, " batch"],
    resets: Bool[Array, "batch time"],
    pooling: str,
    max_sequences: int,
    rngs: nnx.Rngs | Array | None = None,
) -> Float[Array, "batch sequences features"]:
    """`summary` of each sequence of each row, in their order, zeros where a row has fewer than max_sequences.

    Args:
        layer: a `SequenceLayer`.
        xs: (B, T, D).
        seq_lengths: (B,) number of valid positions.
        resets: (B, T), true where a sequence begins; the first begins at position 0 in any case.
        pooling: "last", "mean", "max" or "mean_max".
        max_sequences: P, at least the number of sequences of any row; those beyond are left out.
        rngs: for dropout.

    Raises:
        TypeError, ValueError: as the layer does, for an unknown pooling, lengths or resets that are None, or a
            max_sequences that is no positive integer.
    """
    common.check_choice("pooling", pooling, POOLINGS)
    common.check_sizes(max_sequences=max_sequences)
    common.as_array("seq_lengths", seq_lengths, "the number of valid positions in each row")  # None is refused here
    common.as_array("resets", resets, "a boolean for each position")
    ys = layer(xs, seq_lengths=seq_lengths, resets=resets, rngs=rngs).astype(jnp.float32)
    seq_lengths, resets = jnp.asarray(seq_lengths), jnp.asarray(resets)
    number = _numbers(resets, seq_lengths, max_sequences)
    member = number[:, :, None] == jnp.arange(max_sequences, dtype=jnp.int32)[None, None]
    if pooling == "last":
        return _last(ys, member, layer.bidirectional)
    count = jnp.sum(member, axis=1)[:, :, None]
    parts = []
    if pooling in ("mean", "mean_max"):
        parts.append(jnp.einsum("btp,bth->bph", member.astype(ys.dtype), ys) / jnp.maximum(count, 1))
    if pooling in ("max", "mean_max"):
        highest = jax.vmap(partial(jax.ops.segment_max, num_segments=max_sequences + 1))(ys, number)
        parts.append(jnp.where(count > 0, highest[:, :-1], 0.0))
    return jnp.concatenate(parts, axis=-1)


def _numbers(
    resets: Bool[Array, "batch time"], seq_lengths: Int[Array, " batch"], max_sequences: int
) -> Int[Array, "batch time"]:
    """Which sequence of its row each position belongs to, from 0; max_sequences in padding and beyond."""
    steps = resets.shape[1]
    later = jnp.arange(steps)[None] > 0
    number = jnp.cumsum(resets & later, axis=1, dtype=jnp.int32)
    return jnp.minimum(jnp.where(common.valid_mask(seq_lengths, steps), number, max_sequences), max_sequences)


def _last(
    ys: Float[Array, "batch time h"], member: Bool[Array, "batch time sequences"], bidirectional: bool
) -> Float[Array, "batch sequences h"]:
    """The outputs that have read the whole sequence: those of its last position, read backward of its first."""
    none = jnp.zeros_like(member[:, :1])
    ends = member & ~jnp.concatenate([member[:, 1:], none], axis=1)
    if not bidirectional:
        return jnp.einsum("btp,bth->bph", ends.astype(ys.dtype), ys)
    begins = member & ~jnp.concatenate([none, member[:, :-1]], axis=1)
    halves = zip((ends, begins), jnp.split(ys, 2, axis=-1), strict=True)
    return jnp.concatenate([jnp.einsum("btp,bth->bph", at.astype(h.dtype), h) for at, h in halves], axis=-1)
