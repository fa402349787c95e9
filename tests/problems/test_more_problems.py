"""Adding, copying, digits and series: what counts, and a run of each through the trainer and the evaluation."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from qlstm_jax import nnx as layers
from qlstm_jax.data.rows import DataError
from qlstm_jax.models import Predictor
from qlstm_jax.problems import AddingProblem, CopyingProblem, DigitsProblem, SeriesProblem
from qlstm_jax.training import config_checks
from qlstm_jax.training.config import ConfigError
from qlstm_jax.training.evaluate import evaluate
from qlstm_jax.training.loop import train
from tests.training.conftest import read_metrics, tiny

MQAR = {"mqar__length": 9, "mqar__num_pairs": 2, "mqar__num_keys": 4, "mqar__num_values": 3}
SELECT = {"selective_copying__length": 7, "selective_copying__num_symbols": 3, "selective_copying__alphabet": 4}
COPY = {"copying__length": 4, "copying__num_symbols": 2, "copying__alphabet": 3}
CLIPS = {"digits__mode": "clips", "digits__frames": 3, "digits__canvas": 9}
SERIES = {"series__context": 6, "series__horizon": 3, "series__period": 4}


def write_waves(path, rows=120):
    """Two sines with noise, hourly; the second has a thousand times the size of the first."""
    t, noise = np.arange(rows), np.random.default_rng(0).normal(size=(2, rows))
    small = np.sin(2 * np.pi * t / 12) + 0.1 * noise[0]
    large = 1000 * (5 + np.sin(2 * np.pi * t / 8) + 0.1 * noise[1])
    lines = [f"day {n // 24} {n % 24}:00,{a:.6f},{b:.6f}" for n, (a, b) in enumerate(zip(small, large, strict=True))]
    path.write_text("\n".join(["time,small,large", *lines]) + "\n", encoding="utf-8")
    return str(path)


def waves(tmp_path, **changes):
    return tiny("series", **{**SERIES, "series__path": write_waves(tmp_path / "waves.csv"), **changes})


def assert_picture(path):
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n") and path.stat().st_size > 4000


@pytest.mark.parametrize("pooling", ["last", "mean_max"])
def test_predictor_without_lengths_reads_all_of_each_row(pooling):
    model = Predictor(layers.LSTM(3, 4, rngs=nnx.Rngs(0)), 2, pooling=pooling, rngs=nnx.Rngs(1))
    xs = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
    read = nnx.jit(lambda model, xs, **options: model(xs, **options))
    ys = np.asarray(read(model.layer, xs), np.float64)
    parts = {"last": [ys[:, -1]], "mean_max": [ys.mean(1), ys.max(1)]}
    kernel, bias = (np.asarray(a[...], np.float64) for a in (model.head.kernel, model.head.bias))
    np.testing.assert_allclose(read(model, xs), np.concatenate(parts[pooling], 1) @ kernel + bias, atol=1e-5)
    padded = np.concatenate([xs, np.full((2, 2, 3), np.nan, np.float32)], axis=1)
    np.testing.assert_allclose(read(model, padded, seq_lengths=np.array([5, 5])), read(model, xs), atol=1e-6)


def test_adding_counts_answers_within_four_hundredths(tmp_path):
    problem = AddingProblem(tiny("adding", adding__length=6), tmp_path)
    batch = problem.sample(jax.random.key(0), 4, 0)
    off = jnp.array([0.0, 0.039, -0.041, 0.5])
    sums = problem.loss(lambda inputs, rngs=None: (batch.targets + off)[:, None], batch, None)
    np.testing.assert_allclose(sums["loss"], 0.039**2 + 0.041**2 + 0.25, rtol=1e-4)
    assert (sums["weight"], sums["correct"], sums["count"], sums["tokens"]) == (4, 2, 4, 24)


def test_adding_chance_and_baseline_are_those_of_answering_one(tmp_path):
    class One(nnx.Module):
        def __call__(self, inputs, rngs=None):
            return jnp.ones((inputs.shape[0], 1))

    problem = AddingProblem(tiny("adding", adding__length=6), tmp_path)
    figures = problem.figures(One(), jax.random.key(0), 6, 8000)
    assert figures["accuracy"] == pytest.approx(problem.chance, abs=0.012)  # four standard errors
    assert figures["loss"] == pytest.approx(1 / 6, abs=0.009)


def test_copying_counts_the_last_symbols_alone(tmp_path):
    problem = CopyingProblem(tiny("copying", **COPY), tmp_path)
    batch = problem.sample(jax.random.key(0), 5, 0)

    def knows(ids, rngs=None):
        """Right at the last two positions, but for the first row's last; nothing before."""
        right = batch.targets.at[0, 1].set((batch.targets[0, 1] + 1) % 3)
        return jnp.concatenate([jnp.zeros((5, 7, 3)), 20.0 * jax.nn.one_hot(right, 3)], axis=1)

    sums = problem.loss(knows, batch, None)
    assert (sums["weight"], sums["correct"], sums["count"], sums["tokens"]) == (10, 9, 10, 45)
    np.testing.assert_allclose(sums["loss"], 20, rtol=1e-4)
    assert problem.positions(4) == batch.ids.shape[1] == 9


