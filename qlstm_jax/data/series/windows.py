"""A series split by time, standardised, cut into windows; and the naive forecasts."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Real, Shaped
from numpy.typing import ArrayLike

from qlstm_jax.data.checks import check_shares
from qlstm_jax.data.rows import DataError

PARTS = ("train", "validation", "test")


def split(count: int, *, validation: float, test: float) -> dict[str, range]:
    """Returns the rows of each part: "train" first, then "validation", and the last ones "test".

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
    """Returns mean and deviation (D,) of the training rows (N, D); 1 for a constant column, so that it becomes 0."""
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
        """Returns the windows at `origins` (B,)."""
        origins = np.asarray(origins)[:, None]
        inputs = self.values[origins + np.arange(-self.context, 0)[None]]
        following = self.values[origins + np.arange(self.horizon)[None]]
        return SeriesBatch(inputs, following[:, :, self.targets])

    def batch(self, number: int) -> SeriesBatch:
        """Returns training batch `number` ≥ 0: every window once in a pass, ordered by seed and pass, end to end."""
        rows = np.arange(number * self.batch_size, (number + 1) * self.batch_size)
        passes, places = np.divmod(rows, len(self.origins))
        origins = [self.order(n)[places[passes == n]] for n in np.unique(passes)]
        return self.at(np.concatenate(origins))

    def order(self, number: int) -> Int[np.ndarray, " origins"]:
        """Returns the origins in the order of pass `number`."""
        latest = self._latest
        if latest is None or latest[0] != number:
            drawn = np.random.default_rng([self.seed, number]).permutation(len(self.origins))
            self._latest = latest = (number, self.origins.start + drawn)
        return latest[1]


def last_value(
    values: Shaped[np.ndarray, "n d"], origins: ArrayLike, horizon: int
) -> Shaped[np.ndarray, "batch horizon d"]:
    """Returns the naive forecast (B, H, D): row t-1 of `values` (N, D) again and again, for origins t (B,)."""
    return np.repeat(values[np.asarray(origins) - 1][:, None], horizon, axis=1)


def seasonal(
    values: Shaped[np.ndarray, "n d"], origins: ArrayLike, horizon: int, period: int
) -> Shaped[np.ndarray, "batch horizon d"]:
    """Returns the seasonal naive forecast (B, H, D): the last `period` rows before t again and again; t ≥ period."""
    back = period - np.arange(horizon) % period
    return values[np.asarray(origins)[:, None] - back[None]]
