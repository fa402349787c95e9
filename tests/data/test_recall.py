import jax
import numpy as np
import pytest

from qlstm_jax.data.recall import Recall


@pytest.mark.parametrize("length", [0, 1, 50])
def test_the_class_comes_first_and_noise_after_it(length):
    recall = Recall(num_classes=3, num_noise=2)
    batch = jax.jit(recall.sample, static_argnums=(1, 2))(jax.random.key(0), 400, length)
    ids = np.asarray(batch.ids)
    assert ids.shape == (400, length + 1) and ids.dtype == np.int32 and batch.labels.dtype == np.int32
    np.testing.assert_array_equal(batch.lengths, np.full(400, length + 1))
    np.testing.assert_array_equal(ids[:, 0], batch.labels)
    counts = np.bincount(np.asarray(batch.labels), minlength=3)
    assert len(counts) == 3 and counts.min() > 80
    if length:
        assert set(np.unique(ids[:, 1:])) == {3, 4}


def test_noise_says_nothing_about_the_label():
    batch = Recall(2, 2).sample(jax.random.key(1), 4000, 1)
    table = np.zeros((2, 2))
    np.add.at(table, (np.asarray(batch.labels), np.asarray(batch.ids[:, 1]) - 2), 1)
    # Four cells of 1000 each, whose standard deviation is 27.
    assert np.abs(table - 1000).max() < 150


def test_keys_decide_and_defaults():
    recall = Recall()
    assert recall == Recall(num_classes=8, num_noise=8) and recall.vocab_size == 16
    assert Recall(5, 2).vocab_size == 7
    one, same, other = (recall.sample(jax.random.key(seed), 32, 8) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.ids, same.ids)
    assert (np.asarray(one.ids) != np.asarray(other.ids)).mean() > 0.5
    assert len(jax.tree.leaves(one)) == 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Recall(num_classes=1), "num_classes is 1; expected a Python int of at least 2"),
        (lambda: Recall(num_noise=0), "num_noise is 0"),
        (lambda: Recall(num_noise=2.0), "num_noise is 2.0"),
        (lambda: Recall().sample(jax.random.key(0), 0, 3), "batch_size is 0"),
        (lambda: Recall().sample(jax.random.key(0), 3, -1), "length is -1"),
        (lambda: Recall().sample(jax.random.key(0), 3, True), "length is True"),
    ],
)
def test_errors_at_the_door(make, message):
    with pytest.raises(ValueError, match=message):
        make()
