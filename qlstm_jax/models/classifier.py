"""Tokens in, one label out."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Integer

from qlstm_jax.cells.common import valid_mask
from qlstm_jax.nnx.protocol import SequenceLayer


class Classifier(nnx.Module):
    """Embedding, a sequence layer, pooling over time, a linear readout.

    Args:
        vocab_size: V.
        num_classes: labels.
        layer: a `SequenceLayer` that reads `embedding_size` features.
        embedding_size: features of a token.
        pooling: "last" output, "mean" or "max" over the valid positions, or "mean_max", both side by side.
        dropout: rate before the readout.
        embedding_dropout: rate on the embedded tokens.
        variational: whether that drops the same features at all positions of a row (arXiv 1512.05287).
        rngs: for the initial parameters.
    """

    def __init__(
        self,
        vocab_size: int,
        num_classes: int,
        layer: SequenceLayer,
        *,
        embedding_size: int,
        pooling: str = "last",
        dropout: float = 0.0,
        embedding_dropout: float = 0.0,
        variational: bool = False,
        rngs: nnx.Rngs,
    ) -> None:
        self.embed = nnx.Embed(vocab_size, embedding_size, rngs=rngs)
        self.embedding_dropout = nnx.Dropout(embedding_dropout, broadcast_dims=(1,) if variational else ())
        self.layer = layer
        self.pooling = pooling
        self.dropout = nnx.Dropout(dropout)
        features = layer.output_size * (2 if pooling == "mean_max" else 1)
        self.head = nnx.Linear(features, num_classes, rngs=rngs)

    def __call__(
        self, ids: Integer[ArrayLike, "batch time"], *, seq_lengths: Any, rngs: nnx.Rngs | Array | None = None
    ) -> Float[Array, "batch classes"]:
        """ids (B, T) and seq_lengths (B,) to logits (B, num_classes). A row of length 0 is pooled to zeros."""
        xs = self.embedding_dropout(self.embed(jnp.asarray(ids)), rngs=rngs)
        pooled = summary(self.layer, xs, seq_lengths, self.pooling, rngs)
        logits: Array = self.head(self.dropout(pooled.astype(jnp.float32), rngs=rngs))
        return logits


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
    """
    if pooling == "last":
        return layer.last(xs, seq_lengths=seq_lengths, rngs=rngs)
    lengths = jnp.full(xs.shape[0], xs.shape[1], jnp.int32) if seq_lengths is None else jnp.asarray(seq_lengths)
    return pool(layer(xs, seq_lengths=seq_lengths, rngs=rngs), lengths, pooling)


def pool(
    ys: Float[Array, "batch time h"], seq_lengths: Int[Array, " batch"], pooling: str
) -> Float[Array, "batch features"]:
    """Mean, maximum or both of the valid positions of ys (B, T, H) whose padding is 0; zeros at length 0."""
    ys = ys.astype(jnp.float32)
    parts = []
    if pooling in ("mean", "mean_max"):
        parts.append(jnp.sum(ys, axis=1) / jnp.maximum(seq_lengths, 1)[:, None])
    if pooling in ("max", "mean_max"):
        valid = valid_mask(seq_lengths, ys.shape[1])[:, :, None]
        highest = jnp.max(jnp.where(valid, ys, -jnp.inf), axis=1, initial=-jnp.inf)
        parts.append(jnp.where(seq_lengths[:, None] > 0, highest, 0.0))
    return jnp.concatenate(parts, axis=-1)
