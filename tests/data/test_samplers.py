"""What holds of every problem that draws its sequences by a key: keys decide, and sizes are checked at the door."""

import jax
import numpy as np
import pytest

from qlstm_jax.data import digits
from qlstm_jax.data.adding import Adding
from qlstm_jax.data.copying import Copying
from qlstm_jax.data.mqar import MQAR
from qlstm_jax.data.recall import Recall

IMAGES = np.ones((5, 8, 8), np.float32), np.arange(5)


@pytest.mark.parametrize("task", [Adding(), Copying(), MQAR(num_pairs=2), Recall()], ids=str)
def test_keys_decide(task):
    one, same, other = (jax.tree.leaves(task.sample(jax.random.key(seed), 8, 8)) for seed in (0, 0, 1))
    assert all(map(np.array_equal, one, same))
    assert not np.array_equal(one[0], other[0])


def test_defaults():
    assert Copying() == Copying(num_symbols=10, alphabet=8)
    assert Recall() == Recall(num_classes=8, num_noise=8)
    assert Recall().vocab_size == 16 and Recall(5, 2).vocab_size == 7


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Copying(num_symbols=0), "num_symbols is 0; expected a Python int of at least 1"),
        (lambda: Copying(alphabet=1), "alphabet is 1; expected a Python int of at least 2"),
        (lambda: MQAR(num_pairs=0), "num_pairs is 0; expected a Python int of at least 1"),
        (lambda: MQAR(num_pairs=9, num_keys=8), "num_keys is 8; expected a Python int of at least 9"),
        (lambda: MQAR(num_values=1), "num_values is 1"),
        (lambda: Recall(num_classes=1), "num_classes is 1; expected a Python int of at least 2"),
        (lambda: Recall(num_noise=0), "num_noise is 0"),
        (lambda: Recall(num_noise=2.0), r"num_noise is 2\.0"),
        (lambda: digits.Clips(frames=0), "frames is 0"),
        (lambda: digits.Clips(canvas=8), "canvas is 8; expected a Python int of at least 9"),
        (lambda: digits.Clips(speed=-1.0), r"speed is -1\.0; expected 0 or more"),
        (lambda: digits.Pixels().sample(jax.random.key(0), 0, *IMAGES), "batch_size is 0"),
    ],
)
def test_sizes_of_a_task(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("task", "shortest"), [(Adding(), 2), (Copying(), 0), (MQAR(num_pairs=4), 12), (Recall(), 0)], ids=str
)
def test_sizes_of_a_batch(task, shortest):
    for batch_size, length, message in (
        (0, 20, "batch_size is 0"),
        (True, 20, "batch_size is True"),
        (2, shortest - 1, f"length is {shortest - 1}; expected a Python int of at least {shortest}"),
        (2, 20.0, r"length is 20\.0"),
        (2, True, "length is True"),
    ):
        with pytest.raises(ValueError, match=message):
            task.sample(jax.random.key(0), batch_size, length)
