import jax
import numpy as np

from qlstm_jax.problems import PROBLEMS
from tests.training.conftest import tiny

SMALL = {f"selective_copying__{key}": value for key, value in {"length": 7, "num_symbols": 3, "alphabet": 4}.items()}


def test_symbols_stand_anywhere_and_are_asked_for_in_order():
    problem = PROBLEMS["selective_copying"](tiny("selective_copying", **SMALL), None)
    batch = problem.sample(jax.random.key(0), 500, 0)
    ids, targets = np.asarray(batch.ids), np.asarray(batch.targets)
    assert ids.shape == (500, 10) and np.all(ids[:, 7:] == 5)
    for row, answer in zip(ids[:, :7].tolist(), targets.tolist(), strict=True):
        assert [token for token in row if token != 4] == answer and set(answer) <= set(range(4))
    places = np.mean(ids[:, :7] != 4, axis=0)
    np.testing.assert_allclose(places, 3 / 7, atol=0.1)
