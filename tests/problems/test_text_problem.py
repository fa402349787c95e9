import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from flax import nnx

from qlstm_jax import problems
from qlstm_jax.data.rows import DataError
from qlstm_jax.problems import TextProblem
from qlstm_jax.problems.config import ConfigError
from qlstm_jax.training import config as configs
from qlstm_jax.training.config_checks import check
from qlstm_jax.training.evaluate import evaluate, restore, score
from qlstm_jax.training.loop import train
from tests.training.conftest import tiny, write_reviews


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(workdir, report, what train returned); the data file is deleted once it is evaluated."""
    folder = tmp_path_factory.mktemp("text")
    path = write_reviews(folder / "reviews.tsv", rows=120)
    changes = {"train__steps": 40, "train__eval_every": 20, "train__learning_rate": 2e-2, "model__pooling": "mean_max"}
    result = train(tiny("text", text__path=str(path), train__select="best", **changes), folder / "run")
    report = evaluate(folder / "run")
    path.unlink()
    return folder / "run", report, result


def test_learns_from_a_small_file(run):
    _, report, result = run
    assert result["accuracy"] >= 0.9
    assert report["accuracy"] >= 0.9


def test_report(run):
    workdir, report, _ = run
    assert report == json.loads((workdir / "eval" / "report.json").read_text())
    assert (report["part"], report["task"], report["cell"]) == ("test", "text", "rnn")
    # 20 % of 120 rows, although batches hold 16 and the last is filled up with empty rows.
    assert report["examples"] == 24
    confusion = np.array(report["confusion_matrix"])
    assert confusion.sum(axis=1).tolist() == [12, 12]
    assert {name: c["support"] for name, c in report["classes"].items()} == {"bad": 12, "good": 12}
    assert report["accuracy"] == pytest.approx(np.trace(confusion) / 24)
    f1 = [2 * confusion[i, i] / (confusion[i].sum() + confusion[:, i].sum()) for i in (0, 1)]
    assert report["macro_f1"] == pytest.approx(np.mean(f1))
    picture = (workdir / "eval" / "confusion_matrix.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 4000


def test_predicts_without_the_data(run):
    workdir, _, _ = run
    assert json.loads((workdir / "text" / "labels.json").read_text()) == ["bad", "good"]
    assert (workdir / "text" / "tokenizer.json").exists()
    _, problem, model, _ = restore(workdir)
    lines = ["The film was lovely", "awful , dull", "", "xylophone", "lovely " * 100]
    records = problem.predict(model, lines)
    assert [r["text"] for r in records] == lines
    assert [r["label"] for r in records[:2]] == ["good", "bad"]
    for record in records:
        chances = record["probabilities"]
        assert list(chances) == ["bad", "good"]
        assert sum(chances.values()) == pytest.approx(1, abs=1e-5)
        assert record["label"] == max(chances, key=chances.get)
    # A line alone is not changed by the longer ones beside it, and no line is none.
    alone = problem.predict(model, lines[:1])[0]["probabilities"]
    assert alone == pytest.approx(records[0]["probabilities"], abs=1e-5)
    assert problem.predict(model, []) == []


def test_another_labelled_file_is_scored(run, tmp_path):
    workdir, report, _ = run
    path = tmp_path / "new.csv"
    rows = ["a lovely film,good", "fine and lovely,good", "awful plot,bad", "lovely again,bad", "not one of them,meh"]
    path.write_text("text,label\n" + "\n".join(rows[:4]) + "\n")
    found = score(workdir, path)
    assert found == json.loads((workdir / "eval" / "score_new.json").read_text())
    assert {found[key] == report[key] for key in ("task", "cell", "step", "parameters")} == {True}
    assert found["confusion_matrix"] == [[1, 1], [0, 2]] and found["accuracy"] == 0.75 and found["loss"] > 0
    assert (workdir / "eval" / "confusion_matrix_new.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((workdir / "eval" / "report.json").read_text()) == report
    path.write_text("text,label\n" + "\n".join(rows) + "\n")
    with pytest.raises(DataError, match=r"new\.csv:6: label never seen in training: .*'meh'.*text.on_bad_row=skip"):
        score(workdir, path)
    found = score(workdir, path, settings={"text.on_bad_row": "skip"})
    assert found["skipped"] == {"label never seen in training": 1} and (found["rows"], found["examples"]) == (5, 4)
    for label in ("good", "bad"):  # of one class, in folders
        (tmp_path / "folder" / label).mkdir(parents=True)
    (tmp_path / "folder" / "good" / "a.txt").write_text("lovely")
    found = score(workdir, tmp_path / "folder")
    assert found["confusion_matrix"] == [[0, 0], [0, 1]] and "no .txt files" in found["notes"][0]


def test_evaluation_without_the_data_says_what_is_missing(run):
    with pytest.raises(DataError, match=r"reviews\.tsv does not exist"):
        evaluate(run[0])


def test_a_run_can_be_moved(run, tmp_path):
    workdir, _, _ = run
    shutil.copytree(workdir, tmp_path / "elsewhere")
    _, problem, model, _ = restore(tmp_path / "elsewhere")
    assert problem.predict(model, ["lovely"])[0]["label"] == "good"


def test_what_a_start_that_was_cut_off_left_behind_is_not_read(run, tmp_path):
    shutil.copytree(run[0] / "text", tmp_path / "run" / "text")
    path = write_reviews(tmp_path / "reviews.tsv")
    problem = problems.make(tiny("text", text__path=str(path), text__tokenizer="byte"), tmp_path / "run")
    assert problem.tokenizer.kind == "byte"


@pytest.fixture
def begun(tmp_path):
    """(config, workdir, file) of a run that has begun."""
    path = write_reviews(tmp_path / "reviews.tsv")
    config = tiny("text", text__path=str(path))
    problems.make(config, tmp_path / "run")
    configs.save(config, tmp_path / "run" / "config.json")
    return config, tmp_path / "run", path


CHANGES = {
    "a row more": lambda lines: [*lines, "a film too many\tgood"],
    "a row less": lambda lines: lines[:-1],
    "another order": lambda lines: [lines[0], *lines[:0:-1]],
    "another text": lambda lines: [*lines[:-1], "other words\tbad"],
    "another label": lambda lines: [*lines[:-1], lines[-1].replace("bad", "good")],
    "a class less": lambda lines: [line for line in lines if not line.endswith("bad")],
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_run_whose_file_changed_is_refused(begun, change):
    config, workdir, path = begun
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")
    again = problems.make(config, workdir)
    with pytest.raises(DataError) as error:
        again.stream(0)
    assert "was trained with another" in str(error.value) or "too few to give" in str(error.value)
    assert "\n" not in str(error.value)
    assert again.label_names == ("bad", "good")


def test_a_run_whose_file_has_a_new_label_is_refused(begun):
    config, workdir, path = begun
    path.write_text(path.read_text() + "so so\tmeh\n")
    with pytest.raises(DataError, match=r"tsv:62: label never seen in training: .*'meh'.*'bad', 'good'"):
        problems.make(config, workdir).stream(0)


def test_a_run_whose_file_was_moved_goes_on(begun):
    config, workdir, path = begun
    config.text.path = str(path.rename(path.with_name("moved.tsv")))
    again = problems.make(config, workdir)
    next(again.stream(0))
    (workdir / "text" / "texts.json").unlink()
    with pytest.raises(DataError, match=r"texts\.json is missing.*bring it back, or train anew"):
        problems.make(config, workdir).stream(0)


def test_own_parts_of_a_run(begun):
    config, workdir, _ = begun
    parts = problems.make(config, workdir).parts
    other = parts["validation"].take(range(4), "other")
    assert TextProblem(config, workdir, parts={**parts, "test": other}).parts["test"] is other
    with pytest.raises(DataError, match="trained with another train part"):
        _ = TextProblem(config, workdir, parts={**parts, "train": other}).parts
    swapped = dataclasses.replace(other, label_names=("good", "bad"))
    for folder in (workdir, workdir.parent / "new"):
        with pytest.raises(DataError, match=r"labels of the test part are 'good', 'bad'; expected .* 'bad', 'good'"):
            _ = TextProblem(config, folder, parts={**parts, "test": swapped}).parts


def test_vocabulary_is_of_the_training_part(tmp_path):
    path = write_reviews(tmp_path / "reviews.tsv")
    problem = problems.make(tiny("text", text__path=str(path)), tmp_path / "run")
    words = {part: {w for t in e.texts for w in t.split()} for part, e in problem.parts.items()}
    unseen = words["test"] - words["train"]
    assert len(unseen) == 12  # each row has a word of its own
    assert not unseen & set(problem.tokenizer.vocab)
    assert words["train"] <= set(problem.tokenizer.vocab)
    assert not set(problem.parts["train"].texts) & set(problem.parts["test"].texts)


def test_filler_rows_are_never_counted(tmp_path, monkeypatch):
    """12 rows of validation in batches of 16: a model that always says class 0, the filler's label."""
    path = write_reviews(tmp_path / "reviews.tsv")
    problem = problems.make(tiny("text", text__path=str(path)), tmp_path / "run")
    logits = np.tile(np.float32([2.0, 0.0]), (16, 1))
    monkeypatch.setattr(problem, "_logits", lambda *_: logits)
    model = problem.model(problems.text.nnx.Rngs(params=jax.random.key(0)))
    values = problem.validate(model, None)
    assert values["accuracy"] == 0.5 and values["macro_f1"] == pytest.approx((2 * 6 / 18) / 2)
    nats = np.log1p(np.exp(-2.0))  # of a label that was given the higher logit; two more for the other
    assert values["loss"] == pytest.approx(0.5 * nats + 0.5 * (nats + 2), abs=1e-5)
    report = problem.report(model, None, tmp_path, None)
    assert report["confusion_matrix"] == [[6, 0], [6, 0]]
    assert report["macro_f1"] == pytest.approx((2 * 6 / 18) / 2)


