"""The tape, the answer's positions, loss and accuracy against plain numpy; the checks at the door."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qlstm_jax.data.formal import TASKS, Batch

KEY = jax.random.key(0)
LENGTHS = np.array([1, 2, 5, 6, 3], np.int32)


@functools.cache
def mixed(name):
    return jax.jit(lambda: TASKS[name].sample(KEY, 5, LENGTHS, max_length=6))()


def log_softmax(x):
    x = x - x.max()
    return x - np.log(np.exp(x).sum())


def random_logits(name, batch, seed=0):
    shape = (*batch.targets.shape, TASKS[name].output_size)
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("name", ["parity_check", "duplicate_string", "binary_addition"])
def test_the_tape_of_each_row(name):
    task, batch = TASKS[name], mixed(name)
    xs, total = jax.jit(task.frame)(batch)
    channels = task.input_size + 1
    expected = np.zeros((5, batch.ids.shape[1] + batch.targets.shape[1], channels), np.float32)
    for row in range(5):
        n, m = int(batch.lengths[row]), int(batch.target_lengths[row])
        for place in range(n):
            expected[row, place, int(batch.ids[row, place])] = 1
        expected[row, n : n + m, channels - 1] = 1
        assert total[row] == n + m
    assert xs.dtype == jnp.float32 and total.dtype == jnp.int32
    np.testing.assert_array_equal(xs, expected)


@pytest.mark.parametrize("name", ["parity_check", "duplicate_string", "compute_sqrt"])
def test_the_answer_follows_the_input(name):
    task, batch = TASKS[name], mixed(name)
    width = batch.ids.shape[1] + batch.targets.shape[1]
    ys = np.random.default_rng(1).normal(size=(5, width, 4)).astype(np.float32)
    expected = np.zeros((5, batch.targets.shape[1], 4), np.float32)
    for row in range(5):
        n, m = int(batch.lengths[row]), int(batch.target_lengths[row])
        expected[row, :m] = ys[row, n : n + m]
    np.testing.assert_array_equal(jax.jit(task.outputs)(ys, batch), expected)


@pytest.mark.parametrize("name", ["modular_arithmetic", "stack_manipulation", "binary_multiplication"])
def test_loss_and_accuracy_against_numpy(name):
    task, batch = TASKS[name], mixed(name)
    logits = random_logits(name, batch)
    losses, right, counted = [], np.zeros(5), np.zeros(5)
    for row in range(5):
        m, targets = int(batch.target_lengths[row]), np.asarray(batch.targets[row])
        losses.append(np.mean([-log_softmax(logits[row, place])[targets[place]] for place in range(m)]))
        for place in range(m):
            counted[row] += batch.mask[row, place]
            right[row] += batch.mask[row, place] * (logits[row, place].argmax() == targets[place])
    loss, correct, accuracy = jax.jit(lambda *args: (task.loss(*args), task.correct(*args), task.accuracy(*args)))(
        logits, batch
    )
    np.testing.assert_allclose(loss, np.mean(losses), rtol=1e-6)
    np.testing.assert_array_equal(correct, [right, counted])
    np.testing.assert_allclose(accuracy, right.sum() / counted.sum(), rtol=1e-6)


def test_loss_counts_what_follows_the_terminator_and_accuracy_does_not():
    task = TASKS["stack_manipulation"]
    ids = jnp.array([[1, 2, 2]], jnp.int32)
    targets, mask = jnp.array([[2, 0, 0, 0]], jnp.int32), jnp.array([[1.0, 0.0, 0.0, 0.0]])
    np.testing.assert_array_equal(task.accuracy_mask(targets), mask)
    batch = Batch(ids, jnp.array([3], jnp.int32), targets, jnp.array([4], jnp.int32), mask)
    right = 10.0 * jax.nn.one_hot(targets, 3)
    wrong_after = right.at[0, 3].set(jnp.array([0.0, 10.0, 0.0]))
    loss = jax.jit(task.loss)
    assert task.accuracy(wrong_after, batch) == 1.0
    assert loss(wrong_after, batch) > loss(right, batch) + 2.0


def test_perfect_logits_score_one_and_padding_gets_no_gradient():
    task, batch = TASKS["reverse_string"], mixed("reverse_string")
    assert task.accuracy(jax.nn.one_hot(batch.targets, 2), batch) == 1.0
    gradient = np.asarray(jax.jit(jax.grad(task.loss))(random_logits("reverse_string", batch), batch))
    padding = np.arange(6)[None] >= np.asarray(batch.target_lengths)[:, None]
    assert not gradient[padding].any()
    assert (np.abs(gradient[~padding]).sum(axis=-1) > 0).all()


def test_loss_is_float32_for_narrow_logits():
    task, batch = TASKS["bucket_sort"], mixed("bucket_sort")
    logits = jnp.asarray(random_logits("bucket_sort", batch), jnp.bfloat16)
    loss = jax.jit(task.loss)(logits, batch)
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, jax.jit(task.loss)(logits.astype(jnp.float32), batch), rtol=1e-6)


def test_a_batch_is_a_pytree():
    batch = mixed("parity_check")
    assert len(jax.tree.leaves(batch)) == 5
    doubled = jax.tree.map(lambda x: jnp.concatenate([x, x]), batch)
    assert isinstance(doubled, Batch) and doubled.ids.shape == (10, 6)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((4, 0), {}, ValueError, "length is 0"),
        ((4, -2), {}, ValueError, "length is -2"),
        ((4, True), {}, TypeError, "length is True|length has dtype bool"),
        ((4, 2.0), {}, TypeError, "length has dtype float"),
        ((0, 4), {}, ValueError, "batch_size is 0"),
        ((4.0, 4), {}, TypeError, "batch_size is 4.0"),
        ((4, 4), {"max_length": 0}, ValueError, "max_length is 0"),
        ((4, 7), {"max_length": 6}, ValueError, "length is 7, above max_length=6"),
        ((4, np.array([1, 2, 3, 4])), {}, ValueError, "max_length is missing"),
        ((4, np.array([1, 2, 3])), {"max_length": 6}, ValueError, r"length has shape \(3,\)"),
        ((4, np.array([1, 2, 3, 7])), {"max_length": 6}, ValueError, "runs from 1 to 7; expected 1..6"),
        ((4, np.array([0, 2, 3, 4])), {"max_length": 6}, ValueError, "runs from 0 to 4; expected 1..6"),
    ],
)
def test_sample_says_what_is_wrong(arguments, options, error, message):
    with pytest.raises(error, match=message):
        TASKS["reverse_string"].sample(KEY, *arguments, **options)


def test_concrete_lengths_are_checked_inside_jit_too():
    lengths = jnp.array([1, 9], jnp.int32)
    with pytest.raises(ValueError, match="runs from 1 to 9"):
        jax.jit(lambda key: TASKS["parity_check"].sample(key, 2, lengths, max_length=8))(KEY)


@pytest.mark.parametrize(
    ("name", "ids", "message"),
    [
        ("parity_check", np.zeros((2, 0), np.int32), "n >= 1"),
        ("parity_check", np.zeros((2, 3, 2), np.int32), "not one-hot vectors"),
        ("parity_check", np.zeros((2, 3), np.float32), "ids is float32"),
        ("parity_check", np.full((2, 3), 2, np.int32), "ids runs from 2 to 2; expected 0..1"),
        ("parity_check", np.full((2, 3), -1, np.int32), "ids runs from -1 to -1"),
        ("modular_arithmetic", np.zeros((2, 4), np.int32), "ids has 4 symbols a row"),
    ],
)
def test_target_says_what_is_wrong(name, ids, message):
    with pytest.raises(ValueError, match=message):
        TASKS[name].target(ids)


@pytest.mark.parametrize("lengths", [np.array([1, 4]), np.array([0, 3]), np.array([1]), np.array([1.0, 2.0])])
def test_label_checks_lengths(lengths):
    with pytest.raises(ValueError, match="the number of symbols in each row of ids"):
        TASKS["parity_check"].label(np.zeros((2, 3), np.int32), lengths)


def test_shapes_of_outputs_and_logits_are_checked():
    task, batch = TASKS["reverse_string"], mixed("reverse_string")
    with pytest.raises(ValueError, match=r"expected \(5, 12, K\)"):
        task.outputs(jnp.zeros((5, 6, 2)), batch)
    for function in (task.loss, task.accuracy, task.correct):
        with pytest.raises(ValueError, match=r"expected \(5, 6, 2\)"):
            function(jnp.zeros((5, 6, 3)), batch)
