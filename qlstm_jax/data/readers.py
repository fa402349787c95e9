"""The rows of a table in a file, whatever its format; the suffix tells it."""

from collections.abc import Iterator
from pathlib import Path

from qlstm_jax.data.arrow import arrow_rows
from qlstm_jax.data.json_lines import json_rows
from qlstm_jax.data.rows import DataError, Refused, Row
from qlstm_jax.data.tables import FORMATS, Columns, table_rows

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet", ".arrow")


def read_rows(path: Path, columns: Columns, notes: list[str]) -> Iterator[Row | Refused]:
    """Yields the rows of a file, one by one.

    Args:
      path: of a file of one of `SUFFIXES`.
      columns: option → name of each column that is wanted; an error names the option. The one of "text_column" holds
        strings, the others may hold numbers.
      notes: gets what is worth telling of the file, the last of it when the last row has been read.

    Raises:
      DataError: for an unknown suffix, an empty file, a column that is missing or named twice.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(f"{path} has the suffix {path.suffix!r}, from which its format cannot be told; {FORMATS}")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty; {FORMATS}")
    if len(set(columns.values())) < len(columns):
        (name, *_), options = columns.values(), " and ".join(columns)
        raise DataError(f"{options} are both {name!r}; name two different columns")
    if suffix == ".jsonl":
        return json_rows(path, columns)
    if suffix in (".parquet", ".arrow"):
        return arrow_rows(path, columns)
    return table_rows(path, columns, notes)
