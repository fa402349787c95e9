"""The one way in which a file writes its numbers, told by those numbers that leave no doubt."""

from collections.abc import Iterable, Iterator

from qlstm_jax.data.rows import DataError
from qlstm_jax.data.series.numerals import Numerals, Style, is_missing, style
from qlstm_jax.data.series.sheet import Sheet, shown

DECIMALS = ("", ".", ",")
THOUSANDS = {"none": "", ",": ",", ".": ".", "'": "'", "space": " "}  # of the option


def find(sheet: Sheet, places: Iterable[int], decimal: str, thousands: str, doubtful: str) -> Numerals:
    """Returns the numerals of a sheet; `decimal` and `thousands` where they are not "", as for `series.read`.

    "1,50" has a decimal comma, "1.234.567" points between thousands, and "1,234" may be either: then other numbers
    decide. Where none does, `doubtful` stands before decimals; where that is "", "1.234" has a decimal point, and in a
    file separated by commas "1,234" is 1234.

    Raises:
        DataError: where numbers of the file contradict each other, or leave it open.
    """
    if decimal not in DECIMALS:
        raise DataError(f"decimal is {decimal!r}; expected '.', ',', or '' to find it")
    if thousands and thousands not in THOUSANDS:
        raise DataError(f"thousands is {thousands!r}; expected one of {', '.join(THOUSANDS)}, or '' to find it")
    seen: dict[Style, str] = {}  # and where it was seen first
    for place in places:
        for found, row in _styles(sheet.column(place)).items():
            cell = sheet.rows[row]
            seen.setdefault(found, f"{sheet.at(cell, place)} is {shown(cell.cells[place])}")
    decimal = decimal or _decimal(sheet, seen, doubtful)
    if thousands:
        return Numerals(decimal, THOUSANDS[thousands])
    marks = {mark: where for found, where in seen.items() for mark in (found.thousands, found.doubtful) if mark}
    marks.pop(decimal, None)
    if len(marks) > 1:
        _contradict(*list(marks.values())[:2])
    return Numerals(decimal, next(iter(marks), ""))


def _styles(cells: list[str]) -> dict[Style, int]:
    """Returns the different styles of a column of numbers, each with its first row; none of a column of text."""
    try:  # the common case, and fast: all are plain numbers, so that their points alone say something
        list(map(float, cells))
        candidates: Iterator[int] = (row for row, cell in enumerate(cells) if "." in cell)
    except ValueError:
        candidates = iter(range(len(cells)))
        if sum(style(cell) is not None for cell in cells) * 2 < sum(not is_missing(cell) for cell in cells):
            return {}
    styles: dict[Style, int] = {}
    for row in candidates:
        found = style(cells[row])
        if found is not None:
            styles.setdefault(found, row)
    return styles


def _decimal(sheet: Sheet, seen: dict[Style, str], otherwise: str) -> str:
    """ "." or ","."""
    sure = {found.decimal: where for found, where in seen.items() if found.decimal}
    if len(sure) > 1:
        _contradict(*sure.values())
    if sure:
        return next(iter(sure))
    grouped = {found.thousands for found in seen} & {".", ","}
    if len(grouped) == 1:
        return "," if "." in grouped else "."
    doubtful = {found.doubtful: where for found, where in seen.items() if found.doubtful}
    if doubtful and otherwise:
        return otherwise
    if len(doubtful) > 1:
        _contradict(*doubtful.values())
    # A file separated by semicolons is mostly one of decimal commas, and one separated by commas is not.
    if ("," in doubtful and sheet.separator != ",") or ("." in doubtful and sheet.separator == ";"):
        (where,) = doubtful.values()
        raise DataError(
            f"{where}, which may be a number of thousands or have three decimals; say what it has before decimals "
            "(series.decimal='.' or ',') and between thousands (series.thousands)"
        )
    return "."


def _contradict(one: str, other: str) -> None:
    raise DataError(
        f"{one}, and {other.partition(': ')[2] or other}: not written in one way; say what stands before decimals "
        "(series.decimal) and between thousands (series.thousands), or mend the file"
    )
