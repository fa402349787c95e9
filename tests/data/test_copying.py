import jax
import numpy as np
import pytest

from qlstm_jax.data.copying import Copying


@pytest.mark.parametrize(("symbols", "length"), [(1, 0), (3, 1), (4, 20)])
def test_layout(symbols, length):
    task = Copying(num_symbols=symbols, alphabet=5)
    batch = jax.jit(task.sample, static_argnums=(1, 2))(jax.random.key(0), 50, length)
    ids, targets = np.asarray(batch.ids), np.asarray(batch.targets)
    assert ids.dtype == targets.dtype == np.int32 and task.vocab_size == 7
    for row, answer in zip(ids.tolist(), targets.tolist(), strict=True):
        assert len(answer) == symbols and set(answer) <= set(range(5))
        assert row == [*answer, *[5] * length, 6, *[5] * symbols]


def test_symbols_are_uniform_and_independent():
    """4,000 rows of two: 250 for each of 16 pairs, whose deviation is 15."""
    targets = np.asarray(Copying(num_symbols=2, alphabet=4).sample(jax.random.key(1), 4000, 0).targets)
    counts = np.bincount(4 * targets[:, 0] + targets[:, 1], minlength=16)
    assert len(counts) == 16 and np.abs(counts - 250).max() < 90
