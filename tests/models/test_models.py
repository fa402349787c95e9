import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from qlstm_jax import nnx as layers
from qlstm_jax.models import Classifier, Transducer
from qlstm_jax.models.pooling import pool

V, C, E, H, T = 7, 3, 4, 5, 6
LENGTHS = np.array([6, 0, 3, 1], np.int32)


def token_ids(seed=0):
    return np.random.default_rng(seed).integers(0, V, (4, T)).astype(np.int32)


@nnx.jit
def read(model, *args, **options):
    return model(*args, **options)


@nnx.jit
def read_last(model, *args, **options):
    return model.last(*args, **options)


def classifier(layer=layers.LSTM, *, bidirectional=False, **options):
    recurrent = layer(E, H, bidirectional=bidirectional, rngs=nnx.Rngs(0))
    return Classifier(V, C, recurrent, embedding_size=E, rngs=nnx.Rngs(1), **options)


def pooled_by_numpy(model, ids, how):
    """Row by row, each cut to its length, so that there is no padding to mask; the cell is that of cells/rnn.py."""
    cell = model.layer.cells[0]
    variables = (cell.input_kernel, cell.recurrent_kernel, cell.bias, model.embed.embedding)
    w, u, b, table = (np.asarray(v[...]) for v in variables)
    rows = []
    for row, length in zip(ids, LENGTHS, strict=True):
        if length == 0:
            rows.append(np.zeros(model.head.kernel.shape[0]))
            continue
        hs = [np.zeros(H)]
        for x in table[row[:length]]:
            hs.append(np.tanh(x @ w + hs[-1] @ u + b))
        ys = np.stack(hs[1:])
        parts = {"last": [ys[-1]], "mean": [ys.mean(0)], "max": [ys.max(0)], "mean_max": [ys.mean(0), ys.max(0)]}
        rows.append(np.concatenate(parts[how]))
    return np.stack(rows)


@pytest.mark.parametrize("pooling", ["last", "mean", "max", "mean_max"])
def test_classifier_against_numpy(pooling):
    model = classifier(layers.SimpleRNN, pooling=pooling)
    model.eval()
    ids = token_ids()
    logits = read(model, ids, seq_lengths=LENGTHS)
    expected = pooled_by_numpy(model, ids, pooling) @ np.asarray(model.head.kernel) + np.asarray(model.head.bias)
    assert logits.shape == (4, C)
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    np.testing.assert_allclose(logits[1], model.head.bias, atol=1e-7)  # length 0
    garbage = np.where(np.arange(T) < LENGTHS[:, None], ids, token_ids(1))
    np.testing.assert_array_equal(read(model, garbage, seq_lengths=LENGTHS), logits)


def test_pool_of_negative_outputs_takes_no_padding():
    """Padding is 0, which lies above every valid output here."""
    ys = -1.0 - np.random.default_rng(0).random((2, 4, 3)).astype(np.float32)
    lengths = np.array([2, 0])
    ys = np.where((np.arange(4) < lengths[:, None])[:, :, None], ys, 0)
    got = pool(jnp.asarray(ys), jnp.asarray(lengths), "mean_max")
    np.testing.assert_allclose(got[0], np.concatenate([ys[0, :2].mean(0), ys[0, :2].max(0)]), rtol=1e-6)
    np.testing.assert_array_equal(got[1], np.zeros(6))


@pytest.mark.parametrize("how", ["mean", "max", "mean_max"])
def test_pool_of_no_positions_has_a_finite_gradient(how):
    def total(ys):
        return jnp.sum(pool(ys, jnp.array([0, 2]), how))

    grads = jax.jit(jax.grad(total))(jnp.ones((2, 2, 3)))
    assert np.isfinite(grads).all()
    if how == "max":  # the mean takes padding to be 0, and leaves it to the layer to cut its gradient
        np.testing.assert_array_equal(grads[0], 0)
    assert np.abs(grads[1]).sum() > 0


def test_bidirectional_classifier_reads_both_ways():
    model = classifier(layers.GRU, bidirectional=True, pooling="last")
    model.eval()
    ids = token_ids()
    logits = read(model, ids, seq_lengths=LENGTHS)
    assert model.head.kernel.shape == (2 * H, C)
    alone = read(model, ids[2:3, :3], seq_lengths=LENGTHS[2:3])
    np.testing.assert_allclose(alone[0], logits[2], atol=1e-5)
    # The backward half ends at the first token, and reads the last one first.
    half = np.asarray(read_last(model.layer, model.embed(ids), seq_lengths=LENGTHS))[:, H:]
    other = ids.copy()
    other[0, 5] = (other[0, 5] + 1) % V
    changed = np.asarray(read_last(model.layer, model.embed(other), seq_lengths=LENGTHS))[:, H:]
    assert np.abs(changed[0] - half[0]).max() > 1e-6
    np.testing.assert_allclose(changed[2], half[2], atol=1e-6)


