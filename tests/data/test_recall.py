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
