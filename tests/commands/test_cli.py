"""The command lines: two in processes of their own, which takes seconds, the others in this one."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from qlstm_jax.commands.programs import evaluate, train
from qlstm_jax.training.loop import train as trainer
from tests.commands.calls import call, mistake
from tests.data.test_files import odd_files
from tests.training.conftest import tiny, write_reviews

ROOT = Path(__file__).parents[2]
SMALL = {
    "model.hidden_size": 4,
    "model.cell": "rnn",
    "formal.max_length": 3,
    "train.batch_size": 4,
    "train.steps": 2,
    "eval.min_length": 4,
    "eval.max_length": 5,
    "eval.sequences": 4,
    "recall.length": 9,  # which this run does not use
}


def run(script, *arguments, folder):
    """Runs from another folder, as a user may."""
    # One device, and as little compiling as can be: what is tested here is not numbers.
    environment = {**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    environment["PYTHONPATH"] = str(ROOT)
    command = [sys.executable, str(ROOT / script), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def test_train_then_evaluate(tmp_path, monkeypatch):
    config = f"--config={ROOT / 'configs' / 'formal.py'}:even_pairs,lstm"
    small = [f"--config.{key}={value}" for key, value in SMALL.items()]
    done = run("train.py", config, *small, "--workdir=run", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    shown = done.stdout.splitlines()
    assert shown[0] == "training in run"
    assert "note: recall.length: not used, as problem is 'formal'" in shown
    assert any(line.split()[0] == "head.kernel" and line.split()[-1] == "8" for line in shown if line.strip())
    assert any(line.split()[:1] == ["total"] for line in shown)
    assert any(line.startswith("step 2/2  loss") for line in shown)
    assert shown[-1] == "done. Evaluate it:  python eval.py --workdir=run"
    saved = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (saved["formal"]["task"], saved["model"]["cell"], saved["train"]["steps"]) == ("even_pairs", "rnn", 2)

    monkeypatch.chdir(tmp_path)
    done = call(evaluate, "--workdir=run", "--max_length=6")
    assert done.code == 0, done.err
    report = json.loads((tmp_path / "run" / "eval" / "report.json").read_text())
    assert report["score_lengths"] == [4, 6, 1]
    assert f'"score": {report["score"]}' in done.out
    assert "accuracy_by_length.png" in done.out


def test_settings_are_one_thing_however_they_are_typed(tmp_path):
    typed = ["--config.formal.max_length=9", "--config.train.steps", "2", "--noconfig.model.bidirectional"]
    typed += ["--set", "formal.max_length=3", "hidden_size=4", "num_devices=1", "--config.formal.task=even_pairs"]
    typed += ["--set=model.cell=rnn"]
    typed += ["--set", "train.batch_size=4", "--config", "formal:parity_check,lstm"]
    assert call(train, *typed, f"--workdir={tmp_path / 'run'}").code == 0
    saved = json.loads((tmp_path / "run" / "config.json").read_text())
    assert saved["formal"]["max_length"] == 3 and saved["formal"]["task"] == "even_pairs"
    assert (saved["model"]["cell"], saved["model"]["hidden_size"], saved["model"]["bidirectional"]) == ("rnn", 4, False)
    assert (saved["train"]["steps"], saved["train"]["batch_size"]) == (2, 4)

    lengths = ["--set", "min_length=4", "eval.sequences=4", "--max_length=4"]  # the last word of eval's keys is no key
    line, code = mistake(evaluate, f"--workdir={tmp_path / 'run'}", *lengths)
    assert (code, "formal.min_length" in line) == (1, True)
    lengths[1:2] = ["eval.min_length=4"]
    done = call(evaluate, f"--workdir={tmp_path / 'run'}", *lengths)
    assert done.code == 0 and json.loads(done.out.partition("figures in")[0])["score_lengths"] == [4, 4, 1]
    for key in ("train.steps=9", "model.hidden_size=5"):
        line, code = mistake(evaluate, f"--workdir={tmp_path / 'run'}", "--set", key)
        assert code == 1 and "a trained run keeps its" in line and "expected one of eval.*, model.dtype" in line


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """The folder of a run on texts."""
    folder = tmp_path_factory.mktemp("texts")
    path = write_reviews(folder / "reviews.tsv")
    trainer(tiny("text", text__path=str(path), train__steps=1), folder / "run")
    return folder


def test_predict(texts):
    (texts / "lines.txt").write_text("dull\n\nfine\u2028☃\n", encoding="utf-8")
    done = call(evaluate, f"--workdir={texts}/run", "--predict=a lovely film", f"--predict_file={texts}/lines.txt")
    assert done.code == 0, done.err
    records = [json.loads(line) for line in done.out.rstrip("\n").split("\n")]
    assert [r["text"] for r in records] == ["a lovely film", "dull", "", "fine\u2028☃"]
    assert {r["label"] for r in records[:2] + records[3:]} <= {"good", "bad"}
    assert records[2] == {"text": "", "label": None, "probabilities": None, "note": "empty text"}


def test_files_that_cannot_be_predicted(texts, tmp_path):
    for path, part in odd_files(tmp_path).values():
        part = re.sub(r"not UTF-8 \(.*\)", "invalid UTF-8", part)  # told by row, as other bad rows are
        line, code = mistake(evaluate, f"--workdir={texts}/run", f"--predict_file={path}")
        assert str(path) in line and part in line and code == 1


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_narrow_output_gets_json(texts, encoding):
    text = "café فیلم 👍"
    done = call(evaluate, f"--workdir={texts}/run", f"--predict={text}", encoding=encoding)
    assert done.code == 0 and json.loads(done.out)["text"] == text


def test_what_an_evaluation_does_not_read_is_refused(texts):
    for options in (["--longest=3"], ["--set", "eval.longest=3"]):
        line, code = mistake(evaluate, f"--workdir={texts}/run", *options)
        assert code == 1 and line.startswith("the evaluation of text does not read eval.longest")


def test_a_run_whose_data_moved(texts):
    moved = texts / "reviews.tsv"
    moved = moved.rename(texts / "moved.tsv")
    line, code = mistake(evaluate, f"--workdir={texts}/run")
    assert code == 1 and "reviews.tsv does not exist" in line
    done = call(evaluate, f"--workdir={texts}/run", "--set", f"text.path={moved}", "model.dtype=bfloat16")
    assert done.code == 0 and json.loads(done.out.partition("figures in")[0])["part"] == "test"


def test_a_reader_that_left():
    """In a process of its own, whose output Python flushes once more at its end."""
    command = f"{shlex.quote(sys.executable)} train.py --helpfull | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert (done.stderr, done.stdout[:15]) == ("", "usage: train.py")
    assert done.returncode in (0, 141)  # 0 where the pipe held all of it
