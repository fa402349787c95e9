"""Tokens in, one label out."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Integer

from qlstm_jax.cells import common
from qlstm_jax.models.checks import check_model
from qlstm_jax.models.pooling import POOLINGS, packed_summary, pooled_size, summary
from qlstm_jax.models.streams import PooledCarry, pooled_start, pooled_step
from qlstm_jax.nnx.arguments import keeps_arguments
from qlstm_jax.nnx.checks import check_dropout
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

    Raises:
        TypeError: for a layer or rngs that are none.
        ValueError: for a size, rate, pooling or flag out of range.
    """

    @keeps_arguments
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
        rates = {"dropout": dropout, "embedding_dropout": embedding_dropout}
        sizes = {"vocab_size": vocab_size, "num_classes": num_classes, "embedding_size": embedding_size}
        check_model(layer, rngs, rates=rates, **sizes)
        common.check_choice("pooling", pooling, POOLINGS)
        common.check_flags(variational=variational)
        self.embed = nnx.Embed(vocab_size, embedding_size, rngs=rngs)
        self.embedding_dropout = nnx.Dropout(embedding_dropout, broadcast_dims=(1,) if variational else ())
        self.layer = layer
        self.pooling = pooling
        self.dropout = nnx.Dropout(dropout)
        self.head = nnx.Linear(pooled_size(layer, pooling), num_classes, rngs=rngs)

    def __call__(
        self, ids: Integer[ArrayLike, "batch time"], *, seq_lengths: Any, rngs: nnx.Rngs | Array | None = None
    ) -> Float[Array, "batch classes"]:
        """ids (B, T) and seq_lengths (B,) to logits (B, num_classes). A row of length 0 is pooled to zeros.

        Raises:
            TypeError: if ids are no array of integers, or rngs is nothing to draw with.
            ValueError: if a shape does not fit, a length lies outside 0..T, or a valid id outside 0..V−1.
        """
        xs = self._embedded(ids, seq_lengths, rngs)
        return self._logits(summary(self.layer, xs, seq_lengths, self.pooling, rngs), rngs)

    def packed(
        self,
        ids: Integer[ArrayLike, "batch time"],
        *,
        seq_lengths: Any,
        resets: Any,
        max_sequences: int,
        rngs: nnx.Rngs | Array | None = None,
    ) -> Float[Array, "batch sequences classes"]:
        """The logits of several texts a row, each equal to those of a call on it alone but for dropout's draws.

        `qlstm_jax.data.packing.pack` makes such rows.

        Args:
            ids: (B, T).
            seq_lengths: (B,) number of valid positions.
            resets: (B, T) booleans, true where a text begins.
            max_sequences: P, at least the number of texts of any row.
            rngs: for dropout.

        Returns:
            logits (B, P, num_classes), in the order of the texts; where a row has fewer than P, those of zeros.

        Raises:
            TypeError, ValueError: as a call does, or if max_sequences is no positive integer.
        """
        xs = self._embedded(ids, seq_lengths, rngs)
        return self._logits(
            packed_summary(self.layer, xs, seq_lengths, resets, self.pooling, max_sequences, rngs), rngs
        )

    def _embedded(self, ids: Any, seq_lengths: Any, rngs: nnx.Rngs | Array | None) -> Array:
        check_dropout(None, rngs, self.embedding_dropout, self.dropout)
        ids = common.check_ids("ids", ids, self.embed.num_embeddings, seq_lengths=seq_lengths)
        xs: Array = self.embedding_dropout(self.embed(ids), rngs=rngs)
        return xs

    @property
    def has_carry(self) -> bool:
        """Whether it reads streams, as the layer says."""
        return self.layer.has_carry

    def initialize_carry(self, batch_size: int) -> PooledCarry:
        """The carry of `step` before the first token.

        Raises:
            ValueError: unless `has_carry`.
        """
        return pooled_start(self.layer, batch_size, self.pooling)

    def step(
        self, carry: PooledCarry, ids: Integer[ArrayLike, " batch"], *, reset: ArrayLike | None = None
    ) -> tuple[PooledCarry, Float[Array, "batch classes"]]:
        """One token a row, (B,) to (carry, the logits (B, num_classes) of all tokens so far), without dropout.

        Args:
            carry: from `initialize_carry`, or the step before.
            ids: (B,).
            reset: optional (B,) booleans, true where a new text begins with this token.

        Raises:
            ValueError: if the carry or the reset does not fit.
        """
        carry, pooled = pooled_step(self.layer, carry, self.embed(jnp.asarray(ids)), self.pooling, reset)
        return carry, self.head(pooled.astype(jnp.float32))

    def _logits(self, pooled: Float[Array, "*rows features"], rngs: nnx.Rngs | Array | None) -> Array:
        logits: Array = self.head(self.dropout(pooled.astype(jnp.float32), rngs=rngs))
        return logits
