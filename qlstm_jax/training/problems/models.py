"""The models that several problems have in common, as a config's `model` section describes them."""

from qlstm_jax import registry
from qlstm_jax.models import Predictor, TokenModel


def token_model(model, vocab_size: int, output_size: int, rngs) -> TokenModel:
    """From `vocab_size` symbols to `output_size` ones at each position."""
    return TokenModel(
        vocab_size,
        output_size,
        registry.build_layer(model, model.embedding_size, rngs=rngs),
        embedding_size=model.embedding_size,
        dropout=model.dropout,
        embedding_dropout=model.embedding_dropout,
        rngs=rngs,
    )


def predictor(model, channels: int, output_size: int, rngs) -> Predictor:
    """From sequences of `channels` numbers a step, without an embedding, to `output_size` numbers."""
    layer = registry.build_layer(model, channels, rngs=rngs)
    return Predictor(layer, output_size, pooling=model.pooling, dropout=model.dropout, rngs=rngs)
