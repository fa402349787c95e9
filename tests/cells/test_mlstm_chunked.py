"""The matrix memory in chunks equals the plain forms, forward and backward, however it is cut up."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qlstm_jax.cells import mlstm
from qlstm_jax.cells.mlstm import chunked, matrix_memory
from tests.cells import test_matrix_memory as plain
from tests.cells.test_matrix_memory import CLOSE, GRADIENTS_CLOSE, assert_close, draw, golden, run  # noqa: F401

chunks = partial(mlstm.chunkwise, chunk_size=16)


LONGEST = 257


def gradients_of(form, inputs, state, weights, **options):
    def loss(inputs, state):
        outputs = form(*inputs, state, **options)
        return sum(jax.tree.leaves(jax.tree.map(lambda a, w: jnp.sum(a * w), outputs, weights))), outputs

    return jax.grad(loss, argnums=(0, 1), has_aux=True)(inputs, state)


@jax.jit
def padded_parallel(inputs, state, weights, lengths):
    """One program for all lengths."""
    return gradients_of(matrix_memory.parallel, inputs, state, weights, seq_lengths=lengths)


@pytest.mark.parametrize("steps", [1, 2, 31, 32, 33, 64, 100, LONGEST])
def test_lengths_of_a_sequence(steps):
    inputs, state = draw(1, LONGEST, gates=2.0)
    (*_, weight, _, _), weights = draw(1, LONGEST, seed=1)
    short, weight = [a[:, :steps] for a in inputs], weight.at[:, steps:].set(0)
    run_chunks = jax.jit(partial(gradients_of, partial(mlstm.chunkwise, chunk_size=32)))
    (g_inputs, g_state), (last, h) = run_chunks(short, state, (weights, weight[:, :steps]))
    expected = padded_parallel(inputs, state, (weights, weight), jnp.array([steps]))
    (e_inputs, e_state), (e_last, e_h) = expected
    assert_close((h, last), (e_h[:, :steps], e_last), 1e-5)
    assert_close((g_inputs, g_state), ([g[:, :steps] for g in e_inputs], e_state), 1e-5)


@pytest.mark.parametrize("group", [1, 1024], ids=["each", "some"])
def test_padding_resets_and_groups(group, monkeypatch):
    """Groups of one chunk and of several: 2 rows by 2 heads of 8 x 8 are 256 numbers a chunk."""
    monkeypatch.setattr(chunked, "GROUP", group)
    inputs, state = draw(2, 75)
    lengths, resets = np.array([75, 41]), np.random.default_rng(1).random((2, 75)) < 0.06
    resets[1, 60] = True  # in the padding: it must not drop the state
    padding = np.arange(75)[None, :] >= lengths[:, None]
    dirty = [jnp.where(padding.reshape(padding.shape + (1,) * (a.ndim - 2)), jnp.nan, a) for a in inputs]
    options = {"seq_lengths": lengths, "resets": jnp.asarray(resets)}
    outputs, gradients = run(partial(mlstm.chunkwise, chunk_size=8), dirty, state, **options)
    expected = run(matrix_memory.recurrent, dirty, state, **options)
    assert_close(outputs, expected[0], CLOSE)
    assert_close(gradients, expected[1], GRADIENTS_CLOSE)
    assert_close(outputs, plain.oracle(inputs, state, lengths, resets), CLOSE)
    assert all(not np.any(np.asarray(a)[padding]) for a in (outputs[1], *gradients[0]))


def test_no_tokens():
    inputs, state = draw(2, 0)
    (last, h), gradients = run(mlstm.chunkwise, inputs, state)
    assert h.shape == (2, 0, 2, 5)
    assert_close(last, state, 0)
    assert all(np.any(g) for g in gradients[1])


def test_a_stream_in_pieces():
    """Cut anywhere, a sequence continues from the state: values, and gradients through the states between."""

    def pieces(q, k, v, i, f, state):
        hs = []
        for start, end in [(0, 3), (3, 20), (20, 37)]:
            state, h = chunks(*(a[:, start:end] for a in (q, k, v, i, f)), state)
            hs.append(h)
        return state, jnp.concatenate(hs, axis=1)

    inputs, state = draw(2, 37, gates=1.0)
    whole, cut = run(chunks, inputs, state), run(pieces, inputs, state)
    assert_close(cut[0], whole[0], CLOSE)
    assert_close(cut[1], whole[1], GRADIENTS_CLOSE)


def test_resets_are_separate_documents():
    """Exactly: nothing of an earlier document, however large, is left in a later one."""
    (q, k, v, i, f), _ = draw(2, 37)
    starts = [(0, 0), (0, 5), (0, 20), (1, 0), (1, 36)]
    resets = np.zeros((2, 37), bool)
    for b, t in starts:
        resets[b, t] = True
    q, k, i = jnp.abs(q), jnp.abs(k), i.at[:, :5].add(100)
    last, h = jax.jit(chunks)(q, k, v, i, f, resets=jnp.asarray(resets))
    for (b, start), end in zip(starts, [5, 20, 37, 36, 37], strict=True):
        state, alone = plain.oracle([a[b : b + 1, start:end] for a in (q, k, v, i, f)])
        assert_close(np.asarray(h[b : b + 1, start:end]), alone, 1e-5)
        if end == 37:
            assert_close(jax.tree.map(lambda a, b=b: a[b : b + 1], last), state, 1e-5)


def test_extreme_gates():
    """±120 throughout, from the first step on, and mixed; resets in some rows: finite, and the recurrence's."""
    (q, k, v, _, _), _ = draw(6, 40)
    inputs = [jnp.abs(q), jnp.abs(k), v]  # q and k of one sign: no output is the difference of larger numbers
    for n, signs in enumerate([[1, 1, -1, -1], [1, -1, 1, -1]]):
        constant = np.broadcast_to(120 * np.array(signs)[:, None, None], (4, 40, 2))
        mixed = np.random.default_rng(n).choice([-120, 0, 120], (2, 40, 2))
        inputs.append(jnp.asarray(np.concatenate([constant, mixed]), jnp.float32))
    resets = np.zeros((6, 40), bool)
    resets[1, [7, 17]] = resets[3, 20] = resets[5, [0, 39]] = True
    outputs, gradients = run(chunks, inputs, resets=jnp.asarray(resets))
    assert all(np.isfinite(a).all() for a in jax.tree.leaves((outputs, gradients)))
    assert_close(outputs, plain.oracle(inputs, None, None, resets), 1e-5)
    expected = run(matrix_memory.recurrent, inputs, resets=jnp.asarray(resets))
    for g, e in zip(gradients[0], expected[1][0], strict=True):  # those of the gates are differences of numbers about 1
        np.testing.assert_allclose(g, e, rtol=0, atol=1e-5 * max(np.abs(e).max(), 1))


