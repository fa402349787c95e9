"""Reads the JSON files that a problem keeps in its run's folder, and reports a damaged one in one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qlstm_jax.data.rows import DataError


def read(path: Path, fits: Callable[[Any], object], expected: str) -> Any:
    """Returns the content of a file that a run keeps.

    Args:
        path: of the file.
        fits: whether a content is right; a KeyError or TypeError is a no.
        expected: what the content is, for the message.

    Raises:
        DataError: if the file is missing or damaged.
    """
    remedy = "bring it back, or train anew in another --workdir"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing; {remedy}") from error
    except ValueError as error:  # no JSON, or no UTF-8
        raise DataError(f"{path} is damaged ({error}); {remedy}") from error
    try:
        right = bool(fits(content))
    except (KeyError, TypeError, AttributeError):
        right = False
    if not right:
        raise DataError(f"{path} is damaged (it holds no {expected}); {remedy}")
    return content


def label_names(path: Path) -> tuple[str, ...]:
    """Returns the names of the classes in the order of the model's outputs; errors as for `read`."""
    names = read(
        path,
        lambda c: isinstance(c, list) and c and all(isinstance(n, str) for n in c) and len(set(c)) == len(c),
        "list of different names",
    )
    return tuple(names)


def record(path: Path, *keys: str) -> Any:
    """Returns what tells a run's data from other data, a dictionary with `keys`; errors as for `read`."""
    return read(path, lambda c: isinstance(c, dict) and all(key in c for key in keys), f"record of {', '.join(keys)}")
