import jax
import numpy as np
import pytest

from qlstm_jax.problems import PROBLEMS
from qlstm_jax.training import config_checks
from qlstm_jax.training.config import ConfigError
from qlstm_jax.training.evaluate import evaluate
from qlstm_jax.training.loop import train
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


def test_a_run_and_its_report(tmp_path):
    train(tiny("selective_copying", **SMALL), tmp_path)
    report = evaluate(tmp_path)
    assert list(report["accuracy_by_length"]) == ["7", "14", "28"] and 0 <= report["accuracy"] <= 1


def test_symbols_without_room():
    with pytest.raises(ConfigError, match=r"selective_copying\.length is 2; expected at least 3"):
        config_checks.check(tiny("selective_copying", **SMALL | {"selective_copying__length": 2}))
