"""The grid of formal languages: variants in words, seeds together, skipping, resuming, table and pictures."""

import json
import os
import signal

import jax
import numpy as np
import pytest

from qlstm_jax import problems
from qlstm_jax.studies import cohort, formal, variants
from qlstm_jax.studies.results import Results, comparison, table
from qlstm_jax.training import config_files
from qlstm_jax.training.config import ConfigError
from qlstm_jax.training.evaluate import restore
from qlstm_jax.training.loop import train
from qlstm_jax.training.metrics import Progress
from qlstm_jax.training.signals import Interrupted, StopSignal
from tests.training.conftest import assert_same, compile_quickly, read_metrics, tiny

__all__ = ["compile_quickly"]

SMALL = ["train.batch_size=16", "model.hidden_size=8", "formal.max_length=4", "train.log_every=2"]
SMALL += ["eval.min_length=7", "eval.max_length=9", "eval.sequences=8"]


def grid(tmp_path, *args, cells=("rnn", "rnn,hidden_size=4"), steps=4, seeds=2):
    """The exit status of a small grid on two tasks."""
    command = ["--cells", *cells, "--tasks", "even_pairs", "reverse_string", "--steps", str(steps)]
    command += ["--seeds", str(seeds), "--out", str(tmp_path / "out"), "--workdir", str(tmp_path / "runs")]
    return formal.main([*command, "--set", *SMALL, *args])


def records(tmp_path):
    return Results(tmp_path / "out" / "results.jsonl").records()


def test_a_variant_in_words():
    variant = variants.parse("pr_lstm,refinements=2,train.learning_rate=3e-4,curriculum=0.5,mixed_lengths=false")
    assert variant.cell == "pr_lstm"
    assert variant.settings == {
        "model.pr_lstm.refinements": 2,
        "train.learning_rate": 3e-4,
        "formal.curriculum": 0.5,
        "formal.mixed_lengths": False,
    }
    config = variants.build("parity_check", variant, {"model.hidden_size": 8})
    assert (config.formal.task, config.model.hidden_size, config.model.pr_lstm.refinements) == ("parity_check", 8, 2)


def test_a_variant_with_another_merge():
    variant = variants.parse("pr_lstm:ldru,refinements=2")
    assert (variant.name, variant.cell) == ("pr_lstm:ldru,refinements=2", "pr_lstm")
    assert variant.settings == {"model.pr_lstm.cell": "ldru", "model.pr_lstm.refinements": 2}
    for config in (
        variants.build("parity_check", variant, {}),
        config_files.load("formal.py:parity_check,pr_lstm:ldru"),
    ):
        assert (config.model.cell, config.model.pr_lstm.cell) == ("pr_lstm", "ldru")
    with pytest.raises(ConfigError, match=r"model\.pr_lstm\.cell is 'ldrv'; expected one of .*'ldru'"):
        variants.build("parity_check", variants.parse("pr_lstm:ldrv"), {})
    with pytest.raises(ConfigError, match=r"model\.pr_lstm\.refinements is 2; expected 1"):
        variants.build("parity_check", variants.parse("pr_lstm:grc,refinements=2"), {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lstm:ldru", "only pr_lstm has kinds"),
        ("pr_lstn", "cell 'pr_lstn' in 'pr_lstn'; did you mean 'pr_lstm'"),
        ("lstm,refinements=2", "no key 'refinements'"),
        ("pr_lstm,refinement=2", "did you mean 'model.pr_lstm.refinements'"),
        ("lstm,train.step=2", "did you mean 'train.steps'"),
        ("lstm,hidden_size", "has no '='"),
        ("lstm,hidden_size=many", "model.hidden_size is 'many'"),
        ("lstm,bidirectional=yes", "expected true or false"),
    ],
)
def test_a_variant_that_cannot_be(text, message):
    with pytest.raises(ConfigError, match=message):
        variants.parse(text)


@pytest.mark.parametrize("together", [1, 2, 8])
def test_seeds_together_equal_runs_of_their_own(together, tmp_path):
    """One seed, two under vmap, and eight dealt to eight devices; the last chunk is shorter than the others."""
    config = tiny(train__steps=5)
    trainer = cohort.Trainer(problems.make(config, None), config)
    with StopSignal() as stop:
        state = trainer.run(list(range(together)), tmp_path / "many", Progress(0, 5), stop, checkpoint_seconds=60)
    assert int(state.step) == 5
    seed = together - 1
    config.seed = seed
    train(config, tmp_path / "one")
    single, mine = restore(tmp_path / "one")[2], trainer.model(state, seed)
    assert_same(jax.tree.leaves(mine), jax.tree.leaves(single), 1e-6)
    steps = [r["step"] for r in read_metrics(tmp_path / "many")]
    assert steps == [2, 4, 5]
    last = read_metrics(tmp_path / "many")[-1]
    alone = [r for r in read_metrics(tmp_path / "one") if r["split"] == "train"][-1]
    np.testing.assert_allclose(last[f"loss_seed_{seed}"], alone["loss"], rtol=1e-5)
    if together == 8:
        assert len(jax.tree.leaves(state.params)[0].sharding.device_set) == 8


