"""Series of numbers from a csv file, each row at its time."""

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from qlstm_jax.data.rows import DataError
from qlstm_jax.data.series import columns as roles
from qlstm_jax.data.series import conventions, gaps, steps
from qlstm_jax.data.series.numerals import Numerals, is_missing
from qlstm_jax.data.series.sheet import FORMAT, Sheet, load, shown
from qlstm_jax.data.series.steps import Step
from qlstm_jax.data.series.times import Clock, Times


class Writing(NamedTuple):
    """How a file writes its numbers and times, by which others are read where they may be read in two ways."""

    decimal: str = ""
    time_format: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """D series of numbers at N times.

    Attributes:
        source: the file.
        names: D names of columns.
        values: (N, D) float64, finite.
        skipped: other columns: name to what it is instead of a series.
        sha256: of the file.
        times: (N,) datetime64[us], each later than the one before; None where they are not known.
        step: from a time to the next, None where there is none.
        clock: how the file writes times.
        decimal: what stands before decimals.
        notes: what is to be known of how the file was read, a sentence each.
    """

    source: str
    names: tuple[str, ...]
    values: Float[np.ndarray, "n d"]
    skipped: Mapping[str, str]
    sha256: str
    times: Times | None = None
    step: Step | None = None
    clock: Clock | None = None
    decimal: str = "."
    notes: tuple[str, ...] = ()

    def take(self, wanted: str, option: str) -> "Table":
        """Returns the table of the columns named in `wanted`, as for `columns`."""
        places = self.columns(wanted, option)
        names, values = tuple(self.names[p] for p in places), self.values[:, places]
        return dataclasses.replace(self, names=names, values=values)

    def columns(self, wanted: str, option: str) -> tuple[int, ...]:
        """Returns the indices of columns named in `wanted`, separated by commas; all for "". Errors name `option`.

        Raises:
            DataError: for a name that is not there, or one given twice.
        """
        return choose(self.source, self.names, self.skipped, wanted, option)

    @property
    def writing(self) -> Writing:
        """How the file writes numbers and times."""
        return Writing(self.decimal, "" if self.clock is None else self.clock.format)

    def following(self, count: int) -> list[str] | None:
        """Returns the `count` times after the last one, as the file writes them; None where they are not known."""
        if self.times is None or self.step is None or self.clock is None:
            return None
        after = self.step.after(self.times[-1], np.arange(1, count + 1))
        return [self.clock.write(time) for time in after]


def read(
    path: str | os.PathLike[str],
    *,
    header: str = "auto",
    columns: str | Sequence[str] = "",
    separator: str = "",
    decimal: str = "",
    thousands: str = "",
    time_column: str = "",
    time_format: str = "",
    on_missing: str = "refuse",
    like: Writing | None = None,
) -> Table:
    """Reads a csv file (a .tsv: separated by tabs) in UTF-8; blank lines are passed over where they cannot be values.

    Args:
        path: the file.
        header: whether the first row holds names: "yes", "no", or "auto", where it does if a column of numbers or times
            begins with text. A column without a name is called by its place, "1" for the first.
        columns: the series, a list or separated by commas; "" for all columns that have a number in any row, but for a
            counter of rows and for times written as whole numbers.
        separator: of columns, "comma", "semicolon", "tab", "bar" or "space"; "" to find it.
        decimal: "." or ","; "" to find it.
        thousands: what stands between thousands, ",", ".", "'", "space" or "none"; "" to find it.
        time_column: of the times; several, separated by commas, are read as one text with blanks between; "none" for
            no times; "" to find it.
        time_format: of `datetime.strptime`, "iso", or "unix" or "unix_ms" for numbers since 1970; "" to find it.
        on_missing: what to do where a value is missing, as for `gaps.complete`.
        like: how numbers and times are written that may be read in two ways.

    Returns:
        A `Table`. Rows of totals are left out, and rows from the newest to the oldest are turned round; notes say so.

    Raises:
        DataError: for a file that cannot be read, rows of different lengths, names given twice, no column of numbers,
            a cell in one that is missing or no finite number, numbers or times that can be read in two ways, or times
            out of order, naming the line and column.
    """
    if on_missing not in gaps.ON_MISSING:
        raise DataError(f"on_missing is {on_missing!r}; expected one of {', '.join(gaps.ON_MISSING)}")
    like = like or Writing()
    sheet = load(path, header=header, separator=separator)
    source, wanted = str(sheet.path), frozenset(_asked(columns))
    timing = roles.find_timing(sheet, time_column, time_format, wanted, like.time_format)
    sheet = roles.without_summaries(sheet, timing)
    dated = timing.places if timing else ()
    plain = [place for place in range(len(sheet.names)) if place not in dated]
    numerals = conventions.find(sheet, plain, decimal, thousands, like.decimal)
    kept, others = roles.roles(sheet, numerals, timing, wanted)
    if not kept:
        found = "; ".join(f"{name!r} {why}" for name, why in others.items())
        raise DataError(f"{source}: no column holds numbers of a series: {found}; {FORMAT}")
    kept = [kept[place] for place in choose(source, [sheet.names[p] for p in kept], others, columns, "series.columns")]
    names = [sheet.names[place] for place in kept]
    lines = np.array([row.line for row in sheet.rows])
    rows = gaps.Rows(_values(sheet, kept, numerals), lines, timing.times(sheet) if timing else None)
    if timing:
        rows = gaps.in_order(source, rows, timing.clock)
    step = None if rows.times is None else steps.find(rows.times)
    rows = gaps.complete(source, rows, names, step, on_missing)
    if not len(rows.values):
        raise DataError(f"{source}: no row has all its values; give series.columns, or another series.on_missing")
    clock = dataclasses.replace(timing.clock, like=timing.cell(sheet.rows[-1])) if timing else None
    notes = (*sheet.notes, *_notes(sheet, rows, timing, step, numerals, kept), *rows.notes)
    return Table(
        source, tuple(names), rows.values, others, sheet.sha256, rows.times, step, clock, numerals.decimal, notes
    )


