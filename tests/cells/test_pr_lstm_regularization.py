"""What the PR-LSTM has beyond its paper: options of the merge, random left offsets, the associativity penalty."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from qlstm_jax import linen as linen_layers
from qlstm_jax.cells import pr_lstm
from qlstm_jax.cells.pr_lstm import merge as pr_lstm_merge
from qlstm_jax.cells.pr_lstm import offset, regularization
from qlstm_jax.nnx import PRLSTM
from tests.cells import cases

H = 4
CLOSE = 2e-5  # of numbers of size 1, in float32; layer normalisation makes rounding larger where a sum is near 0


def weights(**options):
    params = pr_lstm.init(jax.random.key(0), cases.D, H, **options)
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda a: a + jnp.asarray(0.3 * rng.normal(size=a.shape), a.dtype), params)


def test_identity_values():
    params = pr_lstm.init(jax.random.key(0), cases.D, H, value_init="identity", refinements=2)
    plain = pr_lstm.init(jax.random.key(0), cases.D, H, refinements=2)
    g = slice(H, 2 * H)
    np.testing.assert_array_equal(params.merge_kernel[:, g], np.tile(np.eye(H) / 2, (2, 1)))
    np.testing.assert_array_equal(params.refine_kernel[1, :, g], np.eye(H))
    for kernel, other in [
        (params.merge_kernel, plain.merge_kernel),
        (params.refine_kernel[0], plain.refine_kernel[0]),
    ]:
        np.testing.assert_array_equal(np.delete(kernel, np.r_[g], axis=1), np.delete(other, np.r_[g], axis=1))
    rnn = pr_lstm.init(jax.random.key(0), cases.D, H, value_init="identity", cell="rnn")
    np.testing.assert_array_equal(rnn.merge_kernel, np.tile(np.eye(H) / 2, (2, 1)))


def test_forget_bias():
    params = pr_lstm.init(jax.random.key(0), cases.D, H, forget_bias=2.0)
    np.testing.assert_array_equal(params.merge_bias, [0] * 3 * H + [2] * 2 * H)
    np.testing.assert_array_equal(params.refine_bias, [[0] * 3 * H + [2] * H])
    grc = pr_lstm.init(jax.random.key(0), cases.D, H, cell="grc", forget_bias=2.0)
    np.testing.assert_array_equal(grc.gate_bias, [2] * 2 * H + [0] * 2 * H)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "layer"}, "norm is 'layer'; expected one of 'none', 'rms'"),
        ({"value_init": "zero"}, "value_init is 'zero'"),
        ({"norm": "rms", "cell": "rnn"}, "norm is 'rms'; expected 'none', as cell='rnn' has no such option"),
        ({"forget_bias": 1.0, "cell": "rnn"}, "forget_bias is 1.0; expected 0.0, as cell='rnn'"),
        ({"value_init": "identity", "cell": "ldru"}, "value_init is 'identity'; expected 'paper', as cell='ldru'"),
        ({"refinements": 0, "cell": "grc"}, "refinements is 0; expected 1, as cell='grc'"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        pr_lstm.init(jax.random.key(0), 2, 2, **options)


def test_rms_norm_by_hand():
    """One merge in numpy, with a γ of each cell's own."""
    params = weights(norm="rms")
    rng = np.random.default_rng(2)
    left, right = (pr_lstm.State(*(jnp.asarray(rng.normal(size=(1, H)), jnp.float32) for _ in range(2))) for _ in "lr")

    def cell(z, children, gamma):
        i, g, o, *forget = np.split(z, 3 + len(children), axis=-1)
        c = expit(i) * np.tanh(g) + sum(expit(f) * child for f, child in zip(forget, children, strict=True))
        c = gamma * c / np.sqrt(1e-6 + np.mean(c**2))
        return expit(o) * np.tanh(c), c

    def expit(z):
        return 1 / (1 + np.exp(-z))

    p = cases.as_arrays(params)
    h, c = cell(
        np.concatenate([left.h, right.h], axis=-1) @ p["merge_kernel"] + p["merge_bias"],
        [np.asarray(left.c), np.asarray(right.c)],
        p["norm_scale"][0],
    )
    h, c = cell(h @ p["refine_kernel"][0] + p["refine_bias"][0], [c], p["norm_scale"][1])
    chex.assert_trees_all_close(pr_lstm_merge.combine(params, left, right), pr_lstm.State(h, c), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", [{"norm": "rms"}, {"cell": "ldru"}, {"cell": "grc"}], ids=str)
def test_norm_streams_and_remat_changes_nothing(monkeypatch, options):
    monkeypatch.setattr(pr_lstm_merge, "MIN_GROUP", 1)  # so that 6 merges are computed in two groups
    plain, xs = weights(**options), cases.sequence(2, 7)
    again = weights(remat=True, **options)
    carry = pr_lstm.initial_carry(plain, 2, max_length=7)
    folded = jax.jit(functools.partial(cases.fold, pr_lstm))(plain, xs, jnp.array([7, 4]), carry)[1]

    def run(params):
        _, ys = pr_lstm.unroll(params, xs, seq_lengths=np.array([7, 4]))
        return jnp.sum(ys**2), ys

    grad = jax.jit(jax.grad(run, has_aux=True))
    found = grad(plain)
    chex.assert_trees_all_close(found[1], folded, rtol=1e-5, atol=CLOSE)
    chex.assert_trees_all_close(jax.tree.leaves(found), jax.tree.leaves(grad(again)), rtol=1e-5, atol=CLOSE)


def span(params, xs):
    """The state of the whole of xs (T, D) under a perfectly balanced tree, T a power of two; plainly recursive."""
    if len(xs) == 1:
        return pr_lstm_merge.leaf(params, xs)
    half = len(xs) // 2
    return pr_lstm_merge.combine(params, span(params, xs[:half]), span(params, xs[half:]))


def moved(params, xs, start):
    """The state of xs under the tree that has `start` absent leaves before it, block by aligned block."""

    def block(low, size):
        if low >= start:
            return span(params, xs[low - start : low - start + size])
        if low + size <= start:
            return None
        left, right = block(low, size // 2), block(low + size // 2, size // 2)
        return right if left is None else pr_lstm_merge.combine(params, left, right)

    end, low, state = start + len(xs), 0, None
    for j in reversed(range(end.bit_length())):
        if end >> j & 1:
            new = block(low, 1 << j)
            state = new if state is None else pr_lstm_merge.combine(params, state, new)
            low += 1 << j
    return state


@pytest.mark.parametrize("cell", ["lstm", "rnn", "ldru", "grc"])
def test_offsets_against_recursion(cell):
    """Rows with every offset 0..room, of different lengths: prefixes and the last state alone."""
    room, steps = 5, 6
    params, xs = weights(cell=cell), cases.sequence(room + 1, steps)
    starts, lengths = jnp.arange(room + 1), jnp.array([6, 5, 3, 6, 1, 0])
    both, leaves = pr_lstm_merge.merge(params), pr_lstm_merge.leaf(params, xs)
    prefixes = jax.jit(functools.partial(offset.prefixes, both, max_offset=room))(leaves, starts)
    last = jax.jit(functools.partial(offset.reduce, both, max_offset=room))(leaves, lengths, starts)
    with jax.disable_jit():
        expected = [[moved(params, xs[b, : t + 1], b).h[0] for t in range(steps)] for b in range(room + 1)]
    close = CLOSE * max(1, np.abs(expected).max())  # sums round by their largest terms
    np.testing.assert_allclose(prefixes.h, np.asarray(expected), rtol=0, atol=close)
    for b, n in enumerate(lengths):
        np.testing.assert_allclose(last.h[b], expected[b][n - 1] if n else np.zeros(H), rtol=0, atol=close)


def test_offset_zero_is_the_plain_tree():
    params, xs, lengths = weights(), cases.sequence(3, 7), np.array([7, 2, 0])
    still = regularization.RandomOffset(jax.random.key(0), 0)

    @jax.jit
    def run(params):
        carry, ys = still.unroll(params, xs, seq_lengths=lengths)
        assert carry is None
        moved = ys, still.reduce(params, xs, seq_lengths=lengths)
        _, ys = pr_lstm.unroll(params, xs, seq_lengths=lengths)
        return moved, (ys, pr_lstm.reduce(params, xs, seq_lengths=lengths))

    chex.assert_trees_all_close(*run(params), rtol=1e-5, atol=1e-6)


def test_offsets_are_drawn_from_the_whole_range():
    """Each row shows one of the trees, and many rows all of them."""
    params, room = weights(), 3
    xs = jnp.tile(cases.sequence(1, 3), (200, 1, 1))
    state = jax.jit(regularization.RandomOffset(jax.random.key(1), room).reduce)(params, xs)
    with jax.disable_jit():
        trees = np.concatenate([moved(params, xs[0], start).h for start in range(room + 1)])
    distance = np.abs(np.asarray(state.h)[:, None] - trees[None]).max(axis=-1)
    assert (distance.min(axis=1) < 1e-5).all()
    # Offsets 1 and 3 cut three tokens alike: both give merge(x_0, merge(x_1, x_2)).
    assert len(set(distance.argmin(axis=1))) == len(np.unique(np.round(trees, 5), axis=0)) >= 2


def test_layers_move_in_training_alone():
    layer = PRLSTM(cases.D, H, max_offset=3, rngs=nnx.Rngs(0))
    plain = PRLSTM(cases.D, H, rngs=nnx.Rngs(0))
    xs, key = cases.sequence(8, 5), jax.random.key(3)

    @nnx.jit
    def run(layer, rngs=None):
        return layer(xs, rngs=rngs), layer.last(xs, rngs=rngs)

    still = run(plain)
    layer.eval()
    chex.assert_trees_all_close(run(layer), still)
    layer.train()
    moved = run(layer, key)
    assert not np.allclose(moved[0], still[0])
    np.testing.assert_allclose(moved[1], moved[0][:, -1], rtol=1e-5, atol=1e-6)
    assert not np.allclose(run(layer, nnx.Rngs(dropout=4))[1], still[1])
    chex.assert_trees_all_close(nnx.jit(lambda layer: layer(xs, rngs=key, deterministic=True))(layer), still[0])
    with pytest.raises(ValueError, match="rngs is None"):
        layer(xs)
    with pytest.raises(ValueError, match="a carry is given or wanted"):
        layer(xs, return_carry=True, rngs=key)
    with pytest.raises(ValueError, match="a carry is given or wanted"):
        layer(xs, initial_carry=plain.initialize_carry(8), rngs=key)
    with pytest.raises(ValueError, match="max_offset is -1"):
        PRLSTM(cases.D, H, max_offset=-1, rngs=nnx.Rngs(0))


def test_linen_layer_moves_in_training_alone():
    layer, xs = linen_layers.PRLSTM(H, max_offset=3), cases.sequence(8, 5)
    assert isinstance(layer, linen.Module)
    variables = jax.jit(layer.init)(jax.random.key(0), xs)
    still = jax.jit(linen_layers.PRLSTM(H).apply)(variables, xs)
    chex.assert_trees_all_close(jax.jit(layer.apply)(variables, xs), still)
    moving = functools.partial(layer.apply, variables, xs, deterministic=False, rngs={"dropout": jax.random.key(1)})
    assert not np.allclose(jax.jit(moving)(), still)
    with pytest.raises(ValueError, match="a carry is given or wanted"):
        moving(return_carry=True)
    with pytest.raises(ValueError, match="max_offset is -2"):
        linen_layers.PRLSTM(H, max_offset=-2).apply(variables, xs)


def test_associativity_of_three_tokens_by_hand():
    """Three tokens have one triple; a row of two has none and does not count."""
    params, xs = weights(), cases.sequence(3, 3)
    leaf, combine, penalty = map(jax.jit, (pr_lstm_merge.leaf, pr_lstm_merge.combine, regularization.associativity))
    a, b, c = (leaf(params, xs[:, t]) for t in range(3))
    left, right = combine(params, combine(params, a, b), c), combine(params, a, combine(params, b, c))
    by_row = np.mean((left.h - right.h) ** 2, axis=-1) + np.mean((np.tanh(left.c) - np.tanh(right.c)) ** 2, axis=-1)
    by_row, key = np.asarray(by_row), jax.random.key(0)
    np.testing.assert_allclose(penalty(params, xs, key), by_row.mean(), rtol=1e-5)
    some = penalty(params, xs, key, seq_lengths=np.array([3, 2, 3]))
    np.testing.assert_allclose(some, by_row[[0, 2]].mean(), rtol=1e-5)
    assert penalty(params, xs, key, seq_lengths=np.array([2, 0, 1])) == 0
    assert penalty(params, xs[:, :2], key) == 0


@pytest.mark.parametrize("cell", ["ldru", "grc"])
def test_associativity_of_vectors_is_a_cosine(cell):
    params, xs = weights(cell=cell), cases.sequence(3, 3)
    leaf, combine = jax.jit(pr_lstm_merge.leaf), jax.jit(pr_lstm_merge.combine)
    a, b, c = (leaf(params, xs[:, t]) for t in range(3))
    left = np.asarray(combine(params, combine(params, a, b), c).h)
    right = np.asarray(combine(params, a, combine(params, b, c)).h)
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    distance = np.mean(1 - np.sum(left * right, axis=1) / lengths)
    assert distance > 0.01
    value, grads = jax.jit(jax.value_and_grad(regularization.associativity))(params, xs, jax.random.key(0))
    np.testing.assert_allclose(value, distance, rtol=1e-4)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads)) and np.any(grads.merge_kernel)


