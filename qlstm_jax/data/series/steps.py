"""The step from each time of a series to the next: found, counted in, and gone on with."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int

from qlstm_jax.data.series.times import Times

_DAY = 86_400_000_000  # microseconds
_NAMES = {"second": 1_000_000, "minute": 60_000_000, "hour": 3_600_000_000, "day": _DAY}
_WEEK = 7


@dataclasses.dataclass(frozen=True)
class Step:
    """The same step from each time to the next.

    Attributes:
        unit: "month", "business day" (Monday to Friday), or "microsecond".
        size: so many units.
        month_end: whether each time is the last day of its month.
    """

    unit: str
    size: int
    month_end: bool = False

    def positions(self, times: Times) -> Float[np.ndarray, " n"]:
        """Returns how many steps each time is after the first one; no whole number where it is off the grid."""
        if self.unit == "month":
            counts = _months(times) - _months(times[:1])
        elif self.unit == "business day":
            days = times.astype("datetime64[D]")
            counts = np.busday_count(days[0], days)
        else:
            counts = (times - times[0]).astype(np.int64)
        positions: Float[np.ndarray, " n"] = counts / self.size
        return positions

    def after(self, time: np.datetime64, counts: Int[np.ndarray, " k"]) -> Times:
        """Returns the times `counts` steps after `time`."""
        if self.unit == "microsecond":
            fixed: Times = time + (counts * self.size).astype("timedelta64[us]")
            return fixed
        day = time.astype("datetime64[D]")
        if self.unit == "business day":
            days = np.busday_offset(day, counts * self.size)
        else:
            months = day.astype("datetime64[M]") + counts * self.size
            within = day - day.astype("datetime64[M]").astype("datetime64[D]")
            last = (months + 1).astype("datetime64[D]") - np.timedelta64(1, "D")
            days = last if self.month_end else np.minimum(months.astype("datetime64[D]") + within, last)
        after: Times = days.astype("datetime64[us]") + (time - day.astype("datetime64[us]"))
        return after

    def __str__(self) -> str:
        unit, size = self.unit, self.size
        if unit == "month" and size % 12 == 0:
            unit, size = "year", size // 12
        elif unit == "microsecond":
            unit, size = next(((n, size // us) for n, us in reversed(_NAMES.items()) if size % us == 0), (unit, size))
        return f"{size} {unit}{'' if size == 1 else 's'}"


def find(times: Times) -> Step | None:
    """Returns the most frequent step of ascending times (N,) to the next; None if there is none."""
    if len(times) < 3:
        return None
    days = times.astype("datetime64[D]")
    of_day = times - days.astype("datetime64[us]")
    one_clock = bool(np.all(of_day == of_day[0]))
    months = np.diff(_months(times))
    in_month = (days - days.astype("datetime64[M]").astype("datetime64[D]")).astype(int)
    ends = bool(np.all((days + np.timedelta64(1, "D")).astype("datetime64[M]") > days.astype("datetime64[M]")))
    if one_clock and months.min() >= 1 and (ends or np.all(in_month == in_month[0])):
        size = _mode(months)
        return None if size is None else Step("month", size, ends)
    size = _mode(np.diff(times).astype(np.int64))
    if size is None:
        return None
    weekdays = (days.astype(int) + 3) % _WEEK  # 1970-01-01 was a Thursday; 0 is Monday
    weekends = (np.diff(days.astype(int)) == 3) & (weekdays[:-1] == 4)
    if size == _DAY and one_clock and weekends.any() and weekdays.max() < 5:
        return Step("business day", 1)
    return Step("microsecond", size)


def _months(times: Times) -> Int[np.ndarray, " n"]:
    return times.astype("datetime64[M]").astype(np.int64)


def _mode(differences: Int[np.ndarray, " n"]) -> int | None:
    """Returns the most frequent difference, the smallest of several; None where fewer than half are like it."""
    values, counts = np.unique(differences, return_counts=True)
    place = int(np.argmax(counts))
    return int(values[place]) if 2 * counts[place] >= len(differences) else None
