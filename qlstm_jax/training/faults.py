"""Errors of a run's folder, each in one line that names the path and the remedy."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qlstm_jax.problems.config import ConfigError


class WorkdirError(ConfigError):
    """A run's folder that cannot be used as it is: in use, damaged, or another run's."""


class InUse(WorkdirError):
    """A folder that another run holds."""


class WriteError(OSError):
    """A run's folder that cannot be written: read-only, or its disk is full."""


def reason(error: BaseException, limit: int = 200) -> str:
    """Shortens an error of another library to one line: the system's own words, or its kind and first words."""
    system = re.search(r"\[os_error_code='(\d+)'\]", str(error))  # as TensorStore quotes it
    if system:
        return os.strerror(int(system[1]))
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    text = f"{type(error).__name__}: {lines[0]}" if lines[0] else type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Names the place where the system cannot write.

    Raises:
        WriteError: for an OSError.
    """
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        raise WriteError(f"{error.filename or place} cannot be written: {error.strerror or error}") from error
