"""How times are written: the formats that are known, and those that fit a column."""

import dataclasses
import datetime as dt
import itertools
import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Shaped

_DATES = (
    "%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%d.%m.%Y", "%d.%m.%y", "%m/%d/%Y", "%d/%m/%Y", "%m/%d/%y", "%d/%m/%y",
    "%d-%m-%Y", "%m-%d-%Y", "%d %b %Y", "%d-%b-%Y", "%d-%b-%y", "%b %d, %Y", "%d %B %Y", "%B %d, %Y",
)  # fmt: skip
_CLOCKS = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p", "T%H:%M", "T%H:%M:%S")
FORMATS = ("iso", *map("".join, itertools.product(_DATES, _CLOCKS)), "%Y-%m", "%m/%Y", "%b %Y", "%b-%Y", "%B %Y")
# Whole numbers that are times, by their digits. Some are counts as well: see `integer_formats`.
DIGITS = {
    14: ("%Y%m%d%H%M%S",),
    13: ("unix_ms",),
    12: ("%Y%m%d%H%M",),
    10: ("%Y%m%d%H", "unix"),
    8: ("%Y%m%d",),
    6: ("%Y%m",),
    4: ("%Y",),
}
_MOST = 0.9  # of the cells of a column of times are times
_UNITS = {"unix": 1_000_000, "unix_ms": 1000}  # microseconds
_YEARS = range(1700, 2200)  # that whole numbers are taken for
_ISO = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d\S*)?", re.ASCII)
_EPOCH = dt.datetime(1970, 1, 1)
Times = Shaped[np.ndarray, " n"]  # datetime64[us], of UTC where the file has offsets


@dataclasses.dataclass(frozen=True)
class Clock:
    """One way to write times.

    Attributes:
        format: as for `datetime.strptime`; "iso", of ISO 8601 with any precision and offset; "unix" or "unix_ms".
        like: a cell, which `write` imitates where the format leaves a choice.
    """

    format: str
    like: str = ""

    def parse(self, cell: str) -> dt.datetime | None:
        """Returns the time of a cell, of UTC where it has an offset; None where it is none of this format."""
        time = self._read(cell.strip())
        return time if time is None or time.tzinfo is None else time.astimezone(dt.UTC).replace(tzinfo=None)

    def _read(self, cell: str) -> dt.datetime | None:
        """Returns the time of a cell, with its offset if it has one."""
        try:
            if self.format in _UNITS:
                return _EPOCH + dt.timedelta(microseconds=round(float(cell) * _UNITS[self.format]))
            if self.format == "iso":
                return dt.datetime.fromisoformat(cell) if _ISO.fullmatch(cell) else None
            return dt.datetime.strptime(cell, self.format)
        except (ValueError, OverflowError, re.error):  # the last of a format that names one part twice
            return None

    def parse_all(self, cells: Sequence[str]) -> Times | None:
        """(N,) times, None where a cell is none."""
        found = []
        for cell in cells:
            time = self.parse(cell)
            if time is None:
                return None
            found.append(time)
        return np.array(found, "datetime64[us]")

    def write(self, time: np.datetime64) -> str:
        """Formats a time as the file does."""
        moment: dt.datetime = time.astype("datetime64[us]").item()
        if self.format in _UNITS:
            return str((moment - _EPOCH) // dt.timedelta(microseconds=_UNITS[self.format]))
        like = self.like.strip()
        shown = self._read(like)
        if shown is not None and shown.tzinfo is not None:
            moment = moment.replace(tzinfo=dt.UTC).astimezone(shown.tzinfo)
        if self.format != "iso":
            return moment.strftime(self.format)
        if len(like) <= len("2024-01-31"):
            return moment.date().isoformat() if moment.time() == dt.time() else moment.isoformat(sep=" ")
        precision = "minutes" if re.match(r".{11}\d\d:\d\d(?!:)", like) and not moment.second else "auto"
        written = moment.isoformat(sep=like[10], timespec=precision)
        return written.removesuffix("+00:00") + "Z" if like.endswith("Z") else written


def find(cells: Sequence[str]) -> list[Clock]:
    """Returns the clocks that read all `cells`, at least one; there may be several, as 01/02/2024 is of two days.

    Where none does, but one reads nine of ten: that one. A column of times with a mistake is no column of text.
    """
    like = max(cells, key=lambda cell: len(cell.strip()))
    clocks = [Clock(name, like) for name in FORMATS if Clock(name).parse(cells[0]) is not None]
    if any(clock.format == "iso" for clock in clocks):
        clocks = clocks[:1]
    shares = {clock: sum(clock.parse(cell) is not None for cell in cells) / len(cells) for clock in clocks}
    whole = [clock for clock, share in shares.items() if share == 1]
    best = max(shares, key=shares.__getitem__, default=None)
    return whole or ([best] if best is not None and shares[best] >= _MOST else [])


def integer_formats(cells: Sequence[str]) -> list[Clock]:
    """Returns the clocks that read all `cells` where these are whole numbers of the same length, in years near ours."""
    if not all(cell.strip().isdecimal() for cell in cells):
        return []
    lengths = {len(cell.strip()) for cell in cells}
    if len(lengths) != 1:
        return []
    clocks = [Clock(name) for name in DIGITS.get(lengths.pop(), ())]
    return [clock for clock in clocks if all((t := clock.parse(cell)) and t.year in _YEARS for cell in cells)]
