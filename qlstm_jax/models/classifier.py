"""Tokens in, one label out."""

import jax.numpy as jnp
from flax import nnx

from qlstm_jax.cells.common import valid_mask


class Classifier(nnx.Module):
    """Embedding, recurrent layers, pooling over time, a linear readout.

    Args:
        vocab_size: V.
        num_classes: labels.
        layer: a sequence layer of `qlstm_jax.nnx` that reads `embedding_size` channels.
        embedding_size: channels of a token.
        pooling: "last" output, "mean" or "max" over the valid positions, or "mean_max", both side by side.
        dropout: rate before the readout.
        embedding_dropout: rate on the embedded tokens.
        variational: whether that drops the same channels at all positions of a row (arXiv 1512.05287).
        rngs: for the initial parameters.
    """

    def __init__(
        self,
        vocab_size: int,
        num_classes: int,
        layer,
        *,
        embedding_size: int,
        pooling: str = "last",
        dropout: float = 0.0,
        embedding_dropout: float = 0.0,
        variational: bool = False,
        rngs: nnx.Rngs,
    ):
        self.embed = nnx.Embed(vocab_size, embedding_size, rngs=rngs)
        self.embedding_dropout = nnx.Dropout(embedding_dropout, broadcast_dims=(1,) if variational else ())
        self.layer = layer
        self.pooling = pooling
        self.dropout = nnx.Dropout(dropout)
        features = layer.output_size * (2 if pooling == "mean_max" else 1)
        self.head = nnx.Linear(features, num_classes, rngs=rngs)

    def __call__(self, ids, *, seq_lengths, rngs=None):
        """ids (B, T) and seq_lengths (B,) to logits (B, num_classes). A row of length 0 is pooled to zeros."""
        xs = self.embedding_dropout(self.embed(ids), rngs=rngs)
        pooled = summary(self.layer, xs, seq_lengths, self.pooling, rngs)
        return self.head(self.dropout(pooled.astype(jnp.float32), rngs=rngs))


def summary(layer, xs, seq_lengths, how: str, rngs=None):
    """What `layer` makes of each row of xs (B, T, C): its "last" output, or its outputs pooled; seq_lengths None for T."""
    if how == "last":
        return layer.last(xs, seq_lengths=seq_lengths, rngs=rngs)
    whole = jnp.full(xs.shape[0], xs.shape[1], jnp.int32) if seq_lengths is None else seq_lengths
    return pool(layer(xs, seq_lengths=seq_lengths, rngs=rngs), whole, how)


def pool(ys, seq_lengths, how: str):
    """Mean, maximum or both of the valid positions of ys (B, T, H) whose padding is 0; zeros at length 0."""
    ys = ys.astype(jnp.float32)
    parts = []
    if how in ("mean", "mean_max"):
        parts.append(jnp.sum(ys, axis=1) / jnp.maximum(seq_lengths, 1)[:, None])
    if how in ("max", "mean_max"):
        valid = valid_mask(seq_lengths, ys.shape[1])[:, :, None]
        highest = jnp.max(jnp.where(valid, ys, -jnp.inf), axis=1, initial=-jnp.inf)
        parts.append(jnp.where(seq_lengths[:, None] > 0, highest, 0.0))
    return jnp.concatenate(parts, axis=-1)
