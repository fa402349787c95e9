"""How programs end: exit codes, one line or a traceback, outputs that are narrow, closed or full."""

import io
import os
import sys
from pathlib import Path

import jax
import pytest

from qlstm_jax.cells import lstm
from qlstm_jax.commands.programs import train
from qlstm_jax.console import outcome
from qlstm_jax.training.loop import Diverged
from qlstm_jax.training.signals import Interrupted
from tests.commands.calls import call


def raising(error):
    def main(_):
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (outcome.ConfigError("a\n  b"), 1, "error: a b"),
        (outcome.DataError("a.csv:3: b"), 1, "error: a.csv:3: b"),
        (outcome.UsageError("a"), 2, "error: a"),
        (Diverged("a"), 3, "error: a"),
        (Interrupted("a"), 130, "stopped: a"),
        (KeyboardInterrupt(), 130, "stopped: interrupted"),
        (FileNotFoundError(2, "No such file or directory", "a.csv"), 1, "error: a.csv: No such file or directory"),
        (OSError(18, "Invalid cross-device link", "a", None, "b"), 1, "error: a and b: Invalid cross-device link"),
        (OSError("no device"), 1, "error: no device"),
        (MemoryError("3 GiB"), 1, "error: out of memory (3 GiB); a smaller batch or model needs less"),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 3 GiB"), 1, "error: out of memory (RESOURCE_EXHAUSTED: 3"),
        (KeyError("a"), 70, "error: KeyError: 'a' (at test_outcome.py:"),
        (ValueError("a"), 70, "error: ValueError: a (at test_outcome.py:"),  # of this file, none of the package's
        (jax.errors.JaxRuntimeError("INTERNAL: a"), 70, "error: JaxRuntimeError: INTERNAL: a"),
    ],
)
def test_each_error_has_its_code_and_line(error, code, line, capsys):
    assert outcome.run(raising(error), []) == code
    said = capsys.readouterr().err
    assert said.startswith(line) and said.count("\n") == 1
    assert ("please report the command and what it shows with --debug" in said) == (code == 70)

    assert outcome.run(raising(error), ["--debug"]) == code
    *trace, last = capsys.readouterr().err.splitlines()
    assert trace[0].startswith("Traceback") and any("in main" in text for text in trace)
    assert f"{last}\n" == said


def test_a_check_of_the_package_is_told_from_a_slip(capsys):
    assert outcome.run(lambda _: lstm.init(jax.random.key(0), -1, 4), []) == 1
    assert "fault" not in capsys.readouterr().err
    # An int() amid the package that fails.
    assert outcome.run(lambda _: outcome.explain(None, 3), []) == 70
    assert "fault of qlstm_jax" in capsys.readouterr().err


def test_settings_are_named_as_this_program_has_them(capsys):
    error = outcome.ConfigError("try --config.train.optimizer=adamw")
    for given, shown in (({}, "--set train"), ({"settings": "--config."}, "--config.train")):
        outcome.run(raising(error), [], **given)
        assert f"try {shown}.optimizer=adamw" in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_any_text_can_be_written(encoding, monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    assert outcome.run(lambda _: print("é 👍 \udcff"), []) == 0
    expected = {"ascii": "\\xe9 \\U0001f44d", "cp1252": "é \\U0001f44d", "utf-8": "é 👍"}[encoding]
    assert written.getvalue().decode(encoding).split("\n")[0].rstrip("\r") == f"{expected} \\udcff"


def test_a_reader_that_left_is_no_error(monkeypatch, capsys):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        assert outcome.run(lambda _: print("a"), []) == 141
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such device here")
def test_a_full_disk_is_told(monkeypatch, capsys):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert outcome.run(lambda _: print("a"), []) == 1
    assert capsys.readouterr().err == "error: No space left on device\n"


def test_closed_outputs(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert outcome.run(raising(KeyError("a")), []) == 70


def test_help():
    done = call(train, "--help")
    assert done.code == 0 and done.out.startswith("usage: qlstm-train") and "--set KEY=VALUE" in done.out
    done = call(train, "--helpfull")
    assert done.code == 0 and "\n  train.steps=1000\n" in done.out and "\n  model.pr_lstm.refinements=1\n" in done.out
