"""Gradients of every length, and whole-model parity: five steps of training by the official formulation, in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from qlstm_jax.cells import pr_lstm
from qlstm_jax.data.formal import TASKS
from qlstm_jax.problems import FormalProblem
from qlstm_jax.training.step import device_step, initial_state, make_optimizer
from tests.cells import cases
from tests.training.conftest import tiny


def official_combine(params, left, right):
    """The n-ary cell of the official code on concatenated children, refined; state (h, c), or (h,) of a PR-RNN."""
    children = [left, right]
    stack = [(params.merge_kernel, params.merge_bias)]
    stack += list(zip(params.refine_kernel, params.refine_bias, strict=True))
    for kernel, bias in stack:
        z = jnp.concatenate([child[0] for child in children], axis=-1) @ kernel
        z = z + bias.reshape((1,) * (z.ndim - 1) + (-1,))
        if params.cell == "rnn":
            children = [(jax.nn.relu(z),)]
            continue
        i, g, o, *forget = jnp.split(z, 3 + len(children), axis=-1)
        c = jax.nn.sigmoid(i) * jnp.tanh(g)
        c = c + sum(jax.nn.sigmoid(f) * child[1] for f, child in zip(forget, children, strict=True))
        children = [(jax.nn.sigmoid(o) * jnp.tanh(c), c)]
    return children[0]


def official_prefixes(params, xs):
    """Every prefix's state by `associative_scan` over leaves."""
    z = xs @ params.leaf_kernel + params.leaf_bias.reshape(1, 1, -1)
    leaves = (z,)
    if params.cell == "lstm":
        i, g, o = jnp.split(z, 3, axis=-1)
        c = jax.nn.sigmoid(i) * jnp.tanh(g)
        leaves = (jax.nn.sigmoid(o) * jnp.tanh(c), c)
    return jax.lax.associative_scan(lambda a, b: official_combine(params, a, b), leaves, axis=1)


def compare(params, xs, lengths, tolerance):
    """Values and gradients of all prefixes and of the last states, ours against the official formulation."""
    rng = np.random.default_rng(5)
    shape = (*xs.shape[:2], params.hidden_size)
    w_all, w_last = (jnp.asarray(rng.normal(size=s) / s[0], jnp.float32) for s in (shape, (shape[0], shape[2])))
    valid = (np.arange(xs.shape[1])[None, :] < lengths[:, None])[:, :, None]

    def ours(params, xs):
        _, ys = pr_lstm.unroll(params, xs, seq_lengths=lengths)
        last = pr_lstm.reduce(params, xs, seq_lengths=lengths).h
        return jnp.sum(w_all * ys) + jnp.sum(w_last * last), (ys, last)

    def official(params, xs):
        ys = official_prefixes(params, xs)[0]
        last = jnp.take_along_axis(ys, jnp.maximum(lengths - 1, 0)[:, None, None], axis=1)[:, 0]
        ys, last = jnp.where(valid, ys, 0), jnp.where((lengths > 0)[:, None], last, 0)
        return jnp.sum(w_all * ys) + jnp.sum(w_last * last), (ys, last)

    grads, values = jax.jit(jax.grad(ours, argnums=(0, 1), has_aux=True))(params, xs)
    expected_grads, expected = jax.jit(jax.grad(official, argnums=(0, 1), has_aux=True))(params, xs)
    for actual, right in zip(
        jax.tree.leaves((values, grads)), jax.tree.leaves((expected, expected_grads)), strict=True
    ):
        scale = 1 + np.abs(right).max(initial=0)
        np.testing.assert_allclose(actual, right, rtol=0, atol=tolerance * scale)


def weights(hidden, **options):
    shapes = jax.eval_shape(lambda: pr_lstm.init(jax.random.key(0), cases.D, hidden, **options))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda a: jnp.asarray(0.5 * rng.normal(size=a.shape), a.dtype), shapes)


