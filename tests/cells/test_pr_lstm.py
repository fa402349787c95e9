"""The shape of PR-LSTM's tree, its stream, and the numbers of the official code."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qlstm_jax import interop
from qlstm_jax.cells import pr_lstm
from qlstm_jax.cells.pr_lstm import merge as pr_lstm_merge
from tests.cells import cases

# Of states below 1 in size, built by different programs from the same float32 sums.
CLOSE = 3e-6


def weights(inputs=cases.D, hidden=4, **options):
    shapes = jax.eval_shape(lambda: pr_lstm.init(jax.random.key(0), inputs, hidden, **options))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda a: jnp.asarray(0.6 * rng.normal(size=a.shape), a.dtype), shapes)


unroll, reduce = jax.jit(pr_lstm.unroll), jax.jit(pr_lstm.reduce)


def test_reduce_of_no_tokens():
    params = weights()
    for options in ({}, {"seq_lengths": jnp.zeros((2,), jnp.int32)}):
        state = pr_lstm.reduce(params, jnp.zeros((2, 0, cases.D)), **options)
        chex.assert_trees_all_equal(state, pr_lstm.State(h=jnp.zeros((2, 4)), c=jnp.zeros((2, 4))))


@pytest.mark.parametrize("cell", ["lstm", "rnn", "ldru", "grc"])
def test_reduce_ignores_padding(cell):
    params, xs = weights(cell=cell), cases.sequence(3, 7)
    lengths = np.array([7, 4, 0])
    beyond = np.arange(7)[None, :] >= lengths[:, None]

    @jax.jit
    def run(xs):
        def loss(xs):
            state = pr_lstm.reduce(params, xs, seq_lengths=lengths)
            return sum(jnp.sum(a**2) for a in jax.tree.leaves(state)), state

        return jax.grad(loss, has_aux=True)(xs)

    grad, state = run(jnp.where(beyond[:, :, None], jnp.nan, xs))
    chex.assert_trees_all_equal((grad, state), run(xs))
    assert not np.any(np.asarray(grad)[beyond]) and np.all(np.any(np.asarray(grad)[~beyond], axis=1))


def test_a_stream_stores_few_states():
    """After t tokens no more than ceil(log2(t + 1)) slots hold anything; the others are zero."""
    steps, slots = 200, 8
    params = weights()

    @jax.jit
    def run(xs):
        def body(carry, x):
            carry, y = pr_lstm.step(params, carry, x)
            used = jnp.any(carry.slots.h != 0, axis=-1) | jnp.any(carry.slots.c != 0, axis=-1)
            return carry, (carry.count, used, y)

        return jax.lax.scan(body, pr_lstm.initial_carry(params, 1, max_length=steps), jnp.swapaxes(xs, 0, 1))[1]

    counts, used, ys = run(cases.sequence(1, steps))
    assert used.shape == (steps, 1, slots) and np.isfinite(ys).all()
    for t in range(1, steps + 1):
        assert counts[t - 1, 0] == t
        assert used[t - 1].sum() <= int(np.ceil(np.log2(t + 1)))
        # Slot j is free where neither digit j nor digit j + 1 of t is 1.
        np.testing.assert_array_equal(used[t - 1, 0], [(t >> j & 3) != 0 for j in range(slots)])


@pytest.mark.parametrize("max_length", [3, 7])
def test_a_stream_that_outgrows_its_slots(max_length):
    steps = max_length + 2
    params, xs = weights(), cases.sequence(1, steps)
    carry, (_, expected) = pr_lstm.initial_carry(params, 1, max_length=max_length), unroll(params, xs)
    _, by_step = jax.jit(lambda carry: cases.fold(pr_lstm, params, xs, np.array([steps]), carry))(carry)
    by_unroll = jnp.concatenate(in_two(params, xs[:, :-3], xs[:, -3:], carry), axis=1)
    for ys in (by_step, by_unroll):
        np.testing.assert_allclose(ys[:, :max_length], expected[:, :max_length], rtol=CLOSE, atol=CLOSE)
        assert ys.shape[1] == steps and np.isnan(ys[:, max_length:]).all()


@jax.jit
def in_two(params, first, second, carry):
    carry, early = pr_lstm.unroll(params, first, carry=carry)
    _, late = pr_lstm.unroll(params, second, carry=carry)
    return early, late


def test_more_tokens_than_slots_at_once():
    params = weights()
    carry = pr_lstm.initial_carry(params, 1, max_length=3)
    with pytest.raises(ValueError, match=r"4 tokens do not fit a stream of 2 slots, .* larger max_length"):
        pr_lstm.unroll(params, cases.sequence(1, 4), carry=carry)


def test_a_saved_stream_continues_exactly():
    params, xs = weights(), cases.sequence(2, 14)
    carry, _ = unroll(params, xs[:, :7], carry=pr_lstm.initial_carry(params, 2, max_length=31))
    leaves, treedef = jax.tree.flatten(carry)
    saved = [np.array(a) for a in leaves]
    restored = jax.tree.unflatten(treedef, [jnp.asarray(a) for a in saved])
    straight, again = (unroll(params, xs[:, 7:], carry=c) for c in (carry, restored))
    chex.assert_trees_all_equal(again, straight)
    _, ys = unroll(params, xs, carry=pr_lstm.initial_carry(params, 2, max_length=31))
    np.testing.assert_allclose(again[1], ys[:, 7:], rtol=CLOSE, atol=CLOSE)


@pytest.mark.parametrize("cell", ["lstm", "rnn", "ldru", "grc"])
def test_combine_pairs_equals_combine(cell):
    """Two forms of one merge: neighbours in one array, and two arrays."""
    params = weights(cell=cell, **({} if cell == "grc" else {"refinements": 2}))
    states = pr_lstm_merge.leaf(params, cases.sequence(2, 6))
    left, right = (jax.tree.map(lambda a, k=k: a[:, k::2], states) for k in (0, 1))
    pairs, two = pr_lstm_merge.combine_pairs(params, states), pr_lstm_merge.combine(params, left, right)
    chex.assert_trees_all_close(pairs, two, rtol=CLOSE, atol=CLOSE)
    swapped = pr_lstm_merge.combine(params, right, left)
    assert np.abs(swapped.h - two.h).max() > 0.01


@pytest.fixture(scope="module", params=["lstm", "rnn"])
def golden(request, goldens):
    with np.load(goldens / f"prlstm_{request.param}_nl2.npz") as arrays:
        return dict(arrays)


def under(arrays, start):
    return {name.removeprefix(start): a for name, a in arrays.items() if name.startswith(start)}


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 13])
def test_official_outputs(golden, steps):
    params = interop.pr_lstm_from_haiku(under(golden, "param:"))
    xs = jnp.asarray(golden[f"x_{steps}"])
    _, ys = unroll(params, xs)
    np.testing.assert_allclose(ys, golden[f"h_{steps}"], rtol=5e-6, atol=5e-6)
    state = reduce(params, xs)
    np.testing.assert_allclose(state.h, golden[f"h_{steps}"][:, -1], rtol=5e-6, atol=5e-6)
    if params.cell == "lstm":
        np.testing.assert_allclose(state.c, golden[f"c_{steps}"][:, -1], rtol=5e-6, atol=5e-6)


@pytest.mark.parametrize("way", ["unroll", "reduce"])
def test_official_gradients(golden, way):
    """Of the sum of squares of the last h."""
    params = interop.pr_lstm_from_haiku(under(golden, "param:"))

    def loss(params, xs):
        last = pr_lstm.unroll(params, xs)[1][:, -1] if way == "unroll" else pr_lstm.reduce(params, xs).h
        return jnp.sum(last**2)

    value, (grads, x_grad) = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(params, jnp.asarray(golden["x_13"]))
    np.testing.assert_allclose(value, golden["loss_13"], rtol=5e-6)
    np.testing.assert_allclose(x_grad, golden["gradx_13"], rtol=5e-6, atol=5e-6)
    expected = interop.pr_lstm_from_haiku(under(golden, "grad13:"))
    assert all(np.any(g) for g in jax.tree.leaves(expected))
    chex.assert_trees_all_close(grads, expected, rtol=5e-6, atol=5e-6)
