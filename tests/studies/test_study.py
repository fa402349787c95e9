"""A study of two cells on recall: all its runs, its table, and that a second call does nothing."""

import json
import math
import pathlib

import jax
import numpy as np
import pytest

import qlstm_jax
from qlstm_jax import problems
from qlstm_jax.problems import plots
from qlstm_jax.studies import choice, footprint, named, study, study_report, variants
from qlstm_jax.training import config as configs
from qlstm_jax.training import config_checks, config_files
from qlstm_jax.training.lock import locked

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = """
from qlstm_jax.training import config as configs

def get_config(length="6"):
    config = configs.default()
    config.problem = "recall"
    config.recall.length = int(length)
    config.train.steps = 2
    config.train.batch_size = 2
    config.train.num_devices = 1
    config.model.hidden_size = config.model.embedding_size = 4
    config.eval.sequences = 2
    config.eval.longest = 1
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
    assert all(0 <= r["report"]["accuracy"] <= 1 and not r["lost"] for r in records)
    assert all(r["tokens_per_second"] > 0 for r in records)
    assert all(
        r["selection"] == ["accuracy", "max"] and r["validation"]["accuracy"] == r["last"]["accuracy"] for r in records
    )
    # At least the parameters, Adam's two moments of them, and the gradient.
    assert all(r["step_bytes"] > 4 * 4 * r["report"]["parameters"] for r in records)
    table = (folder / "out/table.md").read_text()
    assert "| model | recall.length=4 |" in table and "2 steps of 2; seeds 0" in table
    assert (folder / "out/accuracy.png").stat().st_size > 1000

    assert study.main(command(folder, *GRID)) == 0
    assert "[1/" not in capsys.readouterr().out
    assert (folder / "out/results.jsonl").read_text().splitlines() == lines

    assert study.main(["--report_only", "--out", f"{folder}/out", "--metric", "perplexity"]) == 1
    assert "expected one of accuracy, accuracy_by_length, length" in capsys.readouterr().err


def test_the_training_time_of_a_resumed_run_is_not_known(folder, tmp_path):
    arguments = [*command(folder), "--workdir", f"{tmp_path}", "--out", f"{tmp_path}", "--seeds", "1", "--rows", "rnn"]
    results = tmp_path / "results.jsonl"
    times = []
    for _ in range(2):  # the second finds a run, and no line of it
        assert study.main(arguments) == 0
        times.append(json.loads(results.read_text())["train_seconds"])
        results.unlink()
    assert times[0] > 0 and times[1] is None


def test_a_run_that_needs_too_much_memory_does_not_end_the_study(folder, tmp_path, monkeypatch, capsys):
    def train(config, workdir):
        if config.model.cell == "rnn":
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    monkeypatch.setattr(study, "train", train)
    monkeypatch.setattr(footprint, "step_bytes", lambda problem, config: 7)
    arguments = [*command(folder), "--workdir", f"{tmp_path}", "--out", f"{tmp_path}", "--seeds", "1", "--rows"]
    assert study.main([*arguments, "rnn"]) == 1  # nothing to report
    (record,) = map(json.loads, (tmp_path / "results.jsonl").read_text().splitlines())
    assert (record["lost"], record["report"], record["step_bytes"]) == ("out of memory", {}, 7)
    assert study.main([*arguments, "lstm"]) == 70
    assert "JaxRuntimeError: INTERNAL: something else" in capsys.readouterr().err


def finished(row, column, seed, report, **costs):
    """A line of results.jsonl, of a run that diverged where the report is empty."""
    about = {"row": row, "column": column, "seed": seed, "lost": "" if report else "diverged", "report": report}
    about |= {"task": "recall", "steps": 2, "batch_size": 2, "device": "cpu", "train_seconds": 1.0}
    return about | costs


def test_choices_are_runs_of_their_own(folder):
    more = ["--rows", "rnn", "lstm,learning_rate=0.5", "--choose", "learning_rate=0.5", "learning_rate=0.25,steps=3"]
    cells = study.grid(study.arguments(command(folder, *more)))
    assert [(c["row"], c["choice"]) for c in cells] == [(r, c) for c in more[4:] for r in more[1:3]]
    assert [(c["config"].train.learning_rate, c["config"].train.steps) for c in cells] == [
        (0.5, 2),
        (0.5, 2),
        (0.25, 3),
        (0.5, 3),  # a row's own settings count
    ]
    assert len({variants.fingerprint(c["identity"]) for c in cells}) == 4
    with pytest.raises(configs.ConfigError, match=r"expected columns and choices without it"):
        sized = ["--rows", "rnn", "--choose", "hidden_size=3", "--equal", "parameters"]
        study.grid(study.arguments(command(folder, *sized)))
    with pytest.raises(configs.ConfigError, match=r"choice 'learning_rat=3'.*did you mean"):
        study.grid(study.arguments(command(folder, "--rows", "rnn", "--choose", "learning_rat=3")))


def validated(choice, seed, validation, test, metric="accuracy", mode="max"):
    """A record of a run of row "a", lost where its validation figure is None."""
    report = {} if validation is None else {"accuracy": test, "parameters": 9, "recurrent_parameters": 7}
    about = {"choice": choice, "selection": [metric, mode], "validation": {metric: validation} if report else {}}
    return finished("a", "", seed, report, **about)


def test_what_is_best_on_validation_is_reported_whatever_the_test_says(tmp_path):
    records = [validated("x=1", 0, 0.5, 0.9), validated("x=1", 1, 0.6, 0.9), validated("x=3", 0, 0.9, 0.9)]
    records += [validated("x=2", 0, 0.9, 0.1), validated("x=2", 1, 0.4, 0.2), validated("x=3", 1, None, 0.9)]
    text = study_report.write(records, ["accuracy"], tmp_path).read_text()
    assert "| a | 15.0 ± 63.5 | 9 | 7 |" in text
    shown = ["x=1 | accuracy 0.5500 |  |", "x=3 | not all seeds |  |", "x=2 | accuracy 0.6500 | chosen |"]
    assert "\n".join(f"| a |  | {line}" for line in shown) in text
    by_loss = [validated(c, 0, loss, test, "loss", "min") for c, loss, test in (("x=1", 0.3, 0.2), ("x=2", 0.2, 0.1))]
    kept, table = choice.chosen(by_loss)
    assert kept == by_loss[1:] and "| x=2 | loss 0.2000 | chosen |" in table
    plain = [finished("a", "", 0, {"accuracy": 1.0}), finished("b", "", 0, {"accuracy": 1.0})]  # of an earlier version
    assert choice.chosen(plain) == (plain, "")
    with pytest.raises(configs.ConfigError, match=r"no settings of 'a' .*validation figures"):
        choice.chosen([validated("x=1", 0, None, 0.9), validated("x=2", 0, None, 0.9)])


def test_the_validation_of_a_step(tmp_path):
    rows = [(1, "validation", 0.1), (2, "train", 0.2), (2, "validation", 0.3), (3, "validation", 0.4)]
    lines = [json.dumps({"step": step, "split": split, "accuracy": value}) + "\n" for step, split, value in rows]
    (tmp_path / "metrics.jsonl").write_text("".join(lines))
    assert choice.validation_at(tmp_path, 2) == {"accuracy": 0.3}
    assert choice.validation_at(tmp_path, 4) == {}


def test_the_table_of_a_study(tmp_path):
    def record(row, column, seed, accuracy, **costs):
        report = {"accuracy": accuracy, "parameters": 9000, "recurrent_parameters": seed + 7}
        return finished(row, column, seed, {} if accuracy is None else report, **costs)

    records = [record("a", "t=1", 0, 0.5), record("a", "t=1", 1, 0.7), record("a", "t=2", 0, 1.0)]
    records += [record("b", "t=1", 0, 0.25), record("b", "t=2", 0, None)]
    costs = [{"tokens_per_second": 1000.0 * n, "step_bytes": 10**6 * n} for n in (1, 2, 6)]
    records += [record("c", "t=1", seed, 0.5, **cost) for seed, cost in enumerate(costs)]
    costs = {"train_seconds": None, "tokens_per_second": None, "step_bytes": 12345678}
    records += [record("c", "t=1", 3, 0.5), record("d", "t=1", 0, 0.5, **costs)]
    lines = study_report.write(records, ["accuracy"], tmp_path).read_text().splitlines()
    # Half the interval of 0.5 and 0.7: t(0.975, 1) = 12.706 times 0.1414 / sqrt(2).
    assert "| a | 60.0 ± 127.1, 2 of 4 seeds | 100.0, 1 of 4 seeds | 9,000 | 7 to 8 | 1 s |  |  |" in lines
    assert "| b (1 diverged) | 25.0, 1 of 4 seeds |  | 9,000 | 7 | 1 s |  |  |" in lines
    assert "| c | 50.0 ± 0.0 |  | 9,000 | 7 to 10 | 1 s | 2,000 | 1.0 to 6.0 MB |" in lines
    assert "| d | 50.0, 1 of 4 seeds |  | 9,000 | 7 |  |  | 12.3 MB |" in lines


def test_a_figure_at_several_lengths_has_a_column_for_each(tmp_path):
    def record(row, column, by_length):
        report = {"accuracy": 1.0, "accuracy_by_length": by_length, "parameters": 9, "recurrent_parameters": 7}
        return finished(row, column, 0, report)

    records = [record("a", "", {"4": 0.5, "8": 0.25}), record("b", "", {"4": 1.0, "8": 0.75})]
    lines = study_report.write(records, ["accuracy_by_length"], tmp_path).read_text().splitlines()
    assert (
        "| model | length=4 | length=8 | parameters | of the layer | training | tokens/s | memory of a step |" in lines
    )
    assert "| a | 50.0 | 25.0 | 9 | 7 | 1 s |  |  |" in lines and "| b | 100.0 | 75.0 | 9 | 7 | 1 s |  |  |" in lines
    assert (tmp_path / "accuracy_by_length.png").stat().st_size > 1000
    groups = study_report.collect([record("a", "t=1", {"4": 0.5})], "accuracy_by_length")
    assert groups == {("a", "t=1,length=4"): [0.5]}


def test_equal_parameters_is_the_nearest_size(folder):
    base = config_files.load(f"{folder}/recall.py")
    units = {
        "rnn": 1,
        "lstm,bidirectional=true": 1,
        "ql_lstm": 1,
        "ql_lstm,num_heads=2": 4,
        "transformer,hidden_size=16,num_heads=8": 16,
        "transformer,num_heads=1": 2,
    }
    for row, unit in units.items():
        config, wanted = variants.apply(base, variants.parse(row), {}), 1234
        size = footprint.matched_hidden_size(config, "recurrent_parameters", wanted)
        assert size % unit == 0
        distance = {}
        for candidate in (size - unit, size, size + unit):
            config.model.hidden_size = max(candidate, unit)
            distance[candidate] = abs(footprint.parameters(config)["recurrent_parameters"] - wanted)
        assert distance[size] == min(distance.values())


def test_a_layer_of_two_directions_counts_both(folder):
    base = config_files.load(f"{folder}/recall.py")
    one, both = (
        variants.apply(base, variants.parse(row), {"model.hidden_size": 8})
        for row in ("lstm", "lstm,bidirectional=true")
    )
    number = footprint.parameters(one)["recurrent_parameters"]
    assert footprint.parameters(both)["recurrent_parameters"] == 2 * number
    assert footprint.matched_hidden_size(both, "recurrent_parameters", 2 * number) == 8


def grid(folder, *more):
    return study.grid(study.arguments(command(folder, *more)))


def test_ways_of_being_equal_list_each_model_once(folder):
    rows = ("--rows", "lstm", "gru", "lstm,bidirectional=true")
    one, other = ([c["row"] for c in grid(folder, *rows, "--equal", way)] for way in study.EQUAL[::2])
    assert one == ["lstm", "gru", "lstm,bidirectional=true"] == [c["row"] for c in grid(folder, *rows)]
    assert other[0] == "lstm" and other[1].startswith("gru, hidden ")
    both = grid(folder, *rows, "--equal", "hidden_size", "recurrent_parameters")
    assert [c["row"] for c in both] == one + other[1:]
    assert len({variants.fingerprint(c["identity"]) for c in both}) == 5
    # An LSTM has the first row's size by every measure.
    (single,) = grid(folder, "--rows", "lstm", "lstm", "--equal", *study.EQUAL)
    assert single["row"] == "lstm"


def test_sizes_are_those_of_the_first_column(folder):
    # Another number of classes is another vocabulary, in which other sizes would be the nearest.
    columns = ("recall.num_classes=2", "recall.num_classes=400")
    rows = ("--rows", "lstm", "gru", "--equal", "parameters", "--columns")
    cells = grid(folder, *rows, *columns)
    assert [c["row"] for c in cells] == ["lstm", "gru, hidden 5"] * 2
    assert [c["config"].model.hidden_size for c in cells] == [4, 5] * 2
    assert grid(folder, *rows, *columns[::-1])[1]["row"] == "gru, hidden 4"


def test_a_name_gives_the_arguments_and_the_command_line_wins():
    args = study.arguments(["imdb"])
    assert (args.config, str(args.out), args.seeds) == ("configs/imdb.py:lstm", "results/imdb", 3)
    assert args.columns == [""] and len(args.rows) == 7
    assert args.equal == ["hidden_size", "recurrent_parameters"] and args.metric == ["accuracy", "macro_f1"]
    assert study.arguments(["--seeds", "2", "--report_only", "imdb"]).seeds == 2
    args = study.arguments(["imdb", "--rows", "gru", "--equal", "parameters", "--out", "elsewhere"])
    assert (args.rows, args.equal, str(args.out)) == (["gru"], ["parameters"], "elsewhere")
    args = study.arguments(["mqar", "--set", "train.steps=7"])
    assert args.set == ["train.steps=1000", "train.batch_size=32", "train.steps=7"]
    args.config = str(ROOT / args.config.partition(":")[0])
    assert {cell["config"].train.steps for cell in study.grid(args)} == {7}


@pytest.mark.parametrize("name", named.STUDIES)
def test_named_studies_can_be_run(name):
    args = study.arguments([name, "--set", "text.path=mine.tsv", "--equal", "hidden_size"])
    args.config = str(ROOT / args.config)
    assert len(study.grid(args)) == len(args.rows) * len(args.columns)
    assert set(study.EQUAL) >= set(named.STUDIES[name].get("equal", ["hidden_size"]))


def test_a_study_of_texts_says_what_it_needs(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert study.main(["reviews"]) == 1
    assert "text.path is ''" in (message := capsys.readouterr().err) and "--set text.path=FILE" in message


def tiny(task, **settings):
    """A checked config of a small model."""
    config = configs.default()
    config.problem = task
    sizes = {"train.batch_size": 4, "model.cell": "lstm", "model.hidden_size": 4, "model.embedding_size": 4}
    config.update_from_flattened_dict(sizes | settings)
    config_checks.check(config)
    return config


def test_the_largest_batch_of_texts_counts(tmp_path):
    path = tmp_path / "texts.tsv"
    rows = [f"{'good ' * (1 + n)}\t{n % 2}" for n in range(24)]
    path.write_text("\n".join(["text\tlabel", *rows, ""]))
    config = tiny("text", **{"text.path": str(path), "text.num_buckets": 3, "text.max_length": 11})
    problem = problems.make(config, tmp_path)
    assert len(problem.buckets) == 3
    shapes = problem.largest_batch()
    assert [a.shape for a in shapes] == [(4, 11), (4,), (4,), (4,)]
    # Sixty rows more hold their embeddings at least.
    sizes = [footprint.step_bytes(problem, config)]
    config.train.batch_size = 64
    sizes.append(footprint.step_bytes(problem, config))
    assert sizes[1] - sizes[0] > 60 * 11 * 4 * 4


def test_a_carry_counts(tmp_path):
    (tmp_path / "lines.txt").write_text("a line of some words\n" * 200)
    config = tiny("lm", **{"lm.path": str(tmp_path), "lm.length": 8, "train.average_decay": 0.5})
    problem = problems.make(config, tmp_path / "run")
    assert problem.largest_batch().tokens.shape == (4, 9)
    # The parameters, their gradient, average and two moments; h and c of four rows.
    assert footprint.step_bytes(problem, config) > 4 * (5 * footprint.parameters(config)["parameters"] + 2 * 4 * 4)


def test_dropout_takes_its_keys_from_the_step(tmp_path):
    model = {"model.cell": "transformer", "model.hidden_size": 8, "model.dropout": 0.5}
    config = tiny("recall", **{"recall.length": 3}, **model)
    assert footprint.step_bytes(problems.make(config, tmp_path), config) > 4 * 3 * 8


def test_the_speed_of_a_run_leaves_out_compiling(tmp_path):
    assert footprint.tokens_per_second(tmp_path) is None
    lines = [json.dumps({"step": n, "split": "train", "tokens_per_second": 10.0**n}) for n in range(4)]
    lines.insert(2, json.dumps({"step": 1, "split": "validation", "accuracy": 0.5}))
    for kept, speed in ((1, 1.0), (2, 10.0), (5, 100.0)):
        (tmp_path / "metrics.jsonl").write_text("\n".join(lines[:kept]) + '\n{"step": 9, "sp')
        assert footprint.tokens_per_second(tmp_path) == speed


def test_a_run_is_told_by_all_values_that_it_uses_and_by_the_version(monkeypatch):
    config = configs.default()
    config.problem = "recall"
    mine = variants.identity(config)
    assert mine["version"] == qlstm_jax.__version__ and mine["model.pr_lstm.refinements"] == 1
    used = {"task", "version", "model", "train", "eval", "recall"}
    assert {key.partition(".")[0] for key in mine} == used
    assert not any(key.startswith("model.lstm.") for key in mine)
    # Another default of the package is another run, though the config of the user is the same.
    config.model.pr_lstm.refinements = 2
    assert variants.identity(config) != mine
    monkeypatch.setattr(variants, "VERSION", "9.9")
    config.model.pr_lstm.refinements = 1
    other = variants.identity(config)
    assert other != mine and variants.is_same_but_for_version(mine, config)
    # What earlier versions wrote names only what differs from a default of its day.
    assert variants.is_same_but_for_version({"task": "recall"}, config)
    assert not variants.is_same_but_for_version({"task": "recall", "train.steps": 3}, config)
    assert not variants.is_same_but_for_version(mine | {"train.steps": 3}, config)


def test_results_of_another_version_run_anew_and_are_replaced(folder, tmp_path, capsys):
    arguments = [*command(folder), "--workdir", f"{tmp_path}", "--out", f"{tmp_path}", "--seeds", "1", "--rows", "rnn"]
    assert study.main(arguments) == 0
    path = tmp_path / "results.jsonl"
    record = json.loads(path.read_text())
    old = {
        **record,
        "identity": record["identity"] | {"version": "0.0"},
        "report": record["report"] | {"accuracy": 77.0},
    }
    path.write_text(json.dumps(old) + "\n")
    capsys.readouterr()
    assert study.main([*arguments, "--keep_old"]) == 0
    shown = capsys.readouterr().out
    assert "[1/1]" not in shown and "7700.0" in (tmp_path / "table.md").read_text()
    assert study.main(arguments) == 0
    shown = capsys.readouterr().out
    assert "note: 1 runs have a result in" in shown and "--keep_old" in shown
    assert len(path.read_text().splitlines()) == 2 and "7700.0" not in (tmp_path / "table.md").read_text()


def test_a_run_that_another_process_holds_is_left_out(folder, tmp_path, capsys):
    arguments = [*command(folder), "--workdir", f"{tmp_path}/runs", "--out", f"{tmp_path}", "--seeds", "1"]
    (cell,) = study.grid(study.arguments([*arguments, "--rows", "rnn"]))
    with locked(tmp_path / "runs" / f"recall_{variants.fingerprint(cell['identity'])}_seed_0"):
        assert study.main([*arguments, "--rows", "rnn"]) == 1
    shown = capsys.readouterr().err
    assert "left out: " in shown and "is in use by another run" in shown and "holds no results" in shown


def test_identity_knows_when_it_matters_how_often_a_run_is_validated():
    config = configs.default()
    config.train.eval_every = 7
    assert "train.eval_every" not in variants.identity(config)
    config.train.select = "best"
    assert variants.identity(config)["train.eval_every"] == 7


def test_columns_of_one_key_are_named_by_their_values():
    assert plots._settings(["text.max_length=8", "text.max_length=16"]) == ("text.max_length", ("8", "16"))
    for columns in (["a=1", "b=1"], ["a=1,b=2", "a=1,b=3"], ["", "a=1"]):
        assert plots._settings(columns) == ("setting of the task", [c.replace(",", "\n") for c in columns])


def test_the_interval_is_students():
    values = [1.0, 2.0, 4.0]  # t(0.975, 2) = 4.302653
    assert math.isclose(study_report.interval(values), 4.302653 * np.std(values, ddof=1) / 3**0.5, rel_tol=1e-6)
    assert math.isnan(study_report.interval([1.0]))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--rows", "lsm"), "did you mean 'lstm'"),
        (("--rows", "lstm,hiden_size=3"), "hidden_size"),
        (("--rows", "lstm", "--columns", "recall.length=short"), "expected an integer, such as"),
        (("--rows", "lstm", "pr_lstm,cell=rnn,norm=rms"), "model.pr_lstm.norm is 'rms'"),
        (("--rows", "lstm", "--seeds", "0"), "expected 1 or more"),
        (("--rows", "lstm", "--config", "nothing.py"), "expected a config file"),
        (
            ("--rows", "lstm", "--equal", "parameters", "--columns", "hidden_size=8"),
            "expected columns and choices without it",
        ),
        (("idmb",), "did you mean 'imdb'"),
        ((), "expected 1 or more of each"),
    ],
)
def test_mistakes_end_before_anything_runs(folder, capsys, arguments, message):
    assert study.main(command(folder, *arguments)) == 1
    assert message in capsys.readouterr().err