def test_dirty_rows(tmp_path):
    path = write_reviews(tmp_path / "reviews.tsv")
    lines = path.read_text().splitlines()
    lines[4:4] = ["a text without a label", "\tgood"]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=r"reviews\.tsv:5: .*columns"):
        problems.make(tiny("text", text__path=str(path)), tmp_path / "run")
    assert not (tmp_path / "run" / "text").exists()
    problem = problems.make(tiny("text", text__path=str(path), text__on_bad_row="skip"), tmp_path / "run")
    notes = "\n".join(problem.notes())
    assert "train 36, validation 12, test 12 texts; labels bad, good" in notes
    assert "62 rows, 60 kept, 2 skipped" in notes
    assert "first at" in notes and "reviews.tsv:5" in notes


def test_no_validation_part(tmp_path):
    path = write_reviews(tmp_path / "reviews.tsv")
    config = tiny("text", text__path=str(path), text__validation=0.0, text__test=0.0, train__steps=1)
    result = train(config, tmp_path / "run")
    assert set(result) == {"train_loss", "train_accuracy"}


def test_unknown_dataset(tmp_path):
    with pytest.raises(DataError, match=r"text.dataset is 'imbd'; expected imdb_reviews"):
        problems.make(tiny("text", text__dataset="imbd"), tmp_path)


