"""The series that a run learns: read, split and cut into windows; and what of them the workdir keeps."""

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from qlstm_jax.data import series
from qlstm_jax.data.rows import DataError
from qlstm_jax.problems.config import run_exists

READING = ("header", "separator", "decimal", "thousands", "time_column", "time_format", "on_missing")  # keys for `read`


class SeriesData:
    """The data of a run.

    The workdir's series/file.json tells the file from another, and keeps columns and scale, so that a trained run
    forecasts from another file's rows without its own.

    Args:
        config: of the run.
        workdir: its folder.
        table: rows of your own in place of the file that the config names.

    Attributes:
        names: D columns.
        targets: K indices of those that are forecast.
        mean, deviation: (D,) of the training part.
        step: from a time to the next, in words; None where it is not known.
        writing: how the file writes numbers and times.

    Raises:
        DataError: for data that cannot be read, are too few, or are others than the run began with.
    """

    def __init__(self, config: ConfigDict, workdir: str | Path, table: series.Table | None = None) -> None:
        self.config, self.options, self._own = config, config.series, table
        self.path = Path(workdir) / "series" / "file.json"
        self._began: dict[str, Any] = json.loads(self.path.read_text()) if self.path.exists() else {}
        if run_exists(workdir) and "columns" in self._began:
            began = self._began
            self.names, self.step = tuple(began["columns"]), began["step"]
            self.writing = series.Writing(**began["writing"])
            self.mean, self.deviation = np.array(began["mean"]), np.array(began["deviation"])
            self.targets = series.choose(began["source"], self.names, {}, self.options.targets, "series.targets")
        else:
            self._start_anew()

    def _start_anew(self) -> None:
        table = self._read()
        self.names, self.step = table.names, None if table.step is None else str(table.step)
        self.writing = table.writing
        self.mean, self.deviation = series.scale(table.values[: self._split(table)["train"].stop])
        self.targets = table.columns(self.options.targets, "series.targets")
        # What a user may have to mend comes before anything is written.
        first = self.windows["validation"].origins[0]
        if self.options.period > first:
            period = self.options.period
            raise DataError(f"series.period is {period}; expected at most {first}, the rows before validation")
        record = {
            "source": table.source,
            "rows": len(table.values),
            "sha256": table.sha256,
            "columns": list(self.names),
            "mean": self.mean.tolist(),
            "deviation": self.deviation.tolist(),
            "step": self.step,
            "writing": self.writing._asdict(),
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(record, indent=2) + "\n")

    def _read(self) -> series.Table:
        """Reads the table and checks that it is the one that the run began with."""
        table, options = self._own, self.options
        if table is None:
            reading = {key: options[key] for key in READING}
            table = series.read(options.path, columns=options.columns, **reading)
        table = table.take(options.columns, "series.columns")
        if self._began and self._began["sha256"] != table.sha256:
            described = [f"{self._began['source']}, {self._began['rows']} rows"]
            described.append(f"{table.source}, {len(table.values)} rows")
            raise DataError(
                f"{self.path.parents[1]} was trained on another file ({described[0]}) than is there now "
                f"({described[1]}); bring that file back, or give another --workdir"
            )
        return table

    @cached_property
    def table(self) -> series.Table:
        """The rows of the run, read when first wanted.

        Raises:
            DataError: if they cannot be read, or are not those that the run began with.
        """
        table = self._read()
        if table.names != self.names:
            found, began = (", ".join(map(repr, names)) for names in (table.names, self.names))
            raise DataError(f"{table.source} is read as series {found}; expected those of training, {began}")
        return table

    def _split(self, table: series.Table) -> dict[str, range]:
        return series.split(len(table.values), validation=self.options.validation, test=self.options.test)

    @cached_property
    def parts(self) -> dict[str, range]:
        """The rows of each part."""
        return self._split(self.table)

    @cached_property
    def standardised(self) -> Float[np.ndarray, "n d"]:
        """All rows, with mean 0 and deviation 1 in the training part."""
        scaled: Float[np.ndarray, "n d"] = (self.table.values - self.mean) / self.deviation
        return scaled

    @cached_property
    def windows(self) -> dict[str, series.Windows]:
        """The windows of each part."""
        return {
            part: series.Windows(
                self.standardised,
                rows,
                context=self.options.context,
                horizon=self.options.horizon,
                targets=self.targets,
                batch_size=self.config.train.batch_size,
                seed=self.config.seed,
                name=part,
            )
            for part, rows in self.parts.items()
        }

    def other(self, path: str | Path) -> series.Table:
        """Reads another file of the same series.

        Raises:
            DataError: if it cannot be read, has not the columns of training or another step, or is shorter than a
                context.
        """
        reading = {key: self.options[key] for key in READING}
        table = series.read(path, columns=self.names, like=self.writing, **reading)
        if None not in (self.step, table.step) and str(table.step) != self.step:
            raise DataError(f"{table.source} goes on in steps of {table.step}; expected {self.step}, as in training")
        if len(table.values) < self.options.context:
            rows, context = len(table.values), self.options.context
            raise DataError(f"{table.source} has {rows} rows; expected at least {context}, the run's series.context")
        return table

    def notes(self) -> list[str]:
        """Notes rows, columns, parts and windows, and how the file was read."""
        table, train = self.table, self.parts["train"]
        lines = [f"{table.source}: {len(table.values)} rows of {', '.join(table.names)}", *table.notes]
        if table.skipped:
            others = "; ".join(f"{name} {why}" for name, why in table.skipped.items())
            lines.append(f"columns that are no series: {others}")
        spread = np.ptp(table.values[: train.stop], axis=0)
        constant = [name for name, moves in zip(table.names, spread, strict=True) if not moves]
        if constant:
            lines.append(f"constant in the training part, and so of no use: {', '.join(constant)}")
        sizes = [f"{name} {len(rows)} ({len(self.windows[name].origins)} windows)" for name, rows in self.parts.items()]
        targets = ", ".join(self.names[place] for place in self.targets)
        return [*lines, f"rows: {', '.join(sizes)}; forecast: {targets}"]
