import functools
import json
import os
import signal
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from qlstm_jax.data.rows import DataError
from qlstm_jax.problems import FormalProblem, TextProblem
from qlstm_jax.training import loop, metrics, step
from qlstm_jax.training.config import ConfigError
from qlstm_jax.training.evaluate import evaluate, restore
from qlstm_jax.training.faults import WorkdirError, WriteError
from qlstm_jax.training.lock import locked
from qlstm_jax.training.loop import Diverged, train
from qlstm_jax.training.signals import Interrupted
from tests.training.conftest import assert_same, read_metrics, tiny, write_reviews


def params_of(workdir, **options):
    """The parameters of a run's checkpoint, read as eval.py reads them."""
    _, _, model, _ = restore(workdir, **options)
    return nnx.to_pure_dict(nnx.state(model, nnx.Param))


def steps_in(folder):
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit())


def logged(workdir, split="train"):
    return [r["step"] for r in read_metrics(workdir) if r["split"] == split]


def text_config(tmp_path, **changes):
    path = tmp_path / "reviews.tsv"
    if not path.exists():
        write_reviews(path)
    # Dropout and a shuffled stream: both the key and the position in the data must go on where they stopped.
    return tiny("text", text__path=str(path), model__dropout=0.3, **changes)


@pytest.mark.parametrize("kind", ["formal", "text"])
def test_resumed_run_equals_an_uninterrupted_one(kind, tmp_path):
    def config(steps):
        if kind == "text":
            return text_config(tmp_path, train__steps=steps)
        return tiny(train__steps=steps, train__average_decay=0.5)

    train(config(8), tmp_path / "straight")
    train(config(4), tmp_path / "twice")
    # What a run leaves that was killed after its checkpoint: figures of later steps, and half a line.
    with (tmp_path / "twice" / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 6, "split": "train", "loss": 99.0}) + '\n{"step": 8, "spl')
    result = train(config(8), tmp_path / "twice")
    assert_same(params_of(tmp_path / "twice"), params_of(tmp_path / "straight"))
    assert logged(tmp_path / "twice") == [2, 4, 6, 8]
    assert logged(tmp_path / "twice", "validation") == [4, 8]
    assert all(r["loss"] != 99.0 for r in read_metrics(tmp_path / "twice") if r["split"] == "train")
    assert set(result) >= {"train_loss", "train_accuracy", "accuracy"}
    if kind == "formal":
        again = train(config(8), tmp_path / "twice")
        assert again["accuracy"] == result["accuracy"]
        assert logged(tmp_path / "twice", "validation") == [4, 8]


def stop_at(monkeypatch, number):
    """Sends SIGTERM, as a scheduler does, while step `number` is logged."""
    original = metrics.Progress.log

    def log(self, at, *args):
        if at == number:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, at, *args)

    monkeypatch.setattr(metrics.Progress, "log", log)


def test_sigterm_saves_and_the_run_goes_on(tmp_path, monkeypatch, capsys):
    config = tiny(train__steps=6, train__log_every=1, train__eval_every=6, train__checkpoint_every=6)
    train(config, tmp_path / "straight")
    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        stop_at(patch, 3)
        with pytest.raises(Interrupted, match=r"SIGTERM at step 3: saved") as caught:
            train(config, tmp_path / "stopped")
    assert caught.value.code == 143
    assert signal.getsignal(signal.SIGTERM) == before
    assert steps_in(tmp_path / "stopped" / "checkpoints") == [3]
    capsys.readouterr()
    train(config, tmp_path / "stopped")
    shown = capsys.readouterr().out
    assert "continuing from step 3 of 6" in shown
    assert_same(params_of(tmp_path / "stopped"), params_of(tmp_path / "straight"))
    assert logged(tmp_path / "stopped") == [1, 2, 3, 4, 5, 6]
    line = next(line for line in shown.splitlines() if line.startswith("step 4/6"))
    for part in ("loss", "accuracy", "steps/s", "tokens/s", "ETA 0:0"):
        assert part in line


