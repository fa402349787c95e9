"""Time series from a csv file: read, split by time, standardised, cut into windows."""

import csv
import dataclasses
import hashlib
import io
import math
import operator
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
from jaxtyping import Float, Int, Real, Shaped
from numpy.typing import ArrayLike

from qlstm_jax.data.checks import check_shares
from qlstm_jax.data.rows import DataError

HEADERS = ("auto", "yes", "no")
PARTS = ("train", "validation", "test")
_FORMAT = "give a .csv file (or a .tsv) with one row for each time, the earliest first, and a number in each column"


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """D series of numbers at N times.

    Attributes:
        source: the file.
        names: D names of columns.
        values: (N, D) float64, finite.
        skipped: names of the columns without a number, which were left out.
        sha256: of the file.
    """

    source: str
    names: tuple[str, ...]
    values: Float[np.ndarray, "n d"]
    skipped: tuple[str, ...]
    sha256: str

    def take(self, wanted: str, option: str) -> "Table":
        """The table of the columns named in `wanted`, as for `columns`."""
        places = self.columns(wanted, option)
        names, values = tuple(self.names[p] for p in places), self.values[:, places]
        return dataclasses.replace(self, names=names, values=values)

    def columns(self, wanted: str, option: str) -> tuple[int, ...]:
        """The indices of columns named in `wanted`, separated by commas; all for "". `option` is named in errors.

        Raises:
            DataError: for a name that is not there, or one given twice.
        """
        if not wanted:
            return tuple(range(len(self.names)))
        names = [name.strip() for name in wanted.split(",")]
        found = ", ".join(map(repr, self.names))
        for name in names:
            if name in self.skipped:
                raise DataError(f"{self.source}: column {name!r} of {option} holds no numbers; those that do: {found}")
            if name not in self.names or names.count(name) > 1:
                raise DataError(f"{option} is {wanted!r}; expected different names from the columns of numbers {found}")
        return tuple(self.names.index(name) for name in names)


def read(path: str | os.PathLike[str], *, header: str = "auto") -> Table:
    """Reads a csv file (a .tsv: separated by tabs) in UTF-8; blank lines are passed over where they cannot be values.

    Args:
        path: the file.
        header: whether the first row holds names: "yes", "no", or "auto", where it does if a column of numbers begins
            with text. A column without a name is called by its place, "1" for the first.

    Returns:
        A `Table` of the columns that have a number in any row. Others, such as dates, are left out and named.

    Raises:
        DataError: for a file that cannot be read, rows of different lengths, names given twice, no column of numbers,
            or a cell in one that is missing or no finite number, naming its line and column.
    """
    path = Path(path).expanduser()
    if header not in HEADERS:
        raise DataError(f"header is {header!r}; expected one of {', '.join(HEADERS)}")
    if not path.is_file():
        raise DataError(f"{path} is no file (the current folder is {Path.cwd()}); {_FORMAT}")
    content = path.read_bytes()
    rows = _rows(path, content)
    if not rows:
        raise DataError(f"{path} is empty; {_FORMAT}")
    numbers = [list(map(_number, fields)) for _, fields in rows]
    width, first = len(rows[0][1]), rows[0][1]
    for line, fields in rows:
        if len(fields) != width:
            raise DataError(f"{path}:{line}: {len(fields)} columns, and {width} in the first row; {_FORMAT}")
    numeric = [any(row[place] is not None for row in numbers[1:]) for place in range(width)]
    is_name = [number is None and not _missing(cell) for number, cell in zip(numbers[0], first, strict=True)]
    named = any(map(operator.and_, is_name, numeric)) if header == "auto" else header == "yes"
    names = [(named and cell.strip()) or str(place + 1) for place, cell in enumerate(first)]
    if not named:
        numeric = [later or number is not None for number, later in zip(numbers[0], numeric, strict=True)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{path}:{rows[0][0]}: several columns are named {twice[0]!r}; give each its own name")
    kept = [place for place in range(width) if numeric[place]]
    if not kept:
        raise DataError(f"{path}: no column holds numbers; {_FORMAT}")
    for (line, fields), row in zip(rows[named:], numbers[named:], strict=True):
        for place in kept:
            if row[place] is None:
                _refuse(f"{path}:{line}: column {names[place]!r}", fields[place])
    values = np.array([[row[place] for place in kept] for row in numbers[named:]])
    skipped = tuple(name for name, number in zip(names, numeric, strict=True) if not number)
    return Table(str(path), tuple(names[p] for p in kept), values, skipped, hashlib.sha256(content).hexdigest())


def _rows(path: Path, content: bytes) -> list[tuple[int, list[str]]]:
    """(line, fields) of each row that is not blank; in a file of one column, a blank line before the end is a row."""
    try:
        text = io.StringIO(content.decode("utf-8-sig"), newline="")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8") from error
    reader = csv.reader(text, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
    try:
        rows = [(reader.line_num, fields or [""]) for fields in reader]
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: {error}; {_FORMAT}") from error
    full = [place for place, (_, fields) in enumerate(rows) if len(fields) > 1 or fields[0].strip()]
    one_column = full and len(rows[full[0]][1]) == 1
    return rows[full[0] : full[-1] + 1] if one_column else [rows[place] for place in full]


def _number(cell: str) -> float | None:
    """The cell as a finite number, or None."""
    try:
        number = math.nan if "_" in cell else float(cell)  # 1_000 is Python's, not a file's
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _missing(cell: str) -> bool:
    return cell.strip().lower() in ("", "nan", "na", "n/a", "null", "none", "-")


def _refuse(where: str, cell: str) -> NoReturn:
    if _missing(cell):
        raise DataError(f"{where} has a missing value ({cell.strip()!r}); fill it in, or leave out its row or column")
    raise DataError(f"{where} is {cell.strip()!r}; expected a finite number, as in other rows of this column")


def split(count: int, *, validation: float, test: float) -> dict[str, range]:
    """The rows of each part: "train" first, then "validation", and the last ones "test".

    Args:
        count: N rows.
        validation, test: shares, each more than 0, together less than 1.

    Raises:
        DataError: for shares out of range.
    """
    check_shares(validation, test)
    first, second = round(count * (1 - validation - test)), round(count * (1 - test))
    return dict(zip(PARTS, (range(first), range(first, second), range(second, count)), strict=True))


def scale(values: Float[np.ndarray, "n d"]) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, " d"]]:
    """Mean and deviation (D,) of the training rows (N, D); a constant column has deviation 1, so that it becomes 0."""
    deviation = np.std(values, axis=0)
    constant = np.ptp(values, axis=0) == 0  # its deviation is rounding noise, not always 0
    return np.mean(values, axis=0), np.where(constant, 1.0, deviation)


