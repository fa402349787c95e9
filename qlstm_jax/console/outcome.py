"""How a program ends: what the user can mend is told in one line, and each kind of end has its own exit code.

| code | end |
|---|---|
| 0 | done |
| 1 | a config, data, a file or the machine does not allow it |
| 2 | the command line is wrong |
| 3 | the loss is no longer finite |
| 70 | a fault of this package |
| 130 | interrupted |
| 143 | ended by SIGTERM, after saving |
| 141 | nobody reads the output any more |

With --debug among the arguments the traceback comes before the line.
"""

import contextlib
import dis
import io
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
from absl import logging

from qlstm_jax.data.rows import DataError
from qlstm_jax.problems.config import ConfigError
from qlstm_jax.training.faults import WriteError
from qlstm_jax.training.loop import Diverged
from qlstm_jax.training.signals import Interrupted

PACKAGE = Path(__file__).parents[1]
FAULT, INTERRUPTED, UNREAD = 70, 130, 141


class UsageError(ConfigError):
    """A command line that cannot be understood."""


CODES: dict[type[BaseException], int] = {
    UsageError: 2,
    ConfigError: 1,
    DataError: 1,
    WriteError: 1,
    Diverged: 3,
    Interrupted: INTERRUPTED,
    KeyboardInterrupt: INTERRUPTED,
}


def run(main: Callable[[list[str]], int | None], argv: Sequence[str] | None = None, *, settings: str = "--set ") -> int:
    """Runs a program and returns its exit code.

    Args:
        main: takes the arguments; its own exit code, or None for 0.
        argv: the arguments without the program's name; those of the process by default.
        settings: how this program's settings begin, in place of "--config." in messages.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    logging.set_verbosity(logging.WARNING)  # orbax writes a page for each checkpoint
    _write_anything()
    try:
        try:
            code = main(arguments) or 0
        except SystemExit as end:  # after --help
            if isinstance(end.code, str):
                raise
            code = end.code or 0
        sys.stdout.flush()  # a full disk or a closed pipe may show here and not before
        return code
    except BrokenPipeError:
        _drop_output()
        return UNREAD
    except (Exception, KeyboardInterrupt) as error:
        line, code = explain(error)
        with contextlib.suppress(OSError):
            if "--debug" in arguments:
                traceback.print_exc()
            # A mistake in the command line names it as it was typed.
            print(line if isinstance(error, UsageError) else line.replace("--config.", settings), file=sys.stderr)
        _drop_output()
        return code


def explain(error: BaseException) -> tuple[str, int]:
    """The line that tells of an error, and the exit code."""
    known = next((kind for kind in CODES if isinstance(error, kind)), None)
    if known is not None:
        stopped = CODES[known] == INTERRUPTED
        line = f"{'stopped' if stopped else 'error'}: {_one_line(error) or 'interrupted'}"
        return line, getattr(error, "code", CODES[known])  # an error may have one of its own
    if isinstance(error, MemoryError) or (
        isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)
    ):
        return f"error: out of memory ({_one_line(error)[:200]}); a smaller batch or model needs less", 1
    if isinstance(error, OSError):
        return f"error: {_of_system(error)}", 1
    if isinstance(error, ValueError | TypeError) and _is_own_check(error):
        return f"error: {_one_line(error)}", 1
    return (
        f"error: {type(error).__name__}: {_one_line(error)[:300]} (at {_place(error)}). This is likely a fault of "
        "qlstm_jax: please report the command and what it shows with --debug",
        FAULT,
    )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _of_system(error: OSError) -> str:
    """ "PATH: No such file or directory"."""
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    reason = error.strerror or _one_line(error) or type(error).__name__
    return f"{' and '.join(names)}: {reason}" if names else reason


def _is_own_check(error: BaseException) -> bool:
    """Returns whether a `raise` of this package made the error: a check, and no slip such as int(None)."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return False
    code = trace.tb_frame.f_code
    return PACKAGE in Path(code.co_filename).parents and dis.opname[code.co_code[trace.tb_lasti]] == "RAISE_VARARGS"


def _place(error: BaseException) -> str:
    """The innermost line of this package that the error went through, "problems/text.py:12"."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename != __file__]
    own = [f for f in frames if PACKAGE in Path(f.filename).parents] or frames
    if not own:
        return "?"
    path = Path(own[-1].filename)
    return f"{path.relative_to(PACKAGE) if PACKAGE in path.parents else path.name}:{own[-1].lineno}"


def _write_anything() -> None:
    """Lets any text be written, whatever the encoding: what an output has no letters for is written as escapes.

    An output that was closed before the program began is None.
    """
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _drop_output() -> None:
    """Sends what cannot be written nowhere, or Python would tell of the closed pipe or full disk again when it ends."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
