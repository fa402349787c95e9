"""Tokens in, an output at every position: a tagger or, with a layer that reads forward, a language model."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Integer

from qlstm_jax.cells import common
from qlstm_jax.models.checks import check_model
from qlstm_jax.models.streams import layer_step
from qlstm_jax.nnx.arguments import keeps_arguments
from qlstm_jax.nnx.checks import check_dropout
from qlstm_jax.nnx.protocol import SequenceLayer


class TokenModel(nnx.Module):
    """Embedding, a sequence layer, a linear readout at each position.

    Args:
        vocab_size: V.
        output_size: K, symbols of the output.
        layer: a `SequenceLayer` that reads `embedding_size` features.
        embedding_size: features of a token.
        dropout: rate before the readout.
        embedding_dropout: rate on the embedded tokens.
        variational: whether that drops the same features at all positions of a row (arXiv 1512.05287).
        rngs: for the initial parameters.

    Raises:
        TypeError: for a layer or rngs that are none.
        ValueError: for a size, rate or flag out of range.
    """

    @keeps_arguments
    def __init__(
        self,
        vocab_size: int,
        output_size: int,
        layer: SequenceLayer,
        *,
        embedding_size: int,
        dropout: float = 0.0,
        embedding_dropout: float = 0.0,
        variational: bool = False,
        rngs: nnx.Rngs,
    ) -> None:
        rates = {"dropout": dropout, "embedding_dropout": embedding_dropout}
        sizes = {"vocab_size": vocab_size, "output_size": output_size, "embedding_size": embedding_size}
        check_model(layer, rngs, rates=rates, **sizes)
        common.check_flags(variational=variational)
        self.embed = nnx.Embed(vocab_size, embedding_size, rngs=rngs)
        self.embedding_dropout = nnx.Dropout(embedding_dropout, broadcast_dims=(1,) if variational else ())
        self.layer = layer
        self.dropout = nnx.Dropout(dropout)
        self.head = nnx.Linear(layer.output_size, output_size, rngs=rngs)

    @property
    def vocab_size(self) -> int:
        """V: ids are 0..V−1."""
        size: int = self.embed.num_embeddings
        return size

    @property
    def has_carry(self) -> bool:
        """Whether a sequence can be continued in another call, as the layer says."""
        return self.layer.has_carry

    def initialize_carry(self, batch_size: int) -> Any:
        """The layer's carry before the first token; raises ValueError unless `has_carry`."""
        return self.layer.initialize_carry(batch_size)

    def __call__(
        self,
        ids: Integer[ArrayLike, "batch time"],
        *,
        seq_lengths: Any = None,
        resets: Any = None,
        initial_carry: Any = None,
        return_carry: bool = False,
        rngs: nnx.Rngs | Array | None = None,
    ) -> Any:
        """The logits at every position.

        Args:
            ids: (B, T).
            seq_lengths: optional (B,) number of valid positions; logits beyond are undefined.
            resets: optional (B, T) booleans, true where a new sequence begins: each is read as if alone.
            initial_carry: where to continue from; default `initialize_carry`.
            return_carry: whether to return the carry after each row's last valid position too.
            rngs: for dropout.

        Returns:
            logits (B, T, K); with return_carry (carry, logits).

        Raises:
            TypeError: if ids are no array of integers, or rngs is nothing to draw with.
            ValueError: if a valid id lies outside 0..V−1, and as the layer does, for a carry that does not fit or of a
                layer that has none.
        """
        check_dropout(None, rngs, self.embedding_dropout, self.dropout)
        ids = common.check_ids("ids", ids, self.vocab_size, seq_lengths=seq_lengths)
        xs = self.embedding_dropout(self.embed(ids), rngs=rngs)
        options = {"seq_lengths": seq_lengths, "resets": resets, "return_carry": return_carry, "rngs": rngs}
        ys = self.layer(xs, initial_carry=initial_carry, **options)
        carry, ys = ys if return_carry else (None, ys)
        logits: Float[Array, "batch time k"] = self.head(self.dropout(ys.astype(self.head.kernel.dtype), rngs=rngs))
        return (carry, logits) if return_carry else logits

    def step(
        self, carry: Any, ids: Integer[ArrayLike, " batch"], *, reset: ArrayLike | None = None
    ) -> tuple[Any, Float[Array, "batch k"]]:
        """One token a row, (B,) to (carry, logits (B, K)), without dropout.

        Args:
            carry: from `initialize_carry`, or the step before.
            ids: (B,).
            reset: optional (B,) booleans, true where a new sequence begins with this token.

        Raises:
            ValueError: as a call.
        """
        carry, y = layer_step(self.layer, carry, self.embed(jnp.asarray(ids)), reset)
        return carry, self.head(y.astype(self.head.kernel.dtype))
