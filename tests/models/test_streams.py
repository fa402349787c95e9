"""A model that reads one token at a time says after each what a call on all so far says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from qlstm_jax import models
from qlstm_jax.nnx import GRU, LSTM, PRLSTM

B, T, D, H, V = 2, 5, 3, 4, 7
RNGS = {"params": 0, "dropout": 1}


def rngs():
    return nnx.Rngs(**RNGS)


MODELS = {
    pooling: lambda pooling=pooling: models.Classifier(
        V, 2, LSTM(D, H, rngs=rngs()), embedding_size=D, pooling=pooling, dropout=0.5, rngs=rngs()
    )
    for pooling in ("last", "mean", "max", "mean_max")
}
MODELS |= {
    "predictor": lambda: models.Predictor(PRLSTM(D, H, rngs=rngs()), 2, pooling="mean_max", dropout=0.5, rngs=rngs()),
    "tokens": lambda: models.TokenModel(
        V, 5, GRU(D, H, num_layers=2, dropout=0.5, rngs=rngs()), embedding_size=D, embedding_dropout=0.5, rngs=rngs()
    ),
    "transducer": lambda: models.Transducer(GRU(D, H, rngs=rngs()), 2, dropout=0.5, rngs=rngs()),
}


def inputs(name):
    rng = np.random.default_rng(0)
    if name in ("predictor", "transducer"):
        return jnp.asarray(rng.normal(size=(B, T, D)), jnp.float32)
    return jnp.asarray(rng.integers(0, V, (B, T)), jnp.int32)


@nnx.jit
def prefixes(model, xs):
    """What calls on each prefix say, (T, B, K)."""
    if isinstance(model, (models.TokenModel, models.Transducer)):
        return jnp.swapaxes(model(xs), 0, 1)
    lengths = jnp.arange(1, T + 1, dtype=jnp.int32)
    return jnp.stack([model(xs, seq_lengths=jnp.full(B, n)) for n in lengths])


@nnx.jit
def folded(model, xs, resets):
    def step(carry, x_and_reset):
        return model.step(carry, x_and_reset[0], reset=x_and_reset[1])

    return jax.lax.scan(step, model.initialize_carry(B), (jnp.swapaxes(xs, 0, 1), resets.T))[1]


@pytest.mark.parametrize("name", MODELS)
def test_steps_equal_calls(name):
    """The model is in training mode for the steps: they have no dropout in any mode."""
    model, xs = MODELS[name](), inputs(name)
    model.eval()
    expected = prefixes(model, xs)
    model.train()
    resets = np.zeros((B, T), bool)
    np.testing.assert_allclose(folded(model, xs, resets), expected, rtol=1e-5, atol=1e-6)
    resets[1, 2] = True
    ys = folded(model, xs, resets)
    np.testing.assert_allclose(ys[:, 0], expected[:, 0], rtol=1e-5, atol=1e-6)
    model.eval()
    anew = prefixes(model, jnp.roll(xs, -2, axis=1))
    np.testing.assert_allclose(ys[2:, 1], anew[: T - 2, 1], rtol=1e-5, atol=1e-6)


def test_a_model_that_reads_backward_has_no_stream():
    layer = GRU(D, H, bidirectional=True, rngs=rngs())
    for model in (
        models.Classifier(V, 2, layer, embedding_size=D, rngs=rngs()),
        models.Predictor(layer, 2, rngs=rngs()),
        models.Transducer(layer, 2, rngs=rngs()),
    ):
        assert not model.has_carry
        with pytest.raises(ValueError, match="a bidirectional layer has no carry"):
            model.initialize_carry(B)
