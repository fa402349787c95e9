import jax
import numpy as np
import pytest

from qlstm_jax.data.adding import BASELINE, Adding

SAMPLE = jax.jit(Adding().sample, static_argnums=(1, 2))


@pytest.mark.parametrize("length", [2, 3, 8, 31])
def test_one_number_is_marked_in_each_half_and_the_target_is_their_sum(length):
    batch = SAMPLE(jax.random.key(0), 300, length)
    inputs, targets = np.asarray(batch.inputs, np.float64), np.asarray(batch.targets)
    assert inputs.shape == (300, length, 2) and batch.inputs.dtype == targets.dtype == np.float32
    assert inputs[:, :, 0].min() >= 0 and inputs[:, :, 0].max() < 1
    for row, target in zip(inputs, targets, strict=True):
        places = np.flatnonzero(row[:, 1])
        assert len(places) == 2 and places[0] < length // 2 <= places[1]
        assert row[places, 1].tolist() == [1, 1]
        assert target == pytest.approx(row[places, 0].sum(), abs=1e-6)


def test_draws_are_uniform_and_the_baseline_is_their_variance():
    """4,000 rows: 1,000 for each of the 4 places of a half, whose deviation is 27."""
    batch = SAMPLE(jax.random.key(1), 4000, 8)
    marks = np.asarray(batch.inputs)[:, :, 1]
    assert np.abs(marks.sum(0) - 1000).max() < 150
    counts = np.histogram(np.asarray(batch.inputs)[:, :, 0], bins=10, range=(0, 1))[0]
    assert np.abs(counts - 3200).max() < 300
    # The mean of (s - 1)² has a standard error of 0.003 here.
    assert np.mean((np.asarray(batch.targets) - 1) ** 2) == pytest.approx(BASELINE, abs=0.012)
