"""Finds what each column of a sheet is: the times of its rows, a series, or neither, such as a counter of rows."""

import dataclasses
import re
from collections.abc import Sequence

import numpy as np

from qlstm_jax.data.rows import DataError
from qlstm_jax.data.series import steps, times
from qlstm_jax.data.series.numerals import Numerals, is_missing, style
from qlstm_jax.data.series.sheet import Row, Sheet, shown
from qlstm_jax.data.series.times import Clock, Times

_PANDAS = re.compile(r"unnamed: ?\d+(_level_\d+)?(\.\d+)*", re.IGNORECASE)  # its name for a column without one
_COUNTER = re.compile(r"index|id|idx|row|row_?(id|number|names?)|no\.?|nr\.?|#", re.IGNORECASE)
_TIME = re.compile(r"time|date|stamp|unix|epoch|year|month|jahr|monat|datum|zeit|^(ts|ds|t|yr)$", re.IGNORECASE)
_SUMMARY = re.compile(
    r"((grand|sub)[- ]?)?(total|sum|summe|gesamt|insgesamt|mean|average|avg|mittelwert|durchschnitt|median|minimum|"
    r"maximum|min|max|std|count|somme|moyenne|suma|promedio|totale|media)s?\b.*",
    re.IGNORECASE | re.DOTALL,
)


@dataclasses.dataclass(frozen=True)
class Timing:
    """Where the times of a sheet stand: one column, or several as date and hour, and how they are written."""

    places: tuple[int, ...]
    clock: Clock

    def cell(self, row: Row) -> str:
        """Returns the time of a row as text."""
        return " ".join(row.cells[place].strip() for place in self.places)

    def times(self, sheet: Sheet) -> Times:
        """(N,) times of the rows.

        Raises:
            DataError: naming a cell that is none.
        """
        cells = list(map(self.cell, sheet.rows))
        found = self.clock.parse_all(cells)
        if found is not None:
            return found
        row = next(row for row, cell in zip(sheet.rows, cells, strict=True) if self.clock.parse(cell) is None)
        raise DataError(
            f"{sheet.at(row, self.places[0])} is {shown(self.cell(row))}; expected a time, as in other rows "
            f"({self.clock.format}); series.time_format says how times are written, series.time_column where"
        )


def find_timing(sheet: Sheet, column: str, format_: str, wanted: frozenset[str], doubtful: str = "") -> Timing | None:
    """Finds where the times stand; None if there are none. Arguments are as for `series.read`.

    `wanted` are the names of columns that are numbers, `doubtful` the format of times that may be read in several.

    Raises:
        DataError: for a column that is not there or holds no times, or where days and months cannot be told apart.
    """
    if column == "none":
        return None
    if column:
        places = tuple(sheet.place(name.strip(), "series.time_column") for name in column.split(","))
        cells = _cells(sheet, places)
        known = times.find(cells) or times.integer_formats(cells) if cells else []
        clocks = [Clock(format_, cells[0] if cells else "")] if format_ else known
        if not clocks:
            raise DataError(
                f"{sheet.path}: column {column!r} of series.time_column holds {shown(cells[0] if cells else '')}, "
                "which is no time as they are known; expected series.time_format, as %d.%m.%Y of Python's strptime, or "
                "unix or unix_ms"
            )
        return Timing(places, _choose(sheet, clocks, cells, column, doubtful))
    for place, name in enumerate(sheet.names):
        cells = _cells(sheet, (place,))
        if name in wanted or not cells:
            continue
        if format_:
            clocks = [clock for clock in [Clock(format_, cells[0])] if clock.parse(cells[0]) is not None]
        elif style(cells[0]) is None or not cells[0].strip().isdecimal():
            clocks = times.find(cells)
        else:
            clocks = _integer_times(sheet, place, cells)
        if clocks:
            return Timing((place,), _choose(sheet, clocks, cells, name, doubtful))
    if format_:
        raise DataError(f"{sheet.path}: no column begins with a time of series.time_format {format_!r}")
    return None


def without_summaries(sheet: Sheet, timing: Timing | None) -> Sheet:
    """Returns the sheet without rows of totals, means and the like, which say so in place of a time, or at its end."""
    found = _untimed_summaries(sheet, timing) if timing else _last_summaries(sheet)
    if not found:
        return sheet
    first = sheet.rows[min(found)]
    word = next(cell for cell in first.cells if _SUMMARY.fullmatch(cell.strip()))
    rows = [row for place, row in enumerate(sheet.rows) if place not in found]
    note = f"left out as totals or the like: rows {len(found)}, the first in line {first.line}, {shown(word)}"
    return dataclasses.replace(sheet, rows=rows, notes=(*sheet.notes, note))


def roles(
    sheet: Sheet, numerals: Numerals, timing: Timing | None, wanted: frozenset[str]
) -> tuple[list[int], dict[str, str]]:
    """Returns the places of the series, and of other columns the name with what they are instead."""
    series, others = [], {}
    for place, name in enumerate(sheet.names):
        cells = [cell for cell in sheet.column(place) if not is_missing(cell)]
        if timing and place in timing.places:
            others[name] = "holds the times"
        elif all(numerals.number(cell) is None for cell in cells):
            others[name] = f"holds no numbers ({shown(cells[0])})" if cells else "holds no numbers"
        elif name not in wanted and _counts(sheet, place, cells):
            others[name] = "numbers the rows"
        elif name not in wanted and _dates(sheet, place, cells):
            others[name] = f"holds times ({shown(cells[0])})"
        else:
            series.append(place)
    return series, others