def test_every_length_forward_and_gradient():
    """A batch of 67 rows with the lengths 0 .. 66."""
    compare(weights(3), cases.sequence(67, 66), np.arange(67, dtype=np.int32), 1e-5)


@pytest.mark.parametrize(("cell", "refinements"), [("lstm", 2), ("rnn", 1)])
def test_other_cells_forward_and_gradient(cell, refinements):
    lengths = np.array([13, 0, 8, 7, 1], np.int32)
    compare(weights(3, cell=cell, refinements=refinements), cases.sequence(5, 13), lengths, 1e-5)


def test_around_a_large_power_of_two_forward_and_gradient():
    compare(weights(2), cases.sequence(3, 257), np.array([255, 256, 257], np.int32), 2e-5)


def test_five_steps_of_training_equal_the_benchmarks_definition():
    """Framing, loss, accuracy, gradient, clipping by global norm 1.0 and Adam 1e-3, written out once more."""
    name, batch_size, length = "binary_addition", 6, 5
    task, config = TASKS[name], tiny(name, model__cell="pr_lstm", model__hidden_size=4, train__learning_rate=1e-3)
    problem = FormalProblem(config, None)
    batches = [task.sample(jax.random.key(step), batch_size, length) for step in range(5)]
    model = problem.model(nnx.Rngs(0))
    # Weights large enough that the gradient is clipped.
    model.head.kernel[...] = 60 * model.head.kernel[...]
    optimizer = make_optimizer(config.train)
    state = initial_state(model, optimizer, jax.random.key(0))
    step = jax.jit(lambda s, b: device_step(problem, nnx.graphdef(model), optimizer, batch_size, s, b, axis=None))

    # The model's own `Params` carries arrays under the names of the state.
    def logits(params, ids):
        cell = params["layer"]["cells"][0]
        cell = pr_lstm.Params(**{k: cell[k] for k in cell})
        blanks = task.output_length(length)
        tape = jnp.concatenate([ids, jnp.full((batch_size, blanks), task.input_size)], axis=1)
        h = official_prefixes(cell, jnp.eye(task.input_size + 1)[tape])[0]
        head = params["head"]
        return jnp.maximum(h, 0)[:, -blanks:] @ head["kernel"] + head["bias"].reshape(1, 1, -1)

    def loss(params, ids, targets):
        z = logits(params, ids)
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(z), targets[..., None], axis=-1)), z

    official = jax.jit(jax.value_and_grad(loss, has_aux=True))
    params = jax.tree.map(np.asarray, state.params)
    first = second = jax.tree.map(np.zeros_like, params)
    clipped = 0
    for t, batch in enumerate(batches, 1):
        (value, z), grads = official(params, batch.ids, batch.targets)
        norm = np.sqrt(sum(float(np.sum(np.square(g, dtype=np.float64))) for g in jax.tree.leaves(grads)))
        clipped += norm > 1
        scale = min(1, 1 / norm)
        grads = jax.tree.map(lambda g, scale=scale: np.asarray(g) * scale, grads)
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, grads)
        second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, grads)
        params = jax.tree.map(
            lambda p, m, v, t=t: p - 1e-3 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8),
            params,
            first,
            second,
        )
        state, metrics = step(state, batch)
        right = (np.argmax(z, -1) == batch.targets) * batch.mask
        np.testing.assert_allclose(metrics["loss"], value, rtol=1e-5)
        np.testing.assert_allclose(metrics["accuracy"], right.sum() / batch.mask.sum(), rtol=1e-6)
        np.testing.assert_allclose(metrics["grad_norm"], norm, rtol=1e-4)
    assert clipped
    for (path, actual), expected in zip(
        jax.tree_util.tree_leaves_with_path(state.params), jax.tree.leaves(params), strict=True
    ):
        # Adam's first steps are as large for a tiny gradient as for a large one, whose rounding it keeps.
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5, err_msg=str(path))
