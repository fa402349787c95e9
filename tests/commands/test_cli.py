"""The command lines in processes of their own; each takes seconds, so each checks many things."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from qlstm_jax.training.loop import train
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


def test_train_then_evaluate(tmp_path):
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

    done = run("eval.py", "--workdir=run", "--max_length=6", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "run" / "eval" / "report.json").read_text())
    assert report["score_lengths"] == [4, 6, 1]
    assert f'"score": {report["score"]}' in done.stdout
    assert "accuracy_by_length.png" in done.stdout


@pytest.mark.parametrize(
    ("argument", "code", "part"),
    [
        ("--config.train.stepz=3", 2, "steps"),
        ("--config.train.steps=many", 2, "many"),
        ("--config=parity_pr_lstn", 1, "--config=parity_pr_lstn does not exist; did you mean parity_pr_lstm?"),
        ("--config.train.mapping=pmpa", 1, "train.mapping is 'pmpa'; did you mean 'pmap'?"),
    ],
)
def test_mistakes_end_in_one_line(argument, code, part, tmp_path):
    done = run("train.py", argument, "--workdir=run", folder=tmp_path)
    assert done.returncode == code, done.stderr
    message = done.stderr.strip().splitlines()
    assert len(message) == 1
    assert message[0].startswith("error: ")
    assert part in message[0]
    assert not (tmp_path / "run").exists()


def test_predict(tmp_path):
    path = write_reviews(tmp_path / "reviews.tsv")
    train(tiny("text", text__path=str(path), train__steps=1), tmp_path / "run")
    (tmp_path / "lines.txt").write_text("dull\n\nfine\u2028☃\n", encoding="utf-8")
    done = run("eval.py", "--workdir=run", "--predict=a lovely film", "--predict_file=lines.txt", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in done.stdout.rstrip("\n").split("\n")]
    assert [r["text"] for r in records] == ["a lovely film", "dull", "", "fine\u2028☃"]
    assert {r["label"] for r in records[:2] + records[3:]} <= {"good", "bad"}
    assert records[2] == {"text": "", "label": None, "probabilities": None, "note": "empty text"}


def test_evaluating_what_is_not_there(tmp_path):
    done = run("eval.py", "--workdir=nowhere", folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: nowhere/config.json does not exist; expected the folder of a run")
    assert len(done.stderr.strip().splitlines()) == 1
