import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from qlstm_jax import nnx as layers
from qlstm_jax.models import TokenModel, Transformer
from qlstm_jax.models.generate import filter_logits, generate

V, E, H, STEPS = 11, 6, 8, 4
PROMPTS = np.random.default_rng(0).integers(0, V, (4, 5)).astype(np.int32)
LENGTHS = np.array([5, 1, 3, 4], np.int32)
LAYERS = {
    "ql_lstm": lambda: layers.QLSTM(E, H, block_size=2, num_layers=2, dropout=0.5, rngs=nnx.Rngs(0)),
    "pr_lstm": lambda: layers.PRLSTM(E, H, max_offset=3, rngs=nnx.Rngs(0)),
    "transformer": lambda: Transformer(E, H, num_heads=2, causal=True, rngs=nnx.Rngs(0)),
}


def language_model(layer):
    """In training mode, as what comes out of training is; its readout is large, so that likeliest tokens vary."""
    model = TokenModel(V, V, LAYERS[layer](), embedding_size=E, dropout=0.5, rngs=nnx.Rngs(1))
    model.head.kernel[...] = 8 * model.head.kernel[...]
    return model


def folded(model, window=None):
    """The likeliest tokens, each from a reading of all tokens before it, or of the last `window`, from the start."""
    model.eval()
    width = window or PROMPTS.shape[1] + STEPS
    graphdef, state = nnx.split(model)
    model.train()
    read = jax.jit(lambda ids, n: nnx.merge(graphdef, state)(ids, seq_lengths=n))
    rows = [list(prompt[:n]) for prompt, n in zip(PROMPTS, LENGTHS, strict=True)]
    for _ in range(STEPS):
        seen = [row[-width:] for row in rows]
        ids = np.array([row + [0] * (width - len(row)) for row in seen], np.int32)
        logits = np.asarray(read(ids, np.array([len(row) for row in seen], np.int32)))
        for number, row in enumerate(rows):
            row.append(int(np.argmax(logits[number, len(seen[number]) - 1])))
    return np.array([row[n:] for row, n in zip(rows, LENGTHS, strict=True)])


@pytest.mark.parametrize("layer", LAYERS)
def test_the_likeliest_token_each_time(layer):
    model = language_model(layer)
    expected = folded(model)
    assert len(set(expected.ravel())) > 2
    garbage = np.where(np.arange(5) < LENGTHS[:, None], PROMPTS, (PROMPTS + 1) % V)  # of the padding
    for prompts in (PROMPTS, garbage):
        found = generate(model, prompts, LENGTHS, STEPS, jax.random.key(0), temperature=0)
        np.testing.assert_array_equal(found, expected)


def test_a_window_of_the_last_tokens():
    model = language_model("transformer")
    expected = folded(model, window=3)
    assert (expected != folded(model)).any()
    found = generate(model, PROMPTS, LENGTHS, STEPS, jax.random.key(0), temperature=0, window=3)
    np.testing.assert_array_equal(found, expected)


LOGITS = np.array([2.0, -1.0, 1.5, 0.0, 1.5, -3.0, 0.5, 1.0, -0.5, 0.2, -2.0], np.float32)


def filtered_by_numpy(logits, top_k, top_p):
    """Token by token from the likeliest on, until there are k or their share of the first k's chances reaches p."""
    ranked = sorted(range(len(logits)), key=lambda i: (-logits[i], i))[: top_k or None]
    chances = {i: np.exp(np.float64(logits[i])) for i in ranked}
    total, kept, reached = sum(chances.values()), [], 0.0
    for i in ranked:
        if reached / total >= top_p:
            break
        kept.append(i)
        reached += chances[i]
    return np.array([logits[i] if i in kept else -np.inf for i in range(len(logits))])


@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.5, 1e-6])
@pytest.mark.parametrize("top_k", [0, 1, 2, 5, 11, 99])
def test_filter_against_numpy(top_k, top_p):
    rows = np.stack([LOGITS, np.random.default_rng(1).normal(size=V).astype(np.float32), np.zeros(V, np.float32)])
    found = filter_logits(jnp.asarray(rows), top_k=top_k, top_p=top_p)
    for row, logits in zip(np.asarray(found), rows, strict=True):
        np.testing.assert_array_equal(row, filtered_by_numpy(logits, top_k, top_p).astype(np.float32))


def test_draws_have_the_filtered_distribution():
    """A model whose logits are the same whatever it reads: 2 · 3,000 draws of frequencies known to within 0.03."""
    model = language_model("ql_lstm")
    model.head.kernel[...] = 0 * model.head.kernel[...]
    model.head.bias[...] = jnp.asarray(LOGITS)
    options = {"temperature": 1.7, "top_k": 6, "top_p": 0.9}
    prompts, ones = np.zeros((3000, 1), np.int32), np.ones(3000, np.int32)
    drawn = np.asarray(generate(model, prompts, ones, 2, jax.random.key(0), **options))
    chances = np.exp(filtered_by_numpy(LOGITS / np.float32(1.7), 6, 0.9))
    for step in range(2):
        frequencies = np.bincount(drawn[:, step], minlength=V) / 3000
        np.testing.assert_allclose(frequencies, chances / chances.sum(), atol=0.03)
        assert not frequencies[chances == 0].any()
    assert abs((drawn[:, 0] == drawn[:, 1]).mean() - (chances**2).sum() / chances.sum() ** 2) < 0.03  # other keys
    again = generate(model, prompts, ones, 2, jax.random.key(0), **options)
    np.testing.assert_array_equal(again, drawn)
    assert (np.asarray(generate(model, prompts, ones, 2, jax.random.key(1), **options)) != drawn).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_k": -1}, "top_k is -1"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"steps": 0}, "tokens is 0"),
        ({"window": 0}, "window is 0"),
        ({"seq_lengths": np.array([5, 0, 3, 4])}, r"seq_lengths run from 0 to 5; expected 1\.\.5"),
        ({"seq_lengths": np.array([5, 1, 3, 6])}, "seq_lengths run from 1 to 6"),
        ({"seq_lengths": np.array([5, 1])}, r"seq_lengths \(2,\)"),
    ],
)
def test_settings_that_cannot_be(options, message):
    arguments = {"prompts": PROMPTS, "seq_lengths": LENGTHS, "steps": STEPS, "key": jax.random.key(0), **options}
    with pytest.raises(ValueError, match=message):
        generate(None, **arguments)
