"""The rows of .csv and .tsv files."""

import bisect
import csv
import difflib
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TextIO, TypeAlias

from qlstm_jax.data.rows import NOT_TEXT, DataError, Refused, Row

FORMATS = "give a .csv, .tsv, .jsonl or .parquet file, or a folder with one folder of .txt files for each class"
Columns: TypeAlias = Mapping[str, str]  # the option that names a column, text_column, to its name
SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "vertical bars"}


def open_text(path: Path, newline: str | None) -> TextIO:
    """Opens a file as text. Bytes that are no UTF-8 become lone surrogates, which Collector counts as bad rows."""
    return path.open(encoding="utf-8-sig", errors="surrogateescape", newline=newline)


def find_column(path: Path, names: list[str], wanted: str, option: str, *, separator: str = "") -> int:
    """Returns the index of column `wanted` among `names`; `option`, and `separator` in words, are named in errors.

    Raises:
      DataError: if it is not there, or more than once.
    """
    if names.count(wanted) == 1:
        return names.index(wanted)
    if wanted in names:
        raise DataError(f"{path}:1: {names.count(wanted)} columns are named {wanted!r}; give each its own name")
    lower = {name.lower(): name for name in names}
    near = difflib.get_close_matches(wanted.lower(), lower, n=1, cutoff=0.5)
    hint = f"did you mean {option}={lower[near[0]]!r}?" if near else f"name the right one with {option}=..."
    found = ", ".join(repr(name) for name in names) + (f" (separated by {separator})" if separator else "")
    raise DataError(f"{path}:1: no column {wanted!r}; the columns found are {found}; {hint}")


def table_rows(path: Path, columns: Columns, notes: list[str]) -> Iterator[Row | Refused]:
    """Yields the rows of a .csv or .tsv file; `notes` gets what is worth telling of it.

    In .csv, quotes protect commas and line ends; in .tsv nothing is special but tabs and line ends. A file whose header
    has the columns only if it is separated by something else is read so, with quotes as in .csv, and that is noted.
    """
    own = "\t" if path.suffix.lower() == ".tsv" else ","
    limit = csv.field_size_limit(2**31 - 1)  # the default, 131,072 characters, is less than a long document
    try:
        separator = _find_separator(path, own, columns)
        if separator != own:
            notes.append(
                f"{path} is separated by {SEPARATORS[separator]}, not by {SEPARATORS[own]} as {path.suffix} files are, "
                "and was read so"
            )
        with open_text(path, newline="\n" if separator == own == "\t" else "") as file:
            if separator == own == "\t":
                lines: Iterable[tuple[int, list[str]] | Refused] = _tsv_rows(file)
                fix = "put a blank for each tab or line end inside a field (quotes do not protect them in .tsv)"
            else:
                lines = _csv_rows(path, file, separator, notes)
                fix = f"put quotes around a field that holds {SEPARATORS[separator]} or line ends"
            yield from _pick(path, lines, columns, SEPARATORS[separator], fix)
    finally:
        csv.field_size_limit(limit)


def _find_separator(path: Path, own: str, columns: Columns) -> str:
    """Returns what separates the columns.

    It is `own`, unless the header has not the columns wanted. Then it is what gives them, or gives any at all, so that
    the error names them.
    """
    with open_text(path, newline="") as file:
        header = next((line for line in file if line.strip()), "").rstrip("\r\n")
    names = {mark: [name.strip() for name in next(csv.reader([header], delimiter=mark), [])] for mark in SEPARATORS}
    fitting = [mark for mark in (own, *SEPARATORS) if set(columns.values()) <= set(names[mark])]
    if fitting or len(names[own]) > 1:
        return fitting[0] if fitting else own
    return max((own, *SEPARATORS), key=lambda mark: len(names[mark]))


