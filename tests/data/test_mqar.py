import jax
import numpy as np
import pytest

from qlstm_jax.data.mqar import MQAR


@pytest.mark.parametrize(("pairs", "length"), [(1, 3), (3, 9), (4, 32)])
def test_each_key_is_asked_once_after_the_pairs(pairs, length):
    task = MQAR(num_pairs=pairs, num_keys=6, num_values=5)
    batch = jax.jit(task.sample, static_argnums=(1, 2))(jax.random.key(0), 200, length)
    ids, targets, mask = (np.asarray(a) for a in (batch.ids, batch.targets, batch.mask))
    assert ids.shape == targets.shape == mask.shape == (200, length) and ids.dtype == targets.dtype == np.int32
    for row, answer, asked in zip(ids, targets, mask, strict=True):
        known = dict(zip(row[: 2 * pairs : 2].tolist(), (row[1 : 2 * pairs : 2] - 6).tolist(), strict=True))
        assert len(known) == pairs and set(known) <= set(range(6)) and set(known.values()) <= set(range(5))
        places = np.flatnonzero(asked)
        assert places.min() >= 2 * pairs and sorted(row[places]) == sorted(known)
        np.testing.assert_array_equal(answer[places], [known[k] for k in row[places].tolist()])
        others = np.setdiff1d(np.arange(2 * pairs, length), places)
        assert (row[others] == task.vocab_size - 1).all() and not answer[asked == 0].any()


def test_draws_are_uniform():
    """4,000 rows of one pair: counts of 1,000 for each of 4 keys, values and places, whose deviation is 27."""
    batch = MQAR(num_pairs=1, num_keys=4, num_values=4).sample(jax.random.key(1), 4000, 6)
    for draws in (batch.ids[:, 0], batch.ids[:, 1] - 4, np.argmax(batch.mask, axis=1) - 2):
        counts = np.bincount(np.asarray(draws), minlength=4)
        assert len(counts) == 4 and np.abs(counts - 1000).max() < 150
