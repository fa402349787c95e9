"""The PR-LSTM over a small vocabulary equals the PR-LSTM over the symbols' inputs, forward and gradient."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from qlstm_jax.cells import pr_lstm
from qlstm_jax.cells.pr_lstm import merge, tables, tree
from qlstm_jax.cells.pr_lstm import tokens as pr_lstm_tokens
from qlstm_jax.nnx import PRLSTM
from tests.cells import cases
from tests.cells.test_pr_lstm_regularization import weights


def draw(vocabulary, batch, steps):
    rng = np.random.default_rng(0)
    symbols = jnp.asarray(rng.normal(size=(vocabulary, cases.D)), jnp.float32)
    return symbols, jnp.asarray(rng.integers(0, vocabulary, (batch, steps)), jnp.int32)


# Of 3 symbols, 14 rows of 12: tables of 9 pairs (for 84) and none of 81 blocks of four (for 42); of 2: 4, 16 and none.
@pytest.mark.parametrize(
    ("vocabulary", "batch", "steps", "with_lengths"),
    [(3, 14, 12, True), (2, 14, 13, False), (5, 2, 6, True), (5, 2, 6, False)],
)
def test_equals_the_plain_tree(vocabulary, batch, steps, with_lengths):
    check_equal({"norm": "rms"}, vocabulary, batch, steps, with_lengths)


@pytest.mark.parametrize("cell", ["ldru", "grc"])
def test_other_merges_equal_the_plain_tree(cell):
    with jax.enable_x64(True):  # near a sum of 0, layer normalisation makes the rounding of float32 larger
        check_equal({"cell": cell, "dtype": "float64", "param_dtype": "float64"}, 2, 14, 13, True)


def check_equal(options, vocabulary, batch, steps, with_lengths):
    params, (symbols, ids) = weights(**options), draw(vocabulary, batch, steps)
    lengths = (steps - np.arange(batch, dtype=np.int32)) % (steps + 1) if with_lengths else None
    ids = ids if lengths is None else jnp.where(np.arange(steps)[None] < lengths[:, None], ids, -7)

    def loss(state, ys):
        states = sum(jnp.sum(jnp.sin(a + 1)) for a in jax.tree.leaves(state))
        return states + jnp.sum(jnp.cos(ys[..., 0])), (state, ys)

    def plain(params, symbols):
        _, ys = pr_lstm.unroll(params, symbols[ids], seq_lengths=lengths)
        return loss(pr_lstm.reduce(params, symbols[ids], seq_lengths=lengths), ys)

    def coded(params, symbols):
        ys = pr_lstm_tokens.unroll(params, symbols, ids, seq_lengths=lengths)
        return loss(pr_lstm_tokens.reduce(params, symbols, ids, seq_lengths=lengths), ys)

    results = [jax.jit(jax.grad(f, argnums=(0, 1), has_aux=True))(params, symbols) for f in (plain, coded)]
    chex.assert_trees_all_close(*results, rtol=2e-5, atol=2e-6)
    assert all(np.any(g) for g in jax.tree.leaves(results[0][0]))


def test_which_levels_are_tables():
    params, (symbols, ids) = weights(), draw(2, 14, 13)

    @jax.jit
    def run(params):
        levels = tables.blocks(merge.merge(params), merge.leaf(params, symbols), ids)
        sizes = [level.table.h.shape[0] if isinstance(level, tables.Coded) else None for level in levels]
        assert sizes == [2, 4, 16, None]
        levels = [tables.lookup(*level) if isinstance(level, tables.Coded) else level for level in levels]
        return levels, tree.blocks(merge.merge(params), merge.leaf(params, symbols[ids]))

    chex.assert_trees_all_close(*run(params), rtol=1e-5, atol=1e-6)


def test_bfloat16_and_no_tokens():
    params, (symbols, ids) = weights(dtype="bfloat16"), draw(3, 8, 9)
    coded, plain = jax.jit(pr_lstm_tokens.reduce)(params, symbols, ids), jax.jit(pr_lstm.reduce)(params, symbols[ids])
    assert coded.h.dtype == jnp.bfloat16 and coded.c.dtype == jnp.float32
    chex.assert_trees_all_close(coded, plain, rtol=0.02, atol=0.02)
    empty = pr_lstm_tokens.reduce(params, symbols, ids[:, :0])
    chex.assert_trees_all_equal(empty, jax.tree.map(jnp.zeros_like, plain))
    assert pr_lstm_tokens.unroll(params, symbols, ids[:, :0]).shape == (8, 0, 4)


@pytest.mark.parametrize("options", [{}, {"num_layers": 2}, {"bidirectional": True}])
def test_layers_over_tokens(options):
    layer, (symbols, ids) = PRLSTM(cases.D, 4, rngs=nnx.Rngs(0), **options), draw(3, 6, 7)
    lengths = np.array([7, 3, 0, 1, 6, 7])

    @nnx.jit
    def run(layer):
        coded = layer.from_tokens(symbols, ids, seq_lengths=lengths)
        coded = coded, layer.last_from_tokens(symbols, ids, seq_lengths=lengths)
        xs = symbols[ids]
        return coded, (layer(xs, seq_lengths=lengths), layer.last(xs, seq_lengths=lengths))

    chex.assert_trees_all_close(*run(layer), rtol=1e-5, atol=1e-6)


def test_what_does_not_fit():
    params, (symbols, ids) = weights(), draw(3, 2, 4)
    with pytest.raises(ValueError, match=r"symbols has shape \(3, 2\); expected \(vocabulary, 3\)"):
        pr_lstm_tokens.reduce(params, symbols[:, :2], ids)
    with pytest.raises(ValueError, match="ids is float32"):
        pr_lstm_tokens.reduce(params, symbols, ids.astype(jnp.float32))
    with pytest.raises(ValueError, match=r"expected 0\.\.4"):
        pr_lstm_tokens.reduce(params, symbols, ids, seq_lengths=np.array([5, 1]))
