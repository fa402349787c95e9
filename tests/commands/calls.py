"""The programs in this process: starting one anew takes seconds."""

import contextlib
import io
import sys
from typing import NamedTuple

import pytest


class Done(NamedTuple):
    """What a program left: exit code, output and errors as text."""

    code: int
    out: str
    err: str


def call(program, *argv, encoding="utf-8"):
    """Runs a function of `qlstm_jax.commands.programs` with these arguments; both outputs have that encoding."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2))
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", ["program", *map(str, argv)])
        code = program()
    texts = []
    for stream in (out, err):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode(encoding))
    return Done(code, *texts)


def mistake(program, *argv):
    """The one line that a program ends in, after `error: `, and its exit code; nothing else may be said of an error."""
    done = call(program, *argv)
    (line,) = done.err.splitlines()
    assert line.startswith("error: ") and "Traceback" not in done.out
    return line.removeprefix("error: "), done.code
