"""The rows of a csv file as text: encoding, separator, names of columns."""

import csv
import dataclasses
import hashlib
import io
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from qlstm_jax.data.rows import DataError
from qlstm_jax.data.series import numerals, times

HEADERS = ("auto", "yes", "no")
# What separates columns, by the names that an option may give, and in words.
SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "bar": "|", "space": " "}
WORDS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars", " ": "blanks"}
FORMAT = "give a .csv file (or a .tsv) with one row for each time, the earliest first, and a number in each column"
_SAMPLE = 50  # lines that the separator is told by
_SHOWN = 40  # letters of a cell in a message


class Row(NamedTuple):
    """A row that is not blank."""

    line: int  # of the file, from 1
    cells: list[str]


@dataclasses.dataclass(frozen=True)
class Sheet:
    """N rows of W cells.

    Attributes:
        path: the file.
        names: W different names of columns.
        unnamed: the places of columns that the file gives no name.
        rows: N rows, the header not among them.
        separator: of the columns.
        sha256: of the file.
        notes: what is to be known of how it was read, a sentence each.
    """

    path: Path
    names: tuple[str, ...]
    unnamed: frozenset[int]
    rows: list[Row]
    separator: str
    sha256: str
    notes: tuple[str, ...]

    def column(self, place: int) -> list[str]:
        """Returns the N cells of a column."""
        return [row.cells[place] for row in self.rows]

    def place(self, name: str, option: str) -> int:
        """Returns the place of the column `name`, which `option` asks for.

        Raises:
            DataError: if there is none.
        """
        if name not in self.names:
            found = ", ".join(map(repr, self.names))
            raise DataError(f"{self.path}: {option} names {name!r}; the columns found are {found}")
        return self.names.index(name)

    def at(self, row: Row, place: int) -> str:
        """Returns where a cell stands, for a message."""
        return f"{self.path}:{row.line}: column {self.names[place]!r}"


def shown(cell: str) -> str:
    """Formats a cell for a message, in one line."""
    cell = cell.strip()
    return repr(cell if len(cell) <= _SHOWN else cell[: _SHOWN - 3] + "...")


def load(path: str | os.PathLike[str], *, header: str = "auto", separator: str = "") -> Sheet:
    """Reads a csv file in UTF-8; arguments as for `series.read`, which says what is raised."""
    path = Path(path).expanduser()
    if header not in HEADERS:
        raise DataError(f"header is {header!r}; expected one of {', '.join(HEADERS)}")
    mark = SEPARATORS.get(separator, separator)
    if mark and mark not in WORDS:
        raise DataError(f"separator is {separator!r}; expected one of {', '.join(SEPARATORS)}, or '' to find it")
    text, digest = _text(path)
    told = re.match(r"sep=(.)\r?\n", text)  # as spreadsheets write and read it
    if told:
        text, mark = text[told.end(1) :], mark or told[1]
    own = "\t" if path.suffix.lower() == ".tsv" else ","
    mark = mark or _find_separator(text, own)
    rows = _rows(path, text, mark)
    words, width = WORDS.get(mark, repr(mark)), len(rows[0].cells)
    for line, cells in rows:
        if len(cells) != width:
            found = f"{len(cells)} columns, and {width} in the first row, separated by {words}"
            raise DataError(f"{path}:{line}: {found}; {FORMAT}, or name the separator: series.separator")
    named = header == "yes" or (header == "auto" and _begins_with_names(rows))
    names = [(named and cell.strip()) or str(place + 1) for place, cell in enumerate(rows[0].cells)]
    unnamed = frozenset(place for place, cell in enumerate(rows[0].cells) if not (named and cell.strip()))
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{path}:{rows[0].line}: several columns are named {twice[0]!r}; give each its own name")
    notes = (f"columns are separated by {words}",) if mark != own and width > 1 else ()
    return Sheet(path, tuple(names), unnamed, rows[1:] if named else rows, mark, digest, notes)


def _text(path: Path) -> tuple[str, str]:
    """Returns the text of a file, and the SHA-256 of its bytes."""
    if not path.is_file():
        raise DataError(f"{path} is no file (the current folder is {Path.cwd()}); {FORMAT}")
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig"), hashlib.sha256(content).hexdigest()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8") from error


def _options(mark: str) -> dict[str, Any]:
    return {"delimiter": mark, "strict": True, "skipinitialspace": mark == " "}


def _find_separator(text: str, own: str) -> str:
    """Finds the separator: of those that give rows of one length, the one with most numbers, `own` before others."""
    sample = "".join([line for line in io.StringIO(text, newline="") if line.strip()][:_SAMPLE])
    marks = (own, *(mark for mark in WORDS if mark not in (own, " ")))
    shares, widths = {}, dict.fromkeys(marks, 1)
    for mark in marks:
        try:
            rows = list(csv.reader(io.StringIO(sample, newline=""), **_options(mark)))
        except csv.Error:
            continue
        widths[mark] = len(rows[0]) if rows else 1
        # One column, where the header has several by `own`, is a row of another length and no column of "3,4".
        if len({len(cells) for cells in rows}) == 1 and (widths[mark] > 1 or widths[own] == 1):
            cells = [cell for row in rows[1:] or rows for cell in row]
            shares[mark] = sum(numerals.style(cell) is not None for cell in cells) / len(cells)
    if shares and max(shares.values()) > 0:
        return max(shares, key=shares.__getitem__)  # the first of those that are equal
    return own if widths[own] > 1 else max(marks, key=widths.__getitem__)


def _rows(path: Path, text: str, mark: str) -> list[Row]:
    """Returns the rows that are not blank; in a file of one column, a blank line before the end is a row."""
    reader = csv.reader(io.StringIO(text, newline=""), **_options(mark))
    try:
        rows = [Row(reader.line_num, cells or [""]) for cells in reader]
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: {error}; {FORMAT}") from error
    full = [place for place, (_, cells) in enumerate(rows) if len(cells) > 1 or cells[0].strip()]
    if not full:
        raise DataError(f"{path} is empty; {FORMAT}")
    one_column = len(rows[full[0]].cells) == 1
    return rows[full[0] : full[-1] + 1] if one_column else [rows[place] for place in full]


def _begins_with_names(rows: list[Row]) -> bool:
    """Returns whether a column of numbers or times begins with text."""
    below = rows[1:]
    return any(_is_name(cell, (row.cells[place] for row in below)) for place, cell in enumerate(rows[0].cells))


def _is_name(cell: str, below: Iterable[str]) -> bool:
    """Returns whether a cell is text above numbers or times."""
    if numerals.is_missing(cell) or numerals.style(cell) is not None:
        return False
    cells = list(below)
    if any(numerals.style(other) is not None for other in cells):
        return True
    return bool(cells) and bool(times.find(cells[:1])) and not times.find([cell])
