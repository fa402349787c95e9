"""The rows of .jsonl files: one JSON object a line."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qlstm_jax.data.rows import Refused, Row
from qlstm_jax.data.tables import Columns, find_column, open_text


def json_rows(path: Path, columns: Columns) -> Iterator[Row | Refused]:
    """Yields the rows of a .jsonl file; a value that is null, or NaN, by which tables say so, is missing.

    The file is read twice, so that it is never held whole: a key that no row has is a wrong name, one that some rows
    lack is missing there.
    """
    keys: dict[str, None] = {}
    for record in _records(path):
        if not isinstance(record, Refused):
            keys.update(dict.fromkeys(record[1]))
    if keys:
        for option, name in columns.items():
            find_column(path, list(keys), name, option)
    for record in _records(path):
        yield record if isinstance(record, Refused) else _pick(*record, columns)


def _records(path: Path) -> Iterator[tuple[str, dict[str, Any]] | Refused]:
    """("file:line", object) of each line that is not blank, and the lines that are no object."""
    with open_text(path, newline=None) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:  # a number of too many digits is a plain ValueError
                at = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
                yield Refused("invalid JSON", where, f"{at}; write one object a line")
                continue
            if isinstance(record, dict):
                yield where, record
            else:
                message = f"found {line.strip()[:40]!r}; write one object {{...}} a line"
                yield Refused("invalid JSON", where, message)


def _pick(where: str, record: dict[str, Any], columns: Columns) -> Row | Refused:
    """Returns the wanted keys of an object. A text is a string, any other value may be a number too."""
    values = {option: _present(record.get(name)) for option, name in columns.items()}
    if all(isinstance(v, str | None if o == "text_column" else str | int | float | None) for o, v in values.items()):
        return Row(tuple(None if value is None else str(value) for value in values.values()), where)
    found = " and ".join(f"the {o.removesuffix('_column')} is a {type(v).__name__}" for o, v in values.items())
    return Refused("wrong type", where, f"{found}; write a string{' each' if len(values) > 1 else ''}")


def _present(value: Any) -> Any:
    """Returns the JSON value, or None where it is missing: null, or the NaN by which tables say so."""
    return None if isinstance(value, float) and math.isnan(value) else value