@pytest.mark.parametrize("which", ["dropout", "embedding_dropout"])
def test_dropout_acts_in_training_alone(which):
    model, plain = classifier(layers.SimpleRNN, **{which: 0.5}), classifier(layers.SimpleRNN)
    ids = token_ids()

    def logits(seed):
        return np.asarray(read(model, ids, seq_lengths=LENGTHS, rngs=nnx.Rngs(dropout=seed)))

    model.train()
    np.testing.assert_array_equal(logits(0), logits(0))
    assert np.abs(logits(0) - logits(1)).max() > 1e-3
    model.eval()
    np.testing.assert_array_equal(logits(0), logits(1))
    np.testing.assert_allclose(read(model, ids, seq_lengths=LENGTHS), read(plain, ids, seq_lengths=LENGTHS), atol=1e-6)


def test_dropout_keeps_the_mean():
    """Masks are scaled by 1 / (1 - rate): the logits, linear in them, average to those without."""
    model = classifier(layers.SimpleRNN, dropout=0.5)
    model.train()
    ids = np.tile(token_ids()[:1], (4000, 1))
    lengths = np.full(4000, T, np.int32)
    noisy = np.asarray(read(model, ids, seq_lengths=lengths, rngs=nnx.Rngs(dropout=0))).mean(0)
    model.eval()
    np.testing.assert_allclose(noisy, read(model, ids[:1], seq_lengths=lengths[:1])[0], atol=0.05)


@pytest.mark.parametrize("layer", [layers.LSTM, layers.PRLSTM])
@pytest.mark.parametrize("readout", ["relu", "none"])
def test_transducer_last_is_the_last_valid_position(layer, readout):
    model = Transducer(layer(E, H, rngs=nnx.Rngs(0)), C, readout=readout, rngs=nnx.Rngs(1))
    model.eval()
    xs = jax.random.normal(jax.random.key(0), (4, T, E))
    everywhere, last = read(model, xs, seq_lengths=LENGTHS), read_last(model, xs, seq_lengths=LENGTHS)
    assert everywhere.shape == (4, T, C)
    for row in (0, 2, 3):
        np.testing.assert_allclose(last[row], everywhere[row, LENGTHS[row] - 1], atol=1e-5)
    np.testing.assert_allclose(last[1], model.head.bias, atol=1e-7)  # length 0
    h = np.asarray(read(model.layer, xs, seq_lengths=LENGTHS))
    h = np.maximum(h, 0) if readout == "relu" else h
    expected = h @ np.asarray(model.head.kernel) + np.asarray(model.head.bias)
    np.testing.assert_allclose(everywhere, expected, atol=1e-5)
    assert (np.asarray(read(model.layer, xs)) < -1e-3).any()  # relu has something to cut


def test_transducer_dropout_needs_training_mode():
    model = Transducer(layers.SimpleRNN(E, H, rngs=nnx.Rngs(0)), C, dropout=0.5, rngs=nnx.Rngs(1))
    xs = jax.random.normal(jax.random.key(0), (2, T, E))
    model.train()
    drawn = [np.asarray(read_last(model, xs, rngs=nnx.Rngs(dropout=seed))) for seed in (0, 1)]
    assert np.abs(drawn[0] - drawn[1]).max() > 1e-3
    model.eval()
    np.testing.assert_array_equal(read_last(model, xs, rngs=nnx.Rngs(dropout=0)), read_last(model, xs))


@pytest.mark.parametrize("layer", [layers.LSTM, layers.QLSTM])
def test_bfloat16_activations_read_out_in_float32(layer):
    recurrent = layer(E, H, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    model = Classifier(V, C, recurrent, embedding_size=E, pooling="mean_max", rngs=nnx.Rngs(1))
    model.eval()
    logits = read(model, token_ids(), seq_lengths=LENGTHS)
    assert logits.dtype == jnp.float32
    full = classifier(layer, pooling="mean_max")
    full.eval()
    np.testing.assert_allclose(logits, read(full, token_ids(), seq_lengths=LENGTHS), atol=0.05)