def test_packed_rows_are_trained_as_texts_of_their_own(tmp_path):
    """The loss of an epoch of packed rows is that of the same texts one a row."""
    path = write_reviews(tmp_path / "reviews.tsv", rows=60)
    config = tiny("text", text__path=str(path), text__pack=True, text__max_length=12, text__row_length=32)
    problem = problems.make(config, tmp_path / "run")
    notes = [line for line in problem.notes() if line.startswith("packed to train")]
    assert len(notes) == 1 and "rows of 32 tokens" in notes[0]
    model = problem.model(nnx.Rngs(0))
    loss = nnx.jit(lambda model, batch: problem.loss(model, batch, None))

    def epoch(batches, count):
        sums = [loss(model, batches.batch(number)) for number in range(count)]
        return {name: sum(float(s[name]) for s in sums) for name in sums[0]}

    unpacked = problem.batches("train", shuffle=False)
    packed = epoch(problem.packed, problem.packed.batches_per_epoch(0))
    expected = epoch(unpacked, unpacked.batches_per_epoch(0))
    assert packed.keys() == expected.keys()
    for name, value in expected.items():
        assert packed[name] == pytest.approx(value, rel=1e-5), name


def test_rows_shorter_than_texts_are_refused():
    with pytest.raises(ConfigError, match=r"text.row_length is 8; expected at least text.max_length"):
        check(tiny("text", text__path="x.tsv", text__pack=True, text__max_length=9, text__row_length=8))


def test_own_parts_in_files(tmp_path):
    train_file = write_reviews(tmp_path / "mine.tsv")
    test_file = tmp_path / "held_out.csv"
    test_file.write_text("text,label\nthe plot was dull,bad\na lovely film,good\nawful,bad\n")
    files = {"text__train_path": str(train_file), "text__test_path": str(test_file), "text__test": 0.3}
    config = tiny("text", **files)
    assert TextProblem.unused(config) == ["text.test: not used, as text.test_path is given"]
    notes = "\n".join(problems.make(config, tmp_path / "run").notes())
    assert "train 48, validation 12, test 3 texts; labels bad, good" in notes
    assert "mine.tsv: 60 rows, 60 kept" in notes and "held_out.csv: 3 rows, 3 kept" in notes
    configs.save(config, tmp_path / "run" / "config.json")
    test_file.write_text("text,label\nthe plot was dull,bad\n")
    with pytest.raises(DataError, match="was trained with another test part"):
        problems.make(config, tmp_path / "run").stream(0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "text.path is '' and text.dataset is ''"),
        ({"text__test_path": "b.csv"}, "text.path is '' and text.dataset is ''"),
        ({"text__path": "a.csv", "text__train_path": "b.csv"}, "text.path is 'a.csv' and text.train_path 'b.csv'"),
        ({"text__dataset": "imdb_reviews", "text__test_path": "b.csv"}, "text.test_path is given beside IMDB"),
        ({"text__path": "x/aclImdb_v1.tar.gz", "text__validation_path": "b"}, "text.validation_path is given beside"),
    ],
)
def test_each_part_has_one_place(given, message):
    with pytest.raises(ConfigError, match=message):
        TextProblem.check(tiny("text", **given))
