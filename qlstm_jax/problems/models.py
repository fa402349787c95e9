"""The models that several problems have in common, as a config's `model` section describes them."""

from typing import Any

from flax import nnx
from ml_collections import ConfigDict

from qlstm_jax.models import Classifier, Predictor, TokenModel
from qlstm_jax.models.layers import build_layer


def _tokens(model: ConfigDict, rngs: nnx.Rngs) -> dict[str, Any]:
    """Returns the options that all models over tokens share."""
    return {
        "layer": build_layer(model, model.embedding_size, rngs=rngs),
        "embedding_size": model.embedding_size,
        "dropout": model.dropout,
        "embedding_dropout": model.embedding_dropout,
        "variational": model.variational,
        "rngs": rngs,
    }


def classifier(model: ConfigDict, vocab_size: int, num_classes: int, rngs: nnx.Rngs) -> Classifier:
    """Returns a model from `vocab_size` symbols to one of `num_classes` a sequence."""
    return Classifier(vocab_size, num_classes, pooling=model.pooling, **_tokens(model, rngs))


def token_model(model: ConfigDict, vocab_size: int, output_size: int, rngs: nnx.Rngs) -> TokenModel:
    """Returns a model from `vocab_size` symbols to `output_size` ones at each position."""
    return TokenModel(vocab_size, output_size, **_tokens(model, rngs))


def predictor(model: ConfigDict, channels: int, output_size: int, rngs: nnx.Rngs) -> Predictor:
    """Returns a model from `channels` numbers a step, without an embedding, to `output_size` numbers."""
    layer = build_layer(model, channels, rngs=rngs)
    return Predictor(layer, output_size, pooling=model.pooling, dropout=model.dropout, rngs=rngs)
