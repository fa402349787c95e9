"""Vectors in, one vector out: classes of a sequence, a number, or a forecast."""

import jax.numpy as jnp
from flax import nnx

from qlstm_jax.models.classifier import summary


class Predictor(nnx.Module):
    """A sequence layer, pooling over time, a linear readout.

    Args:
        layer: a sequence layer of `qlstm_jax.nnx`, or what has its frame, that reads C channels.
        output_size: K.
        pooling: "last" output, "mean" or "max" over the valid positions, or "mean_max", both side by side.
        dropout: rate before the readout.
        rngs: for the initial parameters.
    """

    def __init__(self, layer, output_size: int, *, pooling: str = "last", dropout: float = 0.0, rngs: nnx.Rngs):
        self.layer = layer
        self.pooling = pooling
        self.dropout = nnx.Dropout(dropout)
        features = layer.output_size * (2 if pooling == "mean_max" else 1)
        self.head = nnx.Linear(features, output_size, rngs=rngs)

    def __call__(self, xs, *, seq_lengths=None, rngs=None):
        """xs (B, T, C) and seq_lengths (B,), None for T each, to (B, K). A row of length 0 is pooled to zeros."""
        pooled = summary(self.layer, xs, seq_lengths, self.pooling, rngs)
        return self.head(self.dropout(pooled.astype(jnp.float32), rngs=rngs))
