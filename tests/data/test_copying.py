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


def test_keys_decide_and_defaults():
    task = Copying()
    assert (task.num_symbols, task.alphabet) == (10, 8)
    one, same, other = (task.sample(jax.random.key(seed), 8, 5) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.ids, same.ids)
    assert not np.array_equal(one.ids, other.ids)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Copying(num_symbols=0), "num_symbols is 0; expected a Python int of at least 1"),
        (lambda: Copying(alphabet=1), "alphabet is 1; expected a Python int of at least 2"),
        (lambda: Copying().sample(jax.random.key(0), 0, 3), "batch_size is 0"),
        (lambda: Copying().sample(jax.random.key(0), 3, -1), "length is -1"),
    ],
)
def test_errors_at_the_door(make, message):
    with pytest.raises(ValueError, match=message):
        make()
