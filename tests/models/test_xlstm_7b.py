"""xLSTM 7B, its block and its language model, token by token, padded and continued.

The numbers of the official code are in `tests.interop.test_xlstm_7b` and `test_xlstm_options`.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from qlstm_jax.cells import common
from qlstm_jax.models.generate import generate
from qlstm_jax.models.xlstm import XLSTMConfig, XLSTMLanguageModel, XLSTMStack
from qlstm_jax.models.xlstm_7b import MLSTM7BBlock, MLSTM7BConfig

B, T, H, N, V = 3, 7, 8, 2, 11
CONFIG = MLSTM7BConfig(embedding_size=H, num_blocks=3, num_heads=N, feedforward_multiple=8, gate_cap=2.5, chunk_size=3)
LENGTHS, FULL = np.array([7, 0, 4], np.int32), np.full(B, T, np.int32)
VALID = np.arange(T) < LENGTHS[:, None]
XS = np.random.default_rng(0).normal(size=(B, T, H)).astype(np.float32)
TOKENS = np.random.default_rng(4).integers(0, V, (B, T)).astype(np.int32)
WEIGHTS = np.random.default_rng(1).normal(size=(B, T, H)).astype(np.float32)


@pytest.fixture(scope="module")
def block():
    return drawn(MLSTM7BBlock, CONFIG)


@pytest.fixture(scope="module")
def model():
    """Its logits reach the cap."""
    config = MLSTM7BConfig(**vars(CONFIG) | {"num_blocks": 2, "vocab_size": V, "logit_cap": 3.0})
    module = drawn(XLSTMLanguageModel, config)
    module.head.kernel[...] = 4 * module.head.kernel[...]
    return module


def drawn(kind, config):
    """With random parameters, of gates some beyond the cap."""
    module = nnx.eval_shape(lambda: kind(config, rngs=nnx.Rngs(params=0)))
    rng = np.random.default_rng(2)
    draw = jax.tree.map(lambda a: jnp.asarray(0.5 * rng.normal(size=a.shape), a.dtype), nnx.state(module))
    nnx.update(module, draw)
    for _, part in nnx.iter_graph(module):
        if isinstance(part, MLSTM7BBlock):
            part.gate_bias[...] = 4 * part.gate_bias[...]
    return module


@jax.jit
def run(module, xs, lengths, carry):
    """((ys, carry), gradients by parameters, xs and carry) of the sum of ys * WEIGHTS."""
    graph, params = nnx.split(module)

    def total(params, xs, carry):
        carry, ys = nnx.merge(graph, params)(xs, seq_lengths=lengths, carry=carry, return_carry=True)
        return jnp.sum(ys * WEIGHTS), (ys, carry)

    gradients, outputs = jax.grad(total, argnums=(0, 1, 2), has_aux=True)(params, xs, carry)
    return outputs, gradients


def test_streams_and_padding(block):
    """From the middle of a stream: a call equals folded steps, and NaN in padding reaches nothing."""
    _, carry = run(block, XS[:, ::-1], FULL, block.initialize_carry(B))[0]
    outputs, gradients = run(block, XS, LENGTHS, carry)
    spoilt = np.where(VALID[:, :, None], XS, np.nan)
    chex.assert_trees_all_equal((outputs, gradients), run(block, spoilt, LENGTHS, carry))
    valid = jnp.asarray(VALID)
    folded = jax.jit(lambda xs: common.scan(block.step, carry, xs, valid=valid)[::-1])(XS)
    chex.assert_trees_all_close(outputs, folded, rtol=2e-5, atol=2e-5)
    assert not np.any(outputs[0][~VALID]) and not np.any(gradients[1][~VALID])
    assert all(np.any(a) for a in jax.tree.leaves(gradients))


def test_initial_values():
    block = jax.jit(lambda: MLSTM7BBlock(CONFIG, rngs=nnx.Rngs(0)))()
    np.testing.assert_allclose(block.gate_bias[...], [-10, -10, 3, 6])
    assert not np.any(block.gate_kernel[...])
    for norm in (block.norm, block.head_norm, block.feedforward_norm):
        assert np.all(norm.scale[...] == 1)
    assert abs(float(jnp.std(block.inputs.kernel[...])) / (2 / (5 * H)) ** 0.5 - 1) < 0.2
    assert abs(float(jnp.std(block.feedforward_out.kernel[...])) / (2 / 3 / H**0.5) - 1) < 0.2
    assert MLSTM7BConfig(embedding_size=4096, num_blocks=32).feedforward_size == 10944


def test_feedforward_size_is_that_of_the_official_code():
    """There (24 · 2.6667 + 15) // 16 · 16 is 64, though 24 · 2.6667 is 64.0008."""
    for factor in (8 / 3, 2.6667):
        options = {"embedding_size": 24, "num_blocks": 1, "num_heads": 2, "feedforward_multiple": 16}
        assert MLSTM7BConfig(**options, feedforward_factor=factor).feedforward_size == 64


# The language model.


@jax.jit
def read(model, tokens, lengths, carry):
    """(logits, carry)."""
    return model(tokens, seq_lengths=lengths, initial_carry=carry, return_carry=True)[::-1]


@jax.jit
def fold(model, tokens, lengths, carry):
    """(logits, carry) of `step` over the valid part of each row."""
    return common.scan(model.step, carry, tokens, valid=common.valid_mask(lengths, T))[::-1]