@pytest.mark.parametrize(
    ("task", "changes", "lengths"),
    [
        ("adding", {"adding__length": 4}, [2, 4, 8, 16]),
        ("copying", COPY, [2, 4]),
        ("mqar", MQAR, [9, 18]),
        ("recall", {"recall__length": 4}, [1, 2, 4]),
        ("selective_copying", SELECT, [7, 14]),
    ],
)
def test_a_run_and_its_report(task, changes, lengths, tmp_path, monkeypatch):
    monkeypatch.setattr(CopyingProblem, "least", 0.5)  # each length is a program to compile; adding has all of them
    train(tiny(task, **changes), tmp_path)
    report = evaluate(tmp_path, longest=4 if task == "adding" else lengths[-1] // changes[f"{task}__length"])
    assert list(report["accuracy_by_length"]) == list(report["loss_by_length"]) == list(map(str, lengths))
    own = {"adding": {"baseline_loss": 1 / 6}, "mqar": {"pairs": 2}}.get(task, {})
    assert report.items() >= own.items() and 0 <= report["accuracy"] <= 1
    assert report["sequences"] >= 256
    for figure in ("accuracy", "loss"):
        assert report[figure] == report[f"{figure}_by_length"][str(report["length"])]
    assert_picture(tmp_path / "eval" / "accuracy_by_length.png")
    assert {"loss", "accuracy"} <= read_metrics(tmp_path)[-1].keys()


def test_figures_take_as_many_sequences_as_asked(tmp_path, monkeypatch):
    """Three batches of four, of which the last has two that do not count."""
    monkeypatch.setattr("qlstm_jax.problems.sampled.POSITIONS", 4 * 9)
    problem = CopyingProblem(tiny("copying", **COPY), tmp_path)

    class Sevens(nnx.Module):
        def __call__(self, ids, rngs=None):
            return jax.nn.one_hot(jnp.zeros_like(ids), 3)

    drawn = [problem.task.sample(k, 4, 4).targets for k in jax.random.split(jax.random.key(0), 3)]
    expected = np.mean(np.concatenate(drawn)[:10] == 0)
    assert problem.accuracy(Sevens(), jax.random.key(0), 4, 10) == pytest.approx(expected)


@pytest.mark.parametrize("changes", [{}, CLIPS], ids=["pixels", "clips"])
def test_a_digits_run_and_its_report(tmp_path, changes):
    """Pixels on two devices, each of which draws from the same images."""
    train(tiny("digits", train__num_devices=1 if changes else 2, **changes), tmp_path)
    report = evaluate(tmp_path)
    assert report["examples"] == (256 if changes else 359) and len(report["classes"]) == (19 if changes else 10)
    assert 0 <= report["accuracy"] <= 1
    assert_picture(tmp_path / "eval" / "confusion_matrix.png")


def test_digits_are_drawn_from_the_training_images_alone(tmp_path):
    problem = DigitsProblem(tiny("digits"), tmp_path)
    assert {name: len(labels) for name, (_, labels) in problem.parts.items()} == {
        "test": 359,
        "validation": 180,
        "train": 1258,
    }
    train_images = {tuple(image.ravel().tolist()) for image in np.asarray(problem.parts["train"][0])}
    drawn = np.asarray(problem.sample(jax.random.key(0), 200, 0).inputs)[:, :, 0]
    assert {tuple(row.tolist()) for row in drawn} <= train_images


def test_digits_confusion_of_a_model_that_says_seven(tmp_path):
    class Seven(nnx.Module):
        def __call__(self, inputs, rngs=None):
            return jnp.broadcast_to(jax.nn.one_hot(7, 10)[None], (inputs.shape[0], 10))

    problem = DigitsProblem(tiny("digits"), tmp_path)
    confusion, loss = problem.confusion(Seven(), jax.random.key(0), "test", 1)
    labels = np.asarray(problem.parts["test"][1])
    np.testing.assert_array_equal(confusion[:, 7], np.bincount(labels))
    assert confusion.sum() == 359
    assert loss == pytest.approx(np.log(9 + np.e) - np.mean(labels == 7), rel=1e-5)


class Fixed(nnx.Module):
    """Answers `outputs` (H·K·parts,) to anything."""

    def __init__(self, outputs):
        self.outputs = nnx.Param(jnp.asarray(outputs, jnp.float32).ravel())

    def __call__(self, inputs, rngs=None):
        return jnp.broadcast_to(self.outputs[...][None], (inputs.shape[0], self.outputs.shape[0]))


@pytest.mark.parametrize("loss", ["gaussian", "point"])
@pytest.mark.parametrize("from_last", [False, True])
def test_series_errors_against_numpy(tmp_path, monkeypatch, loss, from_last):
    """In the user's units, window by window; in batches of which the last is not full."""
    monkeypatch.setattr("qlstm_jax.problems.series.WINDOWS", 8)
    config = waves(tmp_path, series__loss=loss, series__from_last=from_last, series__targets="large")
    problem = SeriesProblem(config, tmp_path / "run")
    outputs = np.random.default_rng(1).normal(size=(3, 1, 2 if loss == "gaussian" else 1))
    report = problem.report(Fixed(outputs), jax.random.key(0), tmp_path, config.eval)
    large = np.loadtxt(tmp_path / "waves.csv", delimiter=",", skiprows=1, usecols=2)
    shift, unit = large[:84].mean(), large[:84].std()
    errors, last, seasonal, nll, inside = [], [], [], [], []
    for t in range(96, 118):
        truth = large[t : t + 3]
        guess = unit * outputs[:, 0, 0] + (large[t - 1] if from_last else shift)
        errors.append(truth - guess)
        last.append(truth - large[t - 1])
        seasonal.append(truth - large[t - 4 : t - 1])
        if loss == "gaussian":
            variance = np.exp(outputs[:, 0, 1])
            nll.append((np.log(2 * np.pi * variance) + ((truth - guess) / unit) ** 2 / variance) / 2)
            inside.append(np.abs(truth - guess) <= 1.644854 * unit * np.sqrt(variance))

    def of(found):
        return {"mae": np.abs(found).mean(), "rmse": np.sqrt(np.square(found).mean())}

    assert (report["windows"], report["context"], report["horizon"], list(report["columns"])) == (22, 6, 3, ["large"])
    figures = report["columns"]["large"]
    for name, found in (("last_value", last), ("seasonal", seasonal)):
        assert figures[name] == pytest.approx(of(found), rel=1e-5)
    assert {k: figures[k] for k in ("mae", "rmse")} == pytest.approx(of(errors), rel=1e-5)
    assert report["standardised"]["mae"] == pytest.approx(figures["mae"] / unit, rel=1e-5)
    if loss == "gaussian":
        assert figures["nll"] == pytest.approx(np.mean(nll), rel=1e-5) == pytest.approx(report["loss"])
        assert figures["coverage_90"] == pytest.approx(np.mean(inside)) and 0 < figures["coverage_90"] < 1
    else:
        assert "nll" not in figures and report["loss"] == pytest.approx((figures["rmse"] / unit) ** 2, rel=1e-5)
    assert_picture(tmp_path / "forecast.png")
    header, *rows = (line.split(",") for line in (tmp_path / "next.csv").read_text().splitlines())
    following = unit * outputs[:, 0, 0] + (large[-1] if from_last else shift)
    expected = [np.arange(1, 4), following]
    if loss == "gaussian":
        half = 1.644854 * unit * np.exp(outputs[:, 0, 1] / 2)
        expected += [following - half, following + half]
    assert header == ["step", "large", "large low", "large high"][: len(expected)]
    np.testing.assert_allclose(np.array(rows, float), np.stack(expected, axis=1), rtol=1e-5)


@pytest.mark.parametrize("loss", ["gaussian", "point"])
def test_series_training_loss_is_that_of_the_report(tmp_path, loss):
    problem = SeriesProblem(waves(tmp_path, series__loss=loss), tmp_path / "run")
    model = problem.model(nnx.Rngs(0))
    windows = problem.data.windows["validation"]
    sums = problem.loss(model, windows.at(windows.origins), None)
    assert "correct" not in sums and sums["weight"] == len(windows.origins) * 3 * 2
    assert sums["tokens"] == len(windows.origins) * 6
    assert sums["loss"] / sums["weight"] == pytest.approx(problem.validate(model, None)["loss"], rel=1e-4)


def test_a_series_run_and_its_report(tmp_path, capsys):
    config = waves(tmp_path, train__select="best", train__steps=8)
    train(config, tmp_path / "run")
    shown = capsys.readouterr().out
    assert "waves.csv: 120 rows of small, large" in shown and "no series: time holds no numbers ('day 0 0:00')" in shown
    assert "train 84 (76 windows), validation 12 (10 windows), test 24 (22 windows)" in shown
    report = evaluate(tmp_path / "run")
    assert report["columns"].keys() == {"small", "large"} and report["recurrent_parameters"] > 0
    ahead = np.loadtxt(tmp_path / "run" / "eval" / "next.csv", delimiter=",", skiprows=1)
    assert ahead.shape == (3, 7) and (ahead[:, [2, 5]] < ahead[:, [1, 4]]).all()
    assert (ahead[:, [1, 4]] < ahead[:, [3, 6]]).all() and abs(ahead[:, 1]).max() < 100 < ahead[:, 4].min()
    for name in ("forecast", "learning_curves"):
        assert_picture(tmp_path / "run" / "eval" / f"{name}.png")
    assert all("accuracy" not in record for record in read_metrics(tmp_path / "run"))
    with (tmp_path / "waves.csv").open("a") as file:
        file.write("later,1,2\n")
    with pytest.raises(DataError, match=r"another file \(.*120 rows\) than is there now \(.*121 rows\)"):
        evaluate(tmp_path / "run")


def test_a_series_of_one_column_is_learnt(tmp_path):
    """A sine without noise: no worse than a third of the error of the last value after 150 steps."""
    path = tmp_path / "sine.csv"
    path.write_text("\n".join(str(np.sin(n / 2)) for n in range(300)), encoding="utf-8")
    changes = {
        "train__steps": 150,
        "train__eval_every": 150,
        "train__learning_rate": 1e-2,
        "train__checkpoint_every": 150,
    }
    config = tiny("series", series__path=str(path), series__context=8, series__horizon=2, **changes)
    train(config, tmp_path / "run")
    figures = evaluate(tmp_path / "run")["columns"]["1"]
    assert figures["mae"] < figures["last_value"]["mae"] / 3 and "seasonal" not in figures


def test_a_constant_column_is_noted_and_does_no_harm(tmp_path):
    path = tmp_path / "flat.csv"
    path.write_text("x,flat\n" + "\n".join(f"{n % 5},0.1" for n in range(60)), encoding="utf-8")
    problem = SeriesProblem(tiny("series", **{**SERIES, "series__path": str(path)}), tmp_path / "run")
    assert "constant in the training part, and so of no use: flat" in problem.notes()
    assert np.isfinite(problem.validate(problem.model(nnx.Rngs(0)), None)["loss"])


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        ("digits", {"digits__mode": "clip"}, "digits.mode is 'clip'; did you mean 'clips'"),
        ("digits", {"digits__test": 0.0}, r"digits.validation is 0\.1 and digits.test 0\.0"),
        ("mqar", {"mqar__length": 5, "mqar__num_pairs": 2}, "mqar.length is 5; expected at least 6"),
        ("mqar", {"mqar__num_keys": 1}, "mqar.num_keys is 1"),
        ("selective_copying", {**SELECT, "selective_copying__length": 2}, "length is 2; expected at least 3"),
        ("series", {}, "series.path is ''; expected --config.series.path=FILE"),
        ("series", {"series__path": "a", "series__validation": 0.9}, r"series.validation is 0\.9"),
        ("series", {"series__path": "a", "series__separator": "semicolons"}, "did you mean 'semicolon'?"),
        ("series", {"series__path": "a", "series__decimal": ";"}, r"decimal is ';'; expected one of \., ,, or ''"),
    ],
)
def test_settings_that_cannot_be(task, changes, message):
    with pytest.raises(ConfigError, match=message):
        config_checks.check(tiny(task, **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"series__path": "none.csv"}, r"none\.csv is no file"),
        ({"series__targets": "tiny"}, "series.targets is 'tiny'; expected different names .* 'small', 'large'"),
        ({"series__columns": "small", "series__targets": "large"}, "series.targets is 'large'"),
        ({"series__columns": "time"}, "column 'time' of series.columns holds no numbers"),
        ({"series__horizon": 13}, "the validation part has 12 rows; expected at least 13"),
        ({"series__period": 85}, "series.period is 85; expected at most 84"),
    ],
)
def test_data_that_do_not_fit_leave_no_run_behind(tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        train(waves(tmp_path, **changes), tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["run.lock"]


def test_the_record_of_the_file(tmp_path):
    problem = SeriesProblem(waves(tmp_path), tmp_path / "run")
    record = json.loads((tmp_path / "run" / "series" / "file.json").read_text())
    assert record == {
        "source": str(tmp_path / "waves.csv"),
        "rows": 120,
        "sha256": problem.data.table.sha256,
        "columns": ["small", "large"],
        "mean": problem.data.mean.tolist(),
        "deviation": problem.data.deviation.tolist(),
        "step": None,
        "writing": {"decimal": ".", "time_format": ""},
    }