def _pick(
    path: Path, lines: Iterable[tuple[int, list[str]] | Refused], columns: Columns, separator: str, fix: str
) -> Iterator[Row | Refused]:
    """Yields the wanted columns of a table; `lines` gives (line, fields), the header first."""
    header: list[str] = []
    places: list[int] = []
    for line in lines:
        if isinstance(line, Refused):
            yield line
            continue
        number, fields = line
        where = f"{path}:{number}"
        if not header:
            header = [name.strip() for name in fields]
            if any("\0" in name or NOT_TEXT.search(name) for name in header):
                raise DataError(f"{where}: the header is not UTF-8 (is it UTF-16?); save the file as UTF-8")
            places = [find_column(path, header, columns[o], o, separator=separator) for o in columns]
        elif len(fields) != len(header):
            message = f"found {len(fields)} columns and the header has {len(header)}, separated by {separator}; {fix}"
            yield Refused("wrong number of columns", where, message)
        else:
            yield Row(tuple(fields[place] for place in places), where)
    if not header:
        raise DataError(f"{path} holds blank lines only; {FORMATS}")


def _tsv_rows(file: TextIO) -> Iterator[tuple[int, list[str]]]:
    """(line, fields) of each row of a .tsv file."""
    lines = ((number, line.rstrip("\r\n")) for number, line in enumerate(file, 1))
    yield from ((number, line.split("\t")) for number, line in lines if line.strip(" "))


def _csv_rows(path: Path, file: TextIO, separator: str, notes: list[str]) -> Iterator[tuple[int, list[str]] | Refused]:
    """(first line, fields) of each row, and those whose quotes are wrong. Notes rows of several lines at the end."""
    lines: list[str] = []  # of the row that is being read

    def keep() -> Iterator[str]:
        for line in file:
            lines.append(line)
            yield line

    # strict: a malformed quote is reported at its line; the default silently joins or alters fields.
    reader = csv.reader(keep(), delimiter=separator, strict=True)
    first, sizes = 1, {}
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            yield _refuse_quotes(path, first, lines, separator, str(error))
        else:
            if len(lines) > 1:
                sizes[first] = len(lines)
            if len(fields) > 1 or any(map(str.strip, fields)):
                yield first, fields
        first += len(lines)
        lines.clear()
    if sizes:
        longest = max(sizes, key=sizes.__getitem__)
        notes.append(
            f"{len(sizes)} rows are of several lines, held together by quotes; the longest has {sizes[longest]} lines, "
            f"from {path}:{longest}"
        )


def _refuse_quotes(path: Path, first: int, lines: list[str], separator: str, error: str) -> Refused:
    """Refuses a row whose quotes are wrong. It may be many lines, all of which are lost."""
    fix = "close it, or put quotes around the whole field and double those inside it"
    opened, last = first + _wrong_quote(lines, separator), first + len(lines) - 1
    lost = sum(not line.isspace() for line in lines)
    if "end of data" in error:
        message = f"the quote opened here is never closed, so that lines {first} to {last}, the end, cannot be read"
    elif len(lines) > 1:
        message = (
            f"the next quote after the one opened here is amid the text of line {last}, so that lines {first} to "
            f"{last} cannot be told apart"
        )
    else:
        return Refused("malformed quotes", f"{path}:{first}", f"{error}; {fix}")
    return Refused("lines lost to an unbalanced quote", f"{path}:{opened}", f"{message}; {fix}", lost)


def _wrong_quote(lines: list[str], separator: str) -> int:
    """Returns which of the lines of a row, from 0, opens the first quoted field that does not end with a quote."""
    row, mark = "".join(lines), re.escape(separator)
    for field in re.finditer(rf'(?:\A|{mark})"[^"]*+(?:""[^"]*+)*+', row):  # up to its last quote
        if row[field.end() : field.end() + 2] not in ('"', f'"{separator}', '"\r', '"\n'):
            return bisect.bisect_right(list(itertools.accumulate(map(len, lines))), row.index('"', field.start()))
    return 0