def _cells(sheet: Sheet, places: tuple[int, ...]) -> list[str]:
    """Returns the cells of the times, but for those that are missing or say that the row is a summary."""
    cells = [" ".join(row.cells[place].strip() for place in places) for row in sheet.rows]
    return [cell for cell in cells if not is_missing(cell) and not _SUMMARY.fullmatch(cell)]


def _choose(sheet: Sheet, clocks: Sequence[Clock], cells: list[str], name: str, doubtful: str) -> Clock:
    """Returns the clock by which times follow each other, and in the same steps, if several read them."""
    if len(clocks) == 1:
        return clocks[0]
    read = {clock: clock.parse_all(cells) for clock in clocks}
    rising = {clock: found for clock, found in read.items() if found is not None and _monotone(found)}
    if len(rising) < 2:
        return next(iter(rising), clocks[0])
    regular = [clock for clock in rising if clock.format == doubtful]
    if regular:
        return regular[0]
    for clock, found in rising.items():
        ordered = np.sort(found)
        step = steps.find(ordered)
        if step is not None and np.all(np.diff(step.positions(ordered)) == 1):
            regular.append(clock)
    if len(regular) != 1:
        choices = " or ".join(clock.format for clock in rising)
        raise DataError(
            f"{sheet.path}: column {name!r} begins with {shown(cells[0])}, and days and months cannot be told apart; "
            f"expected series.time_format, here {choices}"
        )
    return regular[0]


def _monotone(found: Times) -> bool:
    differences = np.diff(found).astype(np.int64)
    return bool(np.all(differences > 0) or np.all(differences < 0))


def _integer_times(sheet: Sheet, place: int, cells: list[str]) -> list[Clock]:
    """Returns the clock of whole numbers that are times: they follow each other, and a name or their form says so.

    Eight digits are a date whatever the column is called; years and seconds are also counts, and need a name or, for
    seconds, the first place.
    """
    name = sheet.names[place]
    named, first = bool(_TIME.search(name)), place == 0
    for clock in times.integer_formats(cells):
        found = clock.parse_all(cells)
        if found is None or not _monotone(found) or len(found) < 2:
            continue
        count = clock.format in ("%Y", "%Y%m")
        told = named or (first and (place in sheet.unnamed or not count)) or clock.format.startswith("%Y%m%d")
        if told:
            return [clock]
    return []


def _dates(sheet: Sheet, place: int, cells: list[str]) -> bool:
    """Returns whether a column of numbers dates its rows, if only in part, as a year beside a month."""
    if _integer_times(sheet, place, cells):
        return True
    return bool(re.search("year|jahr", sheet.names[place], re.IGNORECASE) and times.integer_formats(cells))


def _counts(sheet: Sheet, place: int, cells: list[str]) -> bool:
    """Returns whether a column numbers the rows: it has no name and stands first, or has a name that says so."""
    if len(cells) < len(sheet.rows) or len(sheet.names) < 2 or not all(cell.strip().isdecimal() for cell in cells):
        return False
    numbers = [int(cell) for cell in cells]
    changes = set(np.sign(np.diff(numbers)).tolist())
    in_ones = len(numbers) > 1 and {*np.diff(numbers).tolist()} in ({1}, {-1})
    headed = len(sheet.unnamed) < len(sheet.names)
    name = sheet.names[place]
    if _PANDAS.fullmatch(name) or (headed and place == 0 and place in sheet.unnamed):
        return len(changes) == 1 and changes != {0}  # rows may have been left out of what pandas wrote
    if headed:
        return bool(_COUNTER.fullmatch(name)) and in_ones
    return place == 0 and in_ones and len(numbers) > 2 and min(numbers) in (0, 1)


def _untimed_summaries(sheet: Sheet, timing: Timing) -> set[int]:
    return {
        place
        for place, row in enumerate(sheet.rows)
        if timing.clock.parse(timing.cell(row)) is None and any(_SUMMARY.fullmatch(cell.strip()) for cell in row.cells)
    }


def _last_summaries(sheet: Sheet) -> set[int]:
    """Returns the rows at the end whose first text is such a word, which stands nowhere else in its column."""
    found: set[int] = set()
    for place in reversed(range(len(sheet.rows))):
        row = sheet.rows[place]
        texts = [i for i, cell in enumerate(row.cells) if not is_missing(cell) and style(cell) is None]
        if not texts or not _SUMMARY.fullmatch(row.cells[texts[0]].strip()):
            break
        found.add(place)
    others = {row.cells[i].strip() for p, row in enumerate(sheet.rows) if p not in found for i in range(len(row.cells))}
    words = {cell.strip() for p in found for cell in sheet.rows[p].cells if _SUMMARY.fullmatch(cell.strip())}
    return set() if words & others or len(found) == len(sheet.rows) else found
