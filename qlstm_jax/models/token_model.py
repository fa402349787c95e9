"""Tokens in, an output at every position: a tagger or, with a layer that reads forward, a language model."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Integer

from qlstm_jax.models.streams import layer_step
from qlstm_jax.nnx.arguments import keeps_arguments
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
        self.embed = nnx.Embed(vocab_size, embedding_size, rngs=rngs)
        self.embedding_dropout = nnx.Dropout(embedding_dropout, broadcast_dims=(1,) if variational else ())
        self.layer = layer
        self.dropout = nnx.Dropout(dropout)
        self.head = nnx.Linear(layer.output_size, output_size, rngs=rngs)

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
            ValueError: as the layer does, for a carry that does not fit or of a layer that has none.
        """
        xs = self.embedding_dropout(self.embed(jnp.asarray(ids)), rngs=rngs)
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