@pytest.mark.parametrize("chunk_size", [1, 12])
def test_official(chunk_size, golden):  # noqa: F811
    plain.check_official(partial(mlstm.chunkwise, chunk_size=chunk_size), golden)


def test_half_precision_inputs():
    inputs, _ = draw(2, 37)
    half = [a.astype(jnp.bfloat16) for a in inputs]
    (last, h), (gradients,) = run(chunks, half)
    assert h.dtype == jnp.bfloat16 and {a.dtype.name for a in last} == {"float32"}
    assert {g.dtype.name for g in gradients} == {"bfloat16"}
    exact = plain.oracle([np.asarray(a, np.float32) for a in half])
    assert_close(last, exact[0], CLOSE)
    np.testing.assert_allclose(np.asarray(h, np.float32), exact[1], rtol=2**-8, atol=1e-3)
    (expected,) = run(matrix_memory.recurrent, half)[1]
    for g, e in zip(gradients, expected, strict=True):
        e = np.asarray(e, np.float32)
        np.testing.assert_allclose(np.asarray(g, np.float32), e, rtol=0, atol=2**-7 * np.abs(e).max())


def test_what_the_gradient_keeps():
    """The inputs, the states between chunks, and a few numbers a token: nothing of size T x L, let alone T x T."""

    def kept(steps):
        inputs = [jnp.zeros((2, steps, 2, 8))] * 3 + [jnp.zeros((2, steps, 2))] * 2
        backward = jax.eval_shape(lambda *a: jax.vjp(chunks, *a)[1], *inputs)
        return sum(a.size for a in jax.tree.leaves(backward)) / (2 * steps * 2)

    inputs, states, few = 3 * 8 + 2, (8 * 8 + 8 + 1) / 16, 6
    assert inputs < kept(512) <= inputs + states + few
    np.testing.assert_allclose(kept(2048), kept(512), rtol=0.02)


@pytest.mark.parametrize("bad", [0, -1, 2.0, True, None])
def test_bad_chunk_size(bad):
    inputs, _ = draw(1, 2)
    with pytest.raises(ValueError, match=f"chunk_size is {bad!r}; expected a positive integer"):
        mlstm.chunkwise(*inputs, chunk_size=bad)