def assert_finite_checkpoints(workdir):
    for leaf in jax.tree.leaves(params_of(workdir)):
        assert np.isfinite(leaf).all()


def test_loss_that_is_not_finite_ends_the_run(tmp_path, monkeypatch):
    original = TextProblem.stream

    def stream(self, start):
        for number, batch in enumerate(original(self, start), start + 1):
            yield batch._replace(weights=batch.weights * np.float32("nan")) if number == 6 else batch

    monkeypatch.setattr(TextProblem, "stream", stream)
    with pytest.raises(Diverged, match=r"nan.* at step 6; the last good checkpoint is that of step 4"):
        train(text_config(tmp_path, train__steps=12, train__select="best"), tmp_path / "run")
    assert steps_in(tmp_path / "run" / "checkpoints") == [4]
    assert steps_in(tmp_path / "run" / "best") == [4]
    assert_finite_checkpoints(tmp_path / "run")


def test_gradient_that_is_not_finite_is_not_saved(tmp_path, monkeypatch):
    """A finite loss can have a gradient that is not; the parameters are lost in that very step."""
    original = FormalProblem.loss

    def loss(self, model, batch, rngs):
        sums = original(self, model, batch, rngs)
        return sums | {"loss": sums["loss"] + jax.numpy.sqrt(0.0 * sums["loss"])}

    monkeypatch.setattr(FormalProblem, "loss", loss)
    with pytest.raises(Diverged, match="at step 1; no checkpoint was saved yet"):
        train(tiny(train__checkpoint_every=1), tmp_path / "run")
    assert steps_in(tmp_path / "run" / "checkpoints") == []


