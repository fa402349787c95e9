"""Tokens in, an output at every position: a tagger, or, where nothing looks ahead, a language model."""

from flax import nnx


class TokenModel(nnx.Module):
    """Embedding, a sequence layer, a linear readout at each position.

    Args:
        vocab_size: V.
        output_size: K, symbols of the output.
        layer: a sequence layer of `qlstm_jax.nnx`, or what has its frame, that reads `embedding_size` channels.
        embedding_size: channels of a token.
        dropout: rate before the readout.
        embedding_dropout: rate on the embedded tokens.
        rngs: for the initial parameters.
    """

    def __init__(
        self,
        vocab_size: int,
        output_size: int,
        layer,
        *,
        embedding_size: int,
        dropout: float = 0.0,
        embedding_dropout: float = 0.0,
        rngs: nnx.Rngs,
    ):
        self.embed = nnx.Embed(vocab_size, embedding_size, rngs=rngs)
        self.embedding_dropout = nnx.Dropout(embedding_dropout)
        self.layer = layer
        self.dropout = nnx.Dropout(dropout)
        self.head = nnx.Linear(layer.output_size, output_size, rngs=rngs)

    def __call__(self, ids, *, lengths=None, rngs=None):
        """ids (B, T) to logits (B, T, K)."""
        ys = self.layer(self.embedding_dropout(self.embed(ids), rngs=rngs), lengths=lengths, rngs=rngs)
        return self.head(self.dropout(ys.astype(self.head.kernel.dtype), rngs=rngs))
