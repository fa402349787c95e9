"""Rows brought into the order of time, and what is missing among them refused, dropped or filled in."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from qlstm_jax.data.rows import DataError
from qlstm_jax.data.series.steps import Step
from qlstm_jax.data.series.times import Clock, Times

ON_MISSING = ("refuse", "drop", "interpolate", "hold")


@dataclasses.dataclass(frozen=True)
class Rows:
    """N rows of D series, and what is to be known of them.

    Attributes:
        values: (N, D), NaN where one is missing.
        lines: (N,) of the file; those of rows that were put in are of the row before.
        times: (N,), or None.
        notes: a sentence each.
    """

    values: Float[np.ndarray, "n d"]
    lines: np.ndarray
    times: Times | None
    notes: tuple[str, ...] = ()

    def take(self, which: np.ndarray | slice, *notes: str) -> "Rows":
        """Returns the given rows, with more notes."""
        taken = None if self.times is None else self.times[which]
        return Rows(self.values[which], self.lines[which], taken, (*self.notes, *notes))


def in_order(path: object, rows: Rows, clock: Clock) -> Rows:
    """Returns the rows from the earliest to the latest.

    Raises:
        DataError: for a time that comes twice, or out of order.
    """
    assert rows.times is not None
    differences = np.diff(rows.times).astype(np.int64)
    if len(differences) and np.all(differences < 0):
        return rows.take(slice(None, None, -1), "the newest row came first; the order was turned round")
    falling = np.sum(differences < 0) > np.sum(differences > 0)
    wrong = np.flatnonzero(differences >= 0 if falling else differences <= 0)
    if len(wrong):
        time, before = (clock.write(rows.times[row]) for row in (wrong[0] + 1, wrong[0]))
        raise DataError(
            f"{path}:{rows.lines[wrong[0] + 1]}: the time {time} comes after {before}; expected "
            f"{'an earlier' if falling else 'a later'} one, as in most rows: sort the rows, give each series a column "
            "of its own, name all columns of the time (series.time_column=date,hour), or take the rows as they come "
            "(series.time_column=none)"
        )
    return rows


def complete(path: object, rows: Rows, names: Sequence[str], step: Step | None, on_missing: str) -> Rows:
    """Returns the rows with a number everywhere.

    Args:
        path: of the file, for errors.
        rows: in their order.
        names: D names of columns.
        step: of the times.
        on_missing: "refuse"; "drop", to leave rows out; "interpolate", to fill linearly in time, or "hold", to fill
            with the value before, both with rows for the times that are left out.

    Raises:
        DataError: for a missing value under "refuse", or where more rows would be put in than there are.
    """
    holes: Bool[np.ndarray, "n d"] = np.isnan(rows.values)
    if on_missing == "refuse" and holes.any():
        row = min(np.flatnonzero(holes.any(axis=1)), key=lambda row: rows.lines[row])
        name = names[int(np.argmax(holes[row]))]
        raise DataError(
            f"{path}:{rows.lines[row]}: column {name!r} has a missing value; fill it in, leave out its row or column, "
            "or choose series.on_missing: drop, interpolate or hold"
        )
    if on_missing in ("refuse", "drop"):
        rows = _dropped(rows, np.any(holes, axis=1), "with a missing value")
        return dataclasses.replace(rows, notes=(*rows.notes, *_gaps(rows, step)))
    return _filled(path, rows, step, on_missing)


def _dropped(rows: Rows, which: Bool[np.ndarray, " n"], what: str) -> Rows:
    if not which.any():
        return rows
    lines = rows.lines[which]
    return rows.take(~which, f"left out {what}: rows {len(lines)}, the first in line {lines.min()}")


def _gaps(rows: Rows, step: Step | None) -> list[str]:
    """Returns a note on times that are left out, or off the step."""
    if rows.times is None or step is None or len(rows.times) < 2:
        return []
    positions, told = step.positions(rows.times), []
    skipped = np.diff(positions) - 1
    gaps = np.flatnonzero((skipped >= 1) & (skipped == np.round(skipped)))
    if len(gaps):
        told.append(
            f"times left out: {int(skipped[gaps].sum())}, the first after line {rows.lines[gaps[0]]}; rows are taken "
            "as if they followed each other (series.on_missing=interpolate or hold fills such gaps)"
        )
    off = np.flatnonzero(skipped != np.round(skipped))
    if len(off):
        told.append(f"times off the step of {step}: {len(off)}, the first in line {rows.lines[off[0] + 1]}")
    return told


def _filled(path: object, rows: Rows, step: Step | None, how: str) -> Rows:
    """Returns the rows with rows for the times that are left out, and with a number everywhere."""
    rows, positions, put_in = _on_grid(path, rows, step, how)
    holes = np.isnan(rows.values)
    ends = np.minimum.accumulate(holes, axis=0)
    if how == "interpolate":
        ends = ends | np.minimum.accumulate(holes[::-1], axis=0)[::-1]
    missing = int(np.sum(holes & ~put_in[:, None] & ~np.any(ends, axis=1)[:, None]))
    told = [f"missing values filled in by {how}: {missing}"] if missing else []
    values = np.stack([_fill(column, positions, how) for column in rows.values.T], axis=1)
    rows = dataclasses.replace(rows, values=values, notes=(*rows.notes, *told))
    return _dropped(rows, np.any(ends, axis=1), "with a missing value at an end, where nothing can fill it")


def _on_grid(
    path: object, rows: Rows, step: Step | None, how: str
) -> tuple[Rows, Float[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Puts in empty rows for the times that are left out; returns all rows, their positions, and which were put in."""
    count, times = len(rows.values), rows.times
    none = np.zeros(count, bool)
    if times is None or not count:
        return rows, np.arange(count, dtype=float), none
    positions = (times - times[0]).astype(float) if step is None else step.positions(times)
    if step is None or np.any(positions != np.round(positions)):
        return (
            rows.take(slice(None), "the times follow no one step, so that times left out are not put in"),
            positions,
            none,
        )
    places = positions.astype(np.int64)
    total = int(places[-1]) + 1
    if total > 2 * count:
        raise DataError(
            f"{path}: {count} rows lie within {total} steps of {step}, so that series.on_missing={how} would put in "
            "more than there are; take a part without such gaps, or series.on_missing=drop"
        )
    source = np.searchsorted(places, np.arange(total), side="right") - 1
    values = np.full((total, rows.values.shape[1]), np.nan)
    values[places] = rows.values
    put_in = ~np.isin(np.arange(total), places)
    told = rows.notes
    if total > count:
        first = rows.lines[np.flatnonzero(np.diff(places) > 1)[0]]
        told = (*told, f"times left out, put in by {how}: {total - count}, the first after line {first}")
    grid = Rows(values, rows.lines[source], step.after(times[0], np.arange(total)), told)
    return grid, np.arange(total, dtype=float), put_in


def _fill(values: Float[np.ndarray, " n"], positions: Float[np.ndarray, " n"], how: str) -> Float[np.ndarray, " n"]:
    known = ~np.isnan(values)
    if how == "interpolate":
        filled: Float[np.ndarray, " n"] = np.interp(positions, positions[known], values[known])
        return np.where(known, values, filled)
    latest: Float[np.ndarray, " n"] = values[np.maximum.accumulate(np.where(known, np.arange(len(values)), 0))]
    return latest
