"""A series run and files: times of its forecasts, other files to forecast from, its own file gone or grown."""

import csv
import json

import numpy as np
import pytest

from qlstm_jax.data.rows import DataError
from qlstm_jax.problems import SeriesProblem
from qlstm_jax.problems.config import ConfigError
from qlstm_jax.training.evaluate import evaluate, restore
from qlstm_jax.training.loop import train
from tests.training.conftest import tiny

CONTEXT, HORIZON = 6, 3
DAYS = np.arange("2024-01-01", "2024-04-01", dtype="datetime64[D]").astype(str)


def write(path, days=DAYS, *, comma=",", point=".", shift=0.0):
    """A sine and its double, as a spreadsheet of pandas's with a row counter."""
    waves = np.sin(np.arange(len(days)) * 2 * np.pi / 7) + shift
    lines = [
        f"{n}{comma}{day}{comma}{w:.4f}{comma}{2 * w:.4f}" for n, (day, w) in enumerate(zip(days, waves, strict=True))
    ]
    text = "\n".join([comma.join(["", "day", "small", "large"]), *lines]) + "\n"
    path.write_text(text.replace(".", point), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(workdir, file, its next.csv) of a run that was trained and evaluated."""
    folder = tmp_path_factory.mktemp("series")
    path = write(folder / "waves.csv")
    changes = {"series__context": CONTEXT, "series__horizon": HORIZON, "series__targets": "large"}
    train(tiny("series", series__path=str(path), **changes), folder / "run")
    evaluate(folder / "run")
    with (folder / "run" / "eval" / "next.csv").open(encoding="utf-8", newline="") as file:
        return folder / "run", path, list(csv.DictReader(file))


def test_the_forecast_has_the_times_that_follow(run):
    rows = run[2]
    assert list(rows[0]) == ["step", "time", "large", "large low", "large high"]
    assert [row["time"] for row in rows] == ["2024-04-01", "2024-04-02", "2024-04-03"]
    assert all(float(row["large low"]) < float(row["large"]) < float(row["large high"]) for row in rows)


def test_a_file_is_forecast_without_that_of_training(run, tmp_path):
    workdir, path, rows = run
    path.rename(tmp_path / "kept.csv")
    try:
        _, problem, model, _ = restore(workdir)
        records = list(problem.predict_file(model, tmp_path / "kept.csv"))
        with pytest.raises(DataError, match=r"waves\.csv is no file"):
            evaluate(workdir)
    finally:
        (tmp_path / "kept.csv").rename(path)
    notes = records[0].pop("notes")
    assert any("times of column day: 2024-01-01 to 2024-03-31" in note for note in notes)
    assert [{k: str(v) for k, v in record.items()} for record in records] == rows
    json.dumps(records)


def test_another_file_as_others_write_it(run, tmp_path):
    """Its last rows alone count: here the newest comes first, the separator is another, and a column stands before."""
    workdir, _, rows = run
    _, problem, model, _ = restore(workdir)
    other = write(tmp_path / "other.csv", comma=";", point=",")
    head, *lines = other.read_text().splitlines()
    lines = [f"{line};7" for line in reversed(lines[-2 * CONTEXT :])]
    other.write_text("\n".join([f"{head};more", *lines, "sum;;1,0;2,0;7"]) + "\n")
    records = problem.predict_file(model, other)
    assert [r["time"] for r in records] == [row["time"] for row in rows]
    np.testing.assert_allclose([r["large"] for r in records], [float(row["large"]) for row in rows], rtol=1e-5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("day,small\n2024-01-01,1\n", r"f\.csv has no column 'large'; expected different names .* numbers 'small'"),
        ("small,large\n1,2\n3,4\n", r"f\.csv has 2 rows; expected at least 6, the run's series.context"),
        ("small,large\n1,2\n3,\n", r"f\.csv:3: column 'large' has a missing value"),
        (
            "day,small,large\n" + "".join(f"2024-01-01 {hour:02d}:00,1,{hour}\n" for hour in range(9)),
            r"f\.csv goes on in steps of 1 hour; expected 1 day, as in training",
        ),
    ],
)
def test_files_that_cannot_be_forecast_from(run, tmp_path, text, message):
    _, problem, model, _ = restore(run[0])
    (tmp_path / "f.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        problem.predict_file(model, tmp_path / "f.csv")


def test_a_file_that_has_grown_is_not_evaluated_but_forecast_from(run):
    workdir, path, _ = run
    text = path.read_text()
    try:
        path.write_text(text + "91,2024-04-01,0.5,1.0\n")
        _, problem, model, _ = restore(workdir)
        assert problem.predict_file(model, path)[0]["time"] == "2024-04-02"
        with pytest.raises(
            DataError, match=r"was trained on another file \(.*91 rows\) than is there now \(.*92 rows\)"
        ):
            evaluate(workdir)
    finally:
        path.write_text(text)


def test_a_run_of_a_version_that_kept_no_scale_reads_its_file(run):
    workdir, path, rows = run
    record = workdir / "series" / "file.json"
    kept = json.loads(record.read_text())
    record.write_text(json.dumps({key: kept[key] for key in ("source", "rows", "sha256")}))
    _, problem, model, _ = restore(workdir)
    assert problem.predict_file(model, path)[0]["large"] == pytest.approx(float(rows[0]["large"]))
    assert json.loads(record.read_text()) == kept


def test_a_series_has_no_lines_of_text_to_predict(run):
    _, problem, model, _ = restore(run[0])
    with pytest.raises(ConfigError, match="SeriesProblem has no predictions for lines of text"):
        problem.predict(model, ["1,2"])


def test_options_of_reading_reach_the_file(tmp_path):
    lines = write(tmp_path / "waves.csv").read_text().splitlines()
    lines[3] = "2,2024-01-03,,1"
    del lines[40]
    (tmp_path / "waves.csv").write_text("\n".join(lines) + "\n")
    sizes = {"series__context": CONTEXT, "series__horizon": HORIZON}
    small = {"series__path": str(tmp_path / "waves.csv"), **sizes}
    with pytest.raises(DataError, match=r"waves\.csv:4: column 'small' has a missing value"):
        SeriesProblem(tiny("series", **small), tmp_path / "a")
    assert not (tmp_path / "a").exists()
    problem = SeriesProblem(tiny("series", **small, series__on_missing="interpolate"), tmp_path / "b")
    assert len(problem.data.table.values) == len(DAYS)
    shown = "\n".join(problem.notes())
    assert "times left out, put in by interpolate: 1" in shown and "filled in by interpolate: 1" in shown
    assert "no series: 1 numbers the rows; day holds the times" in shown
