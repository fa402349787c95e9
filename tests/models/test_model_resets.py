"""Models that read rows of several sequences give what they give for each alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from qlstm_jax import nnx as layers
from qlstm_jax.data.packing import pack, unpack
from qlstm_jax.models import XLSTM, Classifier, MLSTM7BConfig, TokenModel, Transformer, XLSTMConfig, XLSTMLanguageModel

V, D, H = 7, 4, 8
LENGTHS = [5, 1, 3, 9, 2, 4]


@pytest.fixture
def sequences():
    rng = np.random.default_rng(0)
    return [rng.integers(1, V, n).astype(np.int32) for n in LENGTHS]


def padded(sequences):
    ids = np.zeros((len(sequences), max(LENGTHS)), np.int32)
    for row, sequence in zip(ids, sequences, strict=True):
        row[: len(sequence)] = sequence
    return ids, np.array(LENGTHS)


LAYERS = {
    "transformer": lambda rngs: Transformer(D, H, num_layers=2, causal=True, rngs=rngs),
    "transformer, sinusoidal": lambda rngs: Transformer(D, H, positions="sinusoidal", rngs=rngs),
    "transformer, alibi": lambda rngs: Transformer(D, H, positions="alibi", rngs=rngs),
    "xlstm": lambda rngs: XLSTM(D, H, num_layers=2, slstm_at="1", num_heads=2, chunk_size=4, rngs=rngs),
    "lstm, both ways": lambda rngs: layers.LSTM(D, H, num_layers=2, bidirectional=True, rngs=rngs),
    "pr_lstm": lambda rngs: layers.PRLSTM(D, H, rngs=rngs),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_token_model_in_packed_rows(kind, sequences):
    model = TokenModel(V, V, LAYERS[kind](nnx.Rngs(0)), embedding_size=D, rngs=nnx.Rngs(1))
    packed = pack(sequences, 10)
    assert len(packed.ids) == 3

    def outputs(model, ids, **options):
        return model(ids, **options)

    run = nnx.jit(outputs)
    logits = unpack(run(model, packed.ids, seq_lengths=packed.lengths, resets=packed.resets), packed)
    ids, lengths = padded(sequences)
    alone = run(model, ids, seq_lengths=lengths)
    for found, wanted, length in zip(logits, alone, lengths, strict=True):
        np.testing.assert_allclose(found, wanted[:length], atol=2e-6)


@pytest.mark.parametrize("kind", ["xlstm", "7b"])
def test_language_model_steps_through_resets(kind):
    sizes = {"vocab_size": V, "embedding_size": H, "num_blocks": 2, "num_heads": 2, "chunk_size": 4}
    config = MLSTM7BConfig(**sizes) if kind == "7b" else xlstm_config(**sizes)
    model = XLSTMLanguageModel(config, rngs=nnx.Rngs(0))
    ids = np.random.default_rng(0).integers(0, V, (3, 9))
    resets = np.zeros((3, 9), bool)
    resets[0, 4], resets[1, [0, 1, 5]] = True, True
    lengths = np.array([9, 7, 9])
    start, _ = nnx.jit(lambda model: model(ids[:, :3], return_carry=True))(model)
    continued = {"seq_lengths": lengths, "resets": resets, "return_carry": True}
    end, logits = nnx.jit(lambda model, carry: model(ids, initial_carry=carry, **continued))(model, start)
    carry = start
    step = nnx.jit(lambda model, carry, ids, reset: model.step(carry, ids, reset=reset))
    for t in range(9):
        new, y = step(model, carry, ids[:, t], resets[:, t])
        ok = t < lengths
        carry = jax.tree.map(lambda n, c, ok=ok: jnp.where(ok.reshape(-1, *[1] * (n.ndim - 1)), n, c), new, carry)
        np.testing.assert_allclose(logits[:, t], np.where(ok[:, None], y, 0), atol=2e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), end, carry)


def xlstm_config(**sizes):
    return XLSTMConfig(slstm_at="1", **sizes)


@pytest.mark.parametrize("pooling", ["last", "mean", "max", "mean_max"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_classifier_of_packed_rows(pooling, bidirectional, sequences):
    layer = layers.GRU(D, H, bidirectional=bidirectional, rngs=nnx.Rngs(0))
    model = Classifier(V, 3, layer, embedding_size=D, pooling=pooling, rngs=nnx.Rngs(1))
    packed = pack(sequences, 10)
    ids, lengths = padded(sequences)
    coefficients = np.random.default_rng(1).normal(size=(len(sequences), 3)).astype(np.float32)
    there = packed.sequence >= 0

    @nnx.jit
    def packed_run(model):
        def total(model):
            logits = model.packed(packed.ids, seq_lengths=packed.lengths, resets=packed.resets, max_sequences=4)
            found = logits[:, : there.shape[1]]
            return jnp.sum(jnp.where(there[:, :, None], found * coefficients[packed.sequence], 0)), logits

        return nnx.grad(total, has_aux=True)(model)

    @nnx.jit
    def alone(model):
        def total(model):
            logits = model(ids, seq_lengths=lengths)
            return jnp.sum(logits * coefficients), logits

        return nnx.grad(total, has_aux=True)(model)

    gradient, logits = packed_run(model)
    expected_gradient, expected = alone(model)
    for row, members in enumerate(packed.sequence):
        members = members[members >= 0]
        np.testing.assert_allclose(logits[row, : len(members)], expected[members], atol=1e-6)
        np.testing.assert_allclose(logits[row, len(members) :], np.tile(model.head.bias, (4 - len(members), 1)))
    pairs = zip(jax.tree.leaves(gradient), jax.tree.leaves(expected_gradient), strict=True)
    for found, wanted in pairs:
        np.testing.assert_allclose(found, wanted, atol=1e-5)