def test_another_config_in_the_same_workdir(tmp_path):
    config = tiny(train__steps=2)
    train(config, tmp_path)
    changed = tiny(train__steps=2, model__hidden_size=16)
    with pytest.raises(ConfigError, match=r"model.hidden_size: 8 then, 16 now"):
        train(changed, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model"]["hidden_size"] == 8
    # Without its config, any other run could take its checkpoints over.
    (tmp_path / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"config.json is missing, though .*/checkpoints holds step 2 of a run"):
        train(config, tmp_path)


def test_two_runs_in_one_folder(tmp_path):
    with locked(tmp_path):
        holder = f"process {os.getpid()} on .* since 2"
        with pytest.raises(WorkdirError, match=rf"{tmp_path} is in use by another run \({holder}.*another --workdir"):
            train(tiny(), tmp_path)
    with locked(tmp_path):
        pass


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    for workdir in (tmp_path / "file", tmp_path / "file" / "below", Path("/dev/null/run")):
        with pytest.raises(WriteError, match=f"^{workdir} cannot be used as the folder of a run: [A-Z].*$"):
            train(tiny(), workdir)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").touch()
    with pytest.raises(WriteError, match=f"^{tmp_path}/run: no checkpoint can be written there"):
        train(tiny(train__steps=1), tmp_path / "run")


def test_another_learning_rate_from_a_step_on(tmp_path, capsys):
    train(tiny(train__steps=4, train__select="best"), tmp_path)
    capsys.readouterr()
    train(tiny(train__steps=8, train__learning_rate=0.5, train__select="best"), tmp_path)
    shown = capsys.readouterr().out
    assert "note: changed since the last call: train.learning_rate: 0.001 then, 0.5 now" in shown
    assert "continuing from step 4 of 8" in shown
    (line,) = (tmp_path / "changes.jsonl").read_text().splitlines()
    assert "train.learning_rate: 0.001 then, 0.5 now" in json.loads(line)["changed"]
    assert json.loads((tmp_path / "config.json").read_text())["train"]["learning_rate"] == 0.5


def test_a_run_that_could_not_start_can_be_mended(tmp_path):
    """The wrong value must not be remembered as the run's, or the right one would be refused."""
    with pytest.raises(DataError, match=r"nowhere\.tsv does not exist"):
        train(tiny("text", text__path=str(tmp_path / "nowhere.tsv")), tmp_path / "run")
    with pytest.raises(ConfigError, match="batch_size is 12"):
        train(text_config(tmp_path, train__batch_size=12, train__num_devices=8), tmp_path / "run")
    assert set(train(text_config(tmp_path, train__steps=1), tmp_path / "run")) >= {"train_loss"}


def test_best_and_latest_checkpoints_are_kept(tmp_path, monkeypatch):
    figures = iter([0.5, 0.9, 0.7, 0.9, 0.8])
    monkeypatch.setattr(FormalProblem, "validate", lambda self, model, key: {"accuracy": next(figures)})
    changes = {"train__steps": 5, "train__eval_every": 1, "train__checkpoint_every": 1, "train__keep_checkpoints": 3}
    train(tiny(train__select="best", **changes), tmp_path)
    assert steps_in(tmp_path / "checkpoints") == [3, 4, 5]
    assert steps_in(tmp_path / "best") == [2]
    assert restore(tmp_path)[3] == 2
    assert restore(tmp_path, checkpoint="last")[3] == 5


def test_programs_of_a_run_are_traced_once(tmp_path, monkeypatch):
    traces = []

    def counted(function, name):
        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            traces.append((name, kwargs.get("max_length")))
            return function(*args, **kwargs)

        return wrapper

    monkeypatch.setattr(step, "device_step", counted(step.device_step, "step"))
    monkeypatch.setattr(FormalProblem, "_count", counted(FormalProblem._count, "count"))
    train(tiny(train__steps=6, train__eval_every=2), tmp_path)
    # Three validations over four lengths, one program.
    assert sorted(set(traces)) == [("count", 4), ("step", None)]
    assert traces.count(("count", 4)) == 1
    assert traces.count(("step", None)) == 1
    traces.clear()
    report = evaluate(tmp_path, min_length=41, max_length=200, sequences=60)
    assert len(report["accuracy_by_length"]) == 164
    # One for the training lengths; the 160 others, 1.2 million positions, share two.
    assert sorted(traces) == [("count", 4), ("count", 120), ("count", 200)]


def test_two_layers_with_dropout_train_and_evaluate(tmp_path):
    config = tiny(train__steps=2, model__num_layers=2, model__dropout=0.5, train__eval_every=2)
    train(config, tmp_path)
    assert evaluate(tmp_path) == evaluate(tmp_path)  # no dropout in evaluation


def test_bfloat16_trains(tmp_path):
    config = tiny("recall", model__dtype="bfloat16", model__pooling="mean_max", train__steps=2)
    result = train(config, tmp_path)
    assert np.isfinite(result["train_loss"])
    # The parameters, and with them Adam's sums, stay float32.
    assert {a.dtype for a in jax.tree.leaves(params_of(tmp_path))} == {np.dtype("float32")}


def test_run_keys_are_distinct_and_of_the_seed():
    keys = np.asarray(jax.random.key_data(loop.run_keys(3)))
    assert len({tuple(k) for k in keys}) == 3
    assert (keys != np.asarray(jax.random.key_data(loop.run_keys(4)))).any()


def test_patience_ends_a_run_once_and_for_all(tmp_path):
    """Without learning no validation is better than the first: two more, and it is over."""

    def config(patience):
        changes = {
            "train__patience": patience,
            "train__learning_rate": 1e-30,
            "train__steps": 8,
            "train__eval_every": 1,
        }
        return text_config(tmp_path, **changes)

    train(config(2), tmp_path / "run")
    assert logged(tmp_path / "run", "validation") == [1, 2, 3]
    assert steps_in(tmp_path / "run" / "checkpoints")[-1] == 3
    train(config(2), tmp_path / "run")
    assert logged(tmp_path / "run", "validation") == [1, 2, 3]
    train(config(4), tmp_path / "run")
    assert logged(tmp_path / "run", "validation") == [1, 2, 3, 4, 5]
