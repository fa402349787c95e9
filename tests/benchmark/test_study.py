"""A study of two cells on recall: all its runs, its table, and that a second call does nothing."""

import json
import math

import numpy as np
import pytest

from qlstm_jax.benchmark import study, study_report, variants
from qlstm_jax.training import config as configs

CONFIG = """
from qlstm_jax.training import config as configs

def get_config(length="6"):
    config = configs.default()
    config.task = "recall"
    config.recall.length = int(length)
    config.train.steps = 2
    config.train.batch_size = 2
    config.train.num_devices = 1
    config.model.hidden_size = config.model.embedding_size = 4
    config.eval.sequences = 2
    return config
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a config file."""
    path = tmp_path_factory.mktemp("study")
    (path / "recall.py").write_text(CONFIG)
    return path


def command(folder, *more):
    return ["--config", f"{folder}/recall.py:8", "--out", f"{folder}/out", "--workdir", f"{folder}/runs", *more]


GRID = ("--rows", "rnn", "lstm", "--columns", "recall.length=4", "--seeds", "1", "--equal", "parameters")


def test_a_study_runs_reports_and_is_not_run_twice(folder, capsys):
    assert study.main(command(folder, *GRID)) == 0
    assert "[2/2]" in capsys.readouterr().out
    lines = (folder / "out/results.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert len({r["row"] for r in records}) == 2 == len(records)
    assert {r["report"]["length"] for r in records} == {4}
    assert all(0 <= r["report"]["accuracy"] <= 1 and not r["diverged"] for r in records)
    table = (folder / "out/table.md").read_text()
    assert "| model | recall.length=4 |" in table and "2 steps of 2; seeds 0" in table
    assert (folder / "out/accuracy.png").stat().st_size > 1000

    assert study.main(command(folder, *GRID)) == 0
    assert "[1/" not in capsys.readouterr().out
    assert (folder / "out/results.jsonl").read_text().splitlines() == lines

    assert study.main(["--report_only", "--out", f"{folder}/out", "--metric", "perplexity"]) == 1
    assert "expected one of accuracy, length" in capsys.readouterr().err


def test_the_table_of_a_study(tmp_path):
    def record(row, column, seed, accuracy):
        report = (
            {} if accuracy is None else {"accuracy": accuracy, "parameters": 9000, "recurrent_parameters": seed + 7}
        )
        about = {"task": "recall", "steps": 2, "batch_size": 2, "device": "cpu", "train_seconds": 1.0}
        return about | {"row": row, "column": column, "seed": seed, "diverged": accuracy is None, "report": report}

    records = [record("a", "t=1", 0, 0.5), record("a", "t=1", 1, 0.7), record("a", "t=2", 0, 1.0)]
    records += [record("b", "t=1", 0, 0.25), record("b", "t=2", 0, None)]
    lines = study_report.write(records, ["accuracy"], tmp_path).read_text().splitlines()
    # Half the interval of 0.5 and 0.7: t(0.975, 1) = 12.706 times 0.1414 / sqrt(2).
    assert "| a | 60.0 ± 127.1 | 100.0, 1 of 2 seeds | 9,000 | 7 to 8 | 1 s |" in lines
    assert "| b (1 diverged) | 25.0, 1 of 2 seeds |  | 9,000 | 7 | 1 s |" in lines


def test_equal_parameters_is_the_nearest_size(folder):
    base = study.load_config(f"{folder}/recall.py")
    rnn, transformer = (variants.apply(base, variants.parse(name), {}) for name in ("rnn", "transformer,hidden_size=8"))
    for config, unit in ((rnn, 1), (transformer, 2 * base.model.transformer.num_heads)):
        wanted = 1234
        size = study.matched_hidden_size(config, "parameters", wanted)
        assert size % unit == 0
        distance = {}
        for candidate in (size - unit, size, size + unit):
            config.model.hidden_size = max(candidate, unit)
            distance[candidate] = abs(study.parameters(config)["parameters"] - wanted)
        assert distance[size] == min(distance.values())


def test_identity_knows_when_it_matters_how_often_a_run_is_validated():
    config = configs.default()
    config.train.eval_every = 7
    assert "train.eval_every" not in variants.identity(config)
    config.train.select = "best"
    assert variants.identity(config)["train.eval_every"] == 7


def test_the_interval_is_students():
    values = [1.0, 2.0, 4.0]  # t(0.975, 2) = 4.302653
    assert math.isclose(study_report.interval(values), 4.302653 * np.std(values, ddof=1) / 3**0.5, rel_tol=1e-6)
    assert math.isnan(study_report.interval([1.0]))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--rows", "lsm"), "did you mean 'lstm'"),
        (("--rows", "lstm,hiden_size=3"), "hidden_size"),
        (("--rows", "lstm", "--columns", "recall.length=short"), "expected a value like"),
        (("--rows", "lstm", "pr_lstm,cell=rnn,norm=rms"), "model.norm is 'rms'"),
        (("--rows", "lstm", "--seeds", "0"), "expected 1 or more"),
        (("--rows", "lstm", "--config", "nothing.py"), "is not a file"),
        ((), "expected 1 or more of each"),
    ],
)
def test_mistakes_end_before_anything_runs(folder, capsys, arguments, message):
    assert study.main(command(folder, *arguments)) == 1
    assert message in capsys.readouterr().err