class SeriesBatch(NamedTuple):
    """B windows; a pytree."""

    inputs: Float[np.ndarray, "batch context d"]  # float32
    targets: Float[np.ndarray, "batch horizon k"]  # float32, the rows after it of the target columns


class Windows:
    """The windows of a part: context rows t-L .. t-1, and targets in rows t .. t+H-1, for each origin t.

    All targets lie in the part. The context of training lies in it too; that of a later part may reach back into the
    part before, as it would in use.

    Args:
        values: (N, D) standardised series, of all parts.
        part: rows of the part.
        context: L, at least 1.
        horizon: H, at least 1.
        targets: K indices of columns.
        batch_size: B of `batch`.
        seed: of its order.
        name: of the part, for the error.

    Raises:
        DataError: if there is no window.
    """

    def __init__(
        self,
        values: Real[np.ndarray, "n d"],
        part: range,
        *,
        context: int,
        horizon: int,
        targets: Sequence[int],
        batch_size: int = 1,
        seed: int = 0,
        name: str = "part",
    ) -> None:
        first = max(part.start, context)
        self.origins = range(first, part.stop - horizon + 1)
        if not self.origins:
            needed = horizon + max(0, context - part.start)
            raise DataError(
                f"the {name} part has {len(part)} rows; expected at least {needed}, for a context of {context} and a "
                f"horizon of {horizon}. Give more rows, or smaller series.context or series.horizon"
            )
        self.values, self.targets = np.asarray(values, np.float32), np.asarray(targets)
        self.context, self.horizon, self.batch_size, self.seed = context, horizon, batch_size, seed
        self._latest: tuple[int, Int[np.ndarray, " origins"]] | None = None

    def at(self, origins: ArrayLike) -> SeriesBatch:
        """The windows at `origins` (B,)."""
        origins = np.asarray(origins)[:, None]
        inputs = self.values[origins + np.arange(-self.context, 0)[None]]
        following = self.values[origins + np.arange(self.horizon)[None]]
        return SeriesBatch(inputs, following[:, :, self.targets])

    def batch(self, number: int) -> SeriesBatch:
        """Training batch number `number` ≥ 0: every window once in a pass, in an order by seed and pass, end to end."""
        rows = np.arange(number * self.batch_size, (number + 1) * self.batch_size)
        passes, places = np.divmod(rows, len(self.origins))
        origins = [self.order(n)[places[passes == n]] for n in np.unique(passes)]
        return self.at(np.concatenate(origins))

    def order(self, number: int) -> Int[np.ndarray, " origins"]:
        """The origins in the order of pass `number`."""
        latest = self._latest
        if latest is None or latest[0] != number:
            drawn = np.random.default_rng([self.seed, number]).permutation(len(self.origins))
            self._latest = latest = (number, self.origins.start + drawn)
        return latest[1]


def last_value(
    values: Shaped[np.ndarray, "n d"], origins: ArrayLike, horizon: int
) -> Shaped[np.ndarray, "batch horizon d"]:
    """The naive forecast (B, H, D): row t-1 of `values` (N, D) again and again, for origins t (B,)."""
    return np.repeat(values[np.asarray(origins) - 1][:, None], horizon, axis=1)


def seasonal(
    values: Shaped[np.ndarray, "n d"], origins: ArrayLike, horizon: int, period: int
) -> Shaped[np.ndarray, "batch horizon d"]:
    """The seasonal naive forecast (B, H, D): the last `period` rows before t again and again; t ≥ period."""
    back = period - np.arange(horizon) % period
    return values[np.asarray(origins)[:, None] - back[None]]
