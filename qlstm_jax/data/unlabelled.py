"""Texts without labels, one by one: the lines of a file, or a column of a table."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from qlstm_jax.data.readers import SUFFIXES, read_rows
from qlstm_jax.data.rows import NOT_TEXT, DataError, Refused, Row, is_empty
from qlstm_jax.data.tables import open_text


class Unlabelled(NamedTuple):
    """A text, and why it cannot be given a label; "" where it can."""

    text: str
    note: str = ""


def read_texts(path: Path, *, text_column: str = "text", on_bad_row: str = "error") -> Iterator[Unlabelled]:
    """Yields the texts of a file in their order. Never more of it is held than a line or a row.

    A file whose suffix is one of a table gives a text a row, of several lines where the table has such. Any other gives
    a text a line: lines end at \\n, \\r\\n and \\r alone, and are UTF-8, with or without a byte-order mark. A blank
    line, or a row without a text, keeps its place with a note.

    Args:
      path: of the file.
      text_column: the column or key of the text, of a table.
      on_bad_row: what to do with a text that cannot be read: "error" raises, "skip" keeps its place with a note.

    Raises:
      DataError: if there is no such file; for a table, as for `read_rows`; for a bad row under "error".
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise DataError(f"{path} is no file (the current folder is {Path.cwd()}); give a file of lines or a table")
    table = path.suffix.lower() in SUFFIXES
    for row in read_rows(path, {"text_column": text_column}, []) if table else _lines(path):
        found = row if isinstance(row, Refused) else _refuse(row)
        text = "" if isinstance(row, Refused) else row.values[0] or ""
        if found is None:
            yield Unlabelled(text, "empty text" if is_empty(text) else "")
        elif on_bad_row == "skip":
            yield Unlabelled(NOT_TEXT.sub("\ufffd", text), f"{found.where}: {found.reason}: {found.message}")
        else:
            keep = "on_bad_row='skip' keeps the place of such rows, with a note and no label"
            raise DataError(f"{found.where}: {found.reason}: {found.message} ({keep})")


def _lines(path: Path) -> Iterator[Row]:
    with open_text(path, newline=None) as file:
        for number, line in enumerate(file, 1):
            yield Row((line.removesuffix("\n"),), f"{path}:{number}")


def _refuse(row: Row) -> Refused | None:
    text = row.values[0] or ""
    if NOT_TEXT.search(text):
        return Refused("invalid UTF-8", row.where, "the text holds bytes that are not UTF-8; save it as UTF-8")
    if "\0" in text and not is_empty(text):
        return Refused("a zero byte", row.where, "is it UTF-16, or no text at all? save it as UTF-8")
    return None