def test_ldru_starts_from_a_sum_that_gates_weigh():
    """With gates of 1 and W_o = I, the initial merge without feed-forward is the normalised sum of the two spans."""
    params = pr_lstm.init(jax.random.key(0), cases.D, H, cell="ldru", refinements=0)
    params = dataclasses.replace(
        params, gate_kernel=jnp.zeros((4 * H, 2 * H)), gate_bias=jnp.ones(2 * H), output_kernel=jnp.eye(H)
    )
    left, right = (pr_lstm_merge.leaf(params, x) for x in cases.sequence(2, 3))
    both = left.h + right.h
    expected = (both - both.mean(axis=1, keepdims=True)) / jnp.sqrt(1e-5 + both.var(axis=1, keepdims=True))
    np.testing.assert_allclose(pr_lstm_merge.combine(params, left, right).h, expected, rtol=1e-5, atol=1e-5)


def test_associativity_is_zero_for_an_associative_merge():
    """PR-RNN with h = relu(left + right): sums of positive leaves."""
    same = jnp.eye(H)
    params = pr_lstm.init(jax.random.key(0), cases.D, H, cell="rnn", refinements=0)
    leaves = jnp.abs(params.leaf_kernel)
    params = pr_lstm.Params(
        **{**vars(params), "merge_kernel": jnp.concatenate([same, same]), "leaf_kernel": leaves},
    )
    xs = jnp.abs(cases.sequence(2, 13))
    penalty = jax.jit(regularization.associativity)
    assert penalty(params, xs, jax.random.key(0)) < 1e-9
    assert penalty(weights(), xs, jax.random.key(0)) > 1e-4


def test_a_layers_penalty():
    layer, xs = PRLSTM(cases.D, H, num_layers=2, rngs=nnx.Rngs(0)), cases.sequence(2, 3)
    below, above = (cell.params for cell in layer.cells)

    @nnx.jit
    def run(layer):
        pairs = (below, xs), (above, pr_lstm.unroll(below, xs)[1])
        by_layer = [regularization.associativity(*pair, jax.random.key(0)) for pair in pairs]
        return layer.associativity(xs, rngs=jax.random.key(9)), by_layer

    found, by_layer = run(layer)
    np.testing.assert_allclose(found, np.mean(by_layer), rtol=1e-5)
    with pytest.raises(ValueError, match="bidirectional is True"):
        PRLSTM(2, H, bidirectional=True, rngs=nnx.Rngs(0)).associativity(xs, rngs=jax.random.key(0))
