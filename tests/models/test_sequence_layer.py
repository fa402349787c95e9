"""Transformer and XLSTM are called as the layers of `qlstm_jax.nnx` are, with clear errors for the rest."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from qlstm_jax.cells import common
from qlstm_jax.models import XLSTM, Transformer
from qlstm_jax.nnx.protocol import SequenceLayer

D, H, T = 3, 8, 5
LENGTHS = np.array([[5, 0, 2], [1, 4, 3]], np.int32)
KINDS = {
    "transformer": lambda: Transformer(D, H, num_heads=2, causal=True, positions="sinusoidal", rngs=nnx.Rngs(0)),
    "xlstm": lambda: XLSTM(D, H, num_layers=2, slstm_at="1", num_heads=2, rngs=nnx.Rngs(0)),
}
EACH = pytest.mark.parametrize("kind", KINDS)


@cache
def made(kind):
    layer = KINDS[kind]()
    layer.eval()
    return layer


def inputs():
    """Two batch axes."""
    return jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, T, D)), jnp.float32)


@EACH
def test_is_a_sequence_layer(kind):
    layer = made(kind)
    assert isinstance(layer, SequenceLayer)
    assert (layer.in_features, layer.hidden_features, layer.output_size) == (D, H, H)
    assert layer.has_carry == (kind == "xlstm")


@EACH
def test_axes_and_orders(kind):
    layer, xs = made(kind), inputs()
    rows, lengths = xs.reshape(6, T, D), LENGTHS.reshape(6)

    @jax.jit
    def calls(xs, rows):
        backward = layer(common.reverse(rows, jnp.asarray(lengths)), seq_lengths=lengths)
        return {
            "forward": layer(rows, seq_lengths=lengths),
            "two axes": layer(xs, seq_lengths=LENGTHS),
            "time first": layer(jnp.moveaxis(xs, 2, 0), seq_lengths=LENGTHS, time_major=True),
            "expected in reverse": backward,
            "reverse": layer(rows, seq_lengths=lengths, reverse=True),
            "expected in order": common.reverse(backward, jnp.asarray(lengths)),
            "in order": layer(rows, seq_lengths=lengths, reverse=True, keep_order=True),
            "last": layer.last(xs, seq_lengths=LENGTHS),
        }

    ys = {name: np.asarray(y) for name, y in calls(xs, rows).items()}

    def close(a, b):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)

    assert ys["two axes"].shape == (2, 3, T, H) and ys["time first"].shape == (T, 2, 3, H)
    close(ys["two axes"].reshape(6, T, H), ys["forward"])
    close(np.moveaxis(ys["time first"], 0, 2), ys["two axes"])
    close(ys["reverse"], ys["expected in reverse"])
    close(ys["in order"], ys["expected in order"])
    assert np.abs(ys["in order"] - ys["forward"]).max() > 0.01
    assert not ys["in order"][np.arange(T)[None] >= lengths[:, None]].any()
    for row, column in np.ndindex(2, 3):
        n = LENGTHS[row, column]
        close(ys["last"][row, column], ys["two axes"][row, column, n - 1] if n else np.zeros(H))


def test_a_carry_with_two_batch_axes():
    layer, xs = made("xlstm"), inputs()

    @jax.jit
    def calls(xs):
        carry, first = layer(xs[:, :, :2], return_carry=True)
        _, second = layer(xs[:, :, 2:], initial_carry=carry, return_carry=True)
        return layer(xs), jnp.concatenate([first, second], axis=2), carry

    whole, parts, carry = calls(xs)
    np.testing.assert_allclose(parts, whole, rtol=1e-5, atol=1e-5)
    assert all(a.shape[:2] == (2, 3) for a in jax.tree.leaves(carry))


def test_a_transformer_has_no_carry():
    layer = made("transformer")
    for call in (lambda: layer(inputs(), return_carry=True), lambda: layer.initialize_carry(6)):
        with pytest.raises(ValueError, match="a Transformer has no carry: it reads each sequence whole"):
            call()


@EACH
def test_shapes_that_do_not_fit(kind):
    with pytest.raises(ValueError, match=r"inputs have shape .*; expected \(\*batch, time, 3\)"):
        made(kind)(inputs()[..., :2])
    with pytest.raises(ValueError, match=r"seq_lengths has shape \(6,\); expected \(2, 3\)"):
        made(kind)(inputs(), seq_lengths=LENGTHS.reshape(6))