def test_language_model_streams_and_padding(model):
    """From the middle of a stream: a call equals folded steps; what stands in padding reaches nothing."""
    _, carry = read(model, TOKENS[:, ::-1], FULL, None)
    outputs = read(model, np.where(VALID, TOKENS, 1_000_000), LENGTHS, carry)
    chex.assert_trees_all_equal(outputs, read(model, TOKENS, LENGTHS, carry))
    chex.assert_trees_all_close(outputs, fold(model, TOKENS, LENGTHS, carry), rtol=3e-5, atol=3e-5)
    assert not np.any(outputs[0][~VALID]) and outputs[0].dtype == jnp.float32
    whole, _ = read(model, np.concatenate([TOKENS[:, ::-1], TOKENS], axis=1), FULL + FULL, None)
    np.testing.assert_allclose(outputs[0][VALID], whole[:, T:][VALID], rtol=3e-5, atol=3e-5)


def test_generates(model):
    """Prompts of unequal length in one call, then a token at a time, as by reading all of it anew."""
    lengths, steps = np.array([7, 1, 4], np.int32), 4
    tokens = generate(model, TOKENS, lengths, steps, jax.random.key(0), temperature=0)
    texts = np.zeros((B, T + steps), np.int32)
    for text, prompt, length, drawn_tokens in zip(texts, TOKENS, lengths, tokens, strict=True):
        text[: length + steps] = np.concatenate([prompt[:length], drawn_tokens])
    logits, _ = read(model, texts, lengths + steps, None)
    for row, length, drawn_tokens in zip(logits, lengths, tokens, strict=True):
        np.testing.assert_array_equal(jnp.argmax(row[length - 1 : length + steps - 1], axis=-1), drawn_tokens)
    assert len(np.unique(tokens)) > 1


def test_initial_values_of_the_language_model():
    config = MLSTM7BConfig(**vars(CONFIG) | {"vocab_size": 200})
    model = jax.jit(lambda: XLSTMLanguageModel(config, rngs=nnx.Rngs(0)))()
    for array in (model.embed.embedding, model.head.kernel):
        assert abs(float(jnp.std(array[...])) / (2 / (5 * H)) ** 0.5 - 1) < 0.1
    assert np.all(model.stack.norm.scale[...] == 1) and not model.stack.norm.centred
    assert (config.logit_cap, len(model.stack.blocks)) == (30.0, 3)


def test_the_cap_of_the_logits_is_an_option_of_every_config():
    config = {"embedding_size": H, "num_blocks": 1, "num_heads": N, "slstm_at": "all", "vocab_size": V}
    assert XLSTMConfig(**config).logit_cap is None
    free, capped = (drawn(XLSTMLanguageModel, XLSTMConfig(**config, logit_cap=cap)) for cap in (None, 0.5))
    (_, logits), (_, fewer) = (jax.jit(model.step)(None, TOKENS[:, 0]) for model in (free, capped))
    assert np.abs(logits).max() > 0.5
    np.testing.assert_allclose(fewer, 0.5 * np.tanh(logits / 0.5), rtol=1e-5, atol=1e-6)


def test_bfloat16():
    options = vars(CONFIG) | {"num_blocks": 1, "vocab_size": V}
    wide, module = (drawn(XLSTMLanguageModel, MLSTM7BConfig(**options | {"dtype": d})) for d in ("float32", "bfloat16"))
    (expected, _), (logits, carry) = (read(m, TOKENS, FULL, m.initialize_carry(B)) for m in (wide, module))
    assert logits.dtype == jnp.float32 and {a.dtype for a in carry[0]} == {jnp.dtype("float32")}
    assert 1e-4 < np.abs(logits - expected).max() < 0.2


def test_refuses_what_does_not_fit(model):
    with pytest.raises(ValueError, match="vocab_size is None"):
        XLSTMLanguageModel(CONFIG, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"expected integers of shape \(batch, time\)"):
        model(TOKENS[0])
    carry = model.initialize_carry(B)
    with pytest.raises(ValueError, match="expected a tuple of 2, one carry for each block"):
        model(TOKENS, initial_carry=carry[:1])
    with pytest.raises(ValueError, match=r"the carry is State\(C=float32\[2, 2, 2, 4\]"):
        model.step(model.initialize_carry(2), TOKENS[:, 0])
    with pytest.raises(ValueError, match=r"expected \(batch, time, 8\)"):
        drawn(XLSTMStack, CONFIG)(XS[:, :, :2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"embedding_size": 0}, "embedding_size is 0"),
        ({"num_heads": 3}, "embedding_size is 8; expected a multiple of num_heads, which is 3"),
        ({"num_heads": 8}, r"key_factor \* embedding_size is 4; expected a multiple of num_heads, which is 8"),
        ({"gate_cap": 0}, "gate_cap is 0; expected a number above 0"),
        ({"logit_cap": 0}, "logit_cap is 0; expected a number above 0"),
        ({"vocab_size": 0}, "vocab_size is 0"),
        ({"key_factor": 0.1}, r"key_factor \* embedding_size is 0; expected a multiple of num_heads, which is 8"),
        ({"dropout": 1.0}, r"dropout is 1\.0"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        MLSTM7BConfig(**{"embedding_size": 8, "num_blocks": 1, **options})