def test_an_interrupted_cohort_goes_on(tmp_path):
    config = tiny(train__steps=6)
    trainer = cohort.Trainer(problems.make(config, None), config)

    class StopsAtTwo(Progress):
        def log(self, step, tokens, values):
            if step == 2:
                os.kill(os.getpid(), signal.SIGINT)
            return super().log(step, tokens, values)

    with StopSignal() as stop, pytest.raises(Interrupted, match="SIGINT at step 2: saved"):
        trainer.run([0, 1], tmp_path / "cut", StopsAtTwo(0, 6), stop, checkpoint_seconds=60)
    with StopSignal() as stop:
        cut = trainer.run([0, 1], tmp_path / "cut", Progress(0, 6), stop, checkpoint_seconds=60)
        whole = trainer.run([0, 1], tmp_path / "whole", Progress(0, 6), stop, checkpoint_seconds=60)
    assert_same(jax.tree.leaves(cut.params), jax.tree.leaves(whole.params))
    assert [r["step"] for r in read_metrics(tmp_path / "cut")] == [2, 4, 6]


def test_a_grid_and_its_report(tmp_path, capsys):
    """Runs, skips what is there, adds seeds and variants, and draws a picture for each task."""
    assert grid(tmp_path) == 0
    first = records(tmp_path)
    assert len(first) == 8
    assert {(r["task"], r["variant"], r["seed"]) for r in first} == {
        (t, v, s) for t in ("even_pairs", "reverse_string") for v in ("rnn", "rnn,hidden_size=4") for s in (0, 1)
    }
    for record in first:
        assert set(record["accuracy_by_length"]) == {"1", "2", "3", "4", "7", "8", "9"}
        beyond = [record["accuracy_by_length"][n] for n in "789"]
        np.testing.assert_allclose(record["score"], np.mean(beyond), atol=1e-4)
        assert record["solved"] == (record["score"] >= 0.9) and not record["diverged"]
    assert len({r["score"] for r in first}) > 1
    capsys.readouterr()
    # A line that a killed process left half written is not a result; the next line stands on its own.
    with (tmp_path / "out" / "results.jsonl").open("a") as file:
        file.write('{"task": "even_pa')
    assert grid(tmp_path, cells=("rnn", "gru"), seeds=1) == 0
    again = records(tmp_path)
    assert again[:8] == first and [r["variant"] for r in again[8:]] == ["gru", "gru"]
    assert "[1/4] even_pairs, rnn" in capsys.readouterr().out
    report = (tmp_path / "out" / "table.md").read_text()
    assert "| level | task | rnn | rnn,hidden_size=4 | gru |" in report
    assert "4 steps of 16, hidden size 8" in report and "tested at 7..9 with 8 each" in report
    pictures = list((tmp_path / "out").rglob("*.png"))
    assert {p.name for p in pictures} == {"even_pairs.png", "reverse_string.png"}
    assert all(p.read_bytes().startswith(b"\x89PNG") and p.stat().st_size > 5000 for p in pictures)


def test_mistakes_end_in_one_line(tmp_path, capsys):
    assert grid(tmp_path, cells=("rnn", "pr_lstn")) == 1
    assert "did you mean 'pr_lstm'" in capsys.readouterr().err
    assert grid(tmp_path, seeds=0) == 1
    assert "--seeds=0" in capsys.readouterr().err
    assert grid(tmp_path, cells=("lstm,associativity=1",)) == 1
    assert "only a pr_lstm" in capsys.readouterr().err
    assert formal.main(["--tasks", "parity", "--out", str(tmp_path / "out")]) == 1
    assert "did you mean 'parity_check'" in capsys.readouterr().err
    assert formal.main(["--report_only", "--out", str(tmp_path / "out")]) == 1
    assert "holds no results" in capsys.readouterr().err
    assert not (tmp_path / "out").exists() and not (tmp_path / "runs").exists()


def record(task, variant, seed, score, diverged=False):
    return {"task": task, "variant": variant, "seed": seed, "score": score, "diverged": diverged}


def test_the_table():
    rows = [
        record("even_pairs", "lstm", 0, 0.97),
        record("even_pairs", "lstm", 1, 0.85),
        record("even_pairs", "gru", 0, 0.99),
        record("even_pairs", "gru", 1, 0.5, diverged=True),
        record("reverse_string", "lstm", 0, 0.6),
    ]
    assert table(rows).splitlines() == [
        "| level | task | lstm | gru |",
        "|---|---|---|---|",
        "| regular | even_pairs | **91.0 (97.0)** | 74.5 (99.0) *, 1 diverged |",
        "| dcf | reverse_string | 60.0 (60.0), 1 of 2 seeds |  |",
        "| | solved, mean | 1 of 2 | 0 of 1 |",
        "| | solved, best seed | 1 of 2 | 1 of 1 |",
    ]


def test_variants_tried_on_few_tasks_have_a_table_of_their_own():
    rows = [record(task, "lstm", 0, 0.6) for task in ("even_pairs", "reverse_string", "bucket_sort")]
    rows.append(record("bucket_sort", "lstm,hidden_size=4", 0, 0.95))
    assert "hidden_size" not in table(rows)
    assert comparison(rows).splitlines() == [
        "| variant | bucket_sort |",
        "|---|---|",
        "| lstm | 60.0 (60.0) |",
        "| lstm,hidden_size=4 | **95.0 (95.0)** |",
    ]


def test_results_are_whole_lines(tmp_path):
    results = Results(tmp_path / "new" / "results.jsonl")
    assert results.records() == []
    for seed in range(2):
        results.add({"identity": {"task": "x"}, "seed": seed})
    assert [json.loads(line)["seed"] for line in results.path.read_text().splitlines()] == [0, 1]
    assert results.has({"task": "x"}, 1) and not results.has({"task": "x"}, 2) and not results.has({"task": "y"}, 1)