def _values(sheet: Sheet, kept: list[int], numerals: Numerals) -> Float[np.ndarray, "n d"]:
    """Returns the numbers of the columns, NaN where one is missing."""
    values = np.full((len(sheet.rows), len(kept)), np.nan)
    for number, row in enumerate(sheet.rows):
        for series, place in enumerate(kept):
            cell = row.cells[place]
            found = numerals.number(cell)
            if found is not None:
                values[number, series] = found
            elif not is_missing(cell):
                read = "" if numerals == Numerals() else f" (with {numerals})"
                raise DataError(
                    f"{sheet.at(row, place)} is {shown(cell)}; expected a finite number, as in other rows of this "
                    f"column{read}"
                )
    return values


def _notes(
    sheet: Sheet,
    rows: gaps.Rows,
    timing: roles.Timing | None,
    step: Step | None,
    numerals: Numerals,
    kept: list[int],
) -> Iterator[str]:
    """Yields notes on how times and numbers were read, and which series look like counters."""
    if numerals != Numerals():
        yield f"numbers have {numerals}"
    if timing and rows.times is not None and len(rows.times):
        name = ", ".join(sheet.names[place] for place in timing.places)
        ends = " to ".join(timing.clock.write(rows.times[row]) for row in (0, -1))
        every = f"in steps of {step}" if step else "in no one step, so that the forecast has no times"
        yield f"times of column {name}: {ends}, {every}"
    for place, values in zip(kept, rows.values.T, strict=True):
        steps = np.diff(values)
        if len(steps) > 2 and steps[0] and np.allclose(steps, steps[0], rtol=1e-9, atol=0):
            yield f"column {sheet.names[place]} changes by {steps[0]:g} in every row: a counter rather than a series?"


def choose(
    source: str, names: Sequence[str], skipped: Mapping[str, str], wanted: str | Sequence[str], option: str
) -> tuple[int, ...]:
    """Returns the indices in `names` of those named in `wanted`, as for `Table.columns`."""
    if not wanted:
        return tuple(range(len(names)))
    asked = _asked(wanted)
    found = ", ".join(map(repr, names))
    for name in asked:
        if name in skipped:
            raise DataError(f"{source}: column {name!r} of {option} {skipped[name]}; series are {found}")
        if name not in names or asked.count(name) > 1:
            asks = f"{option} is {wanted!r}" if isinstance(wanted, str) else f"{source} has no column {name!r}"
            raise DataError(f"{asks}; expected different names from the columns of numbers {found}")
    return tuple(names.index(name) for name in asked)


def _asked(wanted: str | Sequence[str]) -> list[str]:
    """Names from a list, or separated by commas."""
    names = [name.strip() for name in wanted.split(",")] if isinstance(wanted, str) else list(wanted)
    return names if wanted else []
