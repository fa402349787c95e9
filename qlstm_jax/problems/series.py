"""Forecasts of time series from the user's own csv file, beside the two naive ones."""

import csv
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Key
from ml_collections import ConfigDict, config_dict

from qlstm_jax.data import series
from qlstm_jax.data.batching import stream
from qlstm_jax.problems import plots
from qlstm_jax.problems.base import Batch, Interface, Model, Problem, Sums
from qlstm_jax.problems.config import ConfigError, Rule, check_split, fraction, nearest, not_negative, one_of, positive
from qlstm_jax.problems.models import predictor
from qlstm_jax.problems.series_data import SeriesData
from qlstm_jax.shardings import split_rows, whole_rows

WINDOWS = 256  # that are evaluated at once
Z90 = 1.6448536269514722  # a standard normal lies within ± this with probability 0.9
LOG_VARIANCES = (-12.0, 12.0)  # beyond which a network's answer is not believed: e^-12 of standardised data is noise
PANELS = 4  # series that the picture shows at most


def _found_or(*choices: str) -> Rule:
    """Returns one of `choices`, or "" where it is to be found."""
    return lambda value: None if value in ("", *choices) else f"{nearest(value, choices)}, or '' to find it"


class SeriesProblem(Problem):
    """Direct forecasts of all steps of a horizon at once, from what the layer makes of the context.

    With y standardised by mean and deviation of the training part, the mean μ and log-variance s of each value,

        loss = (log 2π + s + (y − μ)² e^(−s)) / 2       "gaussian"
        loss = (y − μ)²                                  "point"

    The workdir's folder series keeps what tells the file from another, and what forecasts from other files need.

    Args:
        config: of the run.
        workdir: its folder.
        table: rows of your own in place of the file that the config names.
    """

    name = "series"
    evaluates = ()
    rules: ClassVar = {
        "header": one_of(*series.HEADERS),
        "separator": _found_or(*series.SEPARATORS),
        "decimal": _found_or(".", ","),
        "thousands": _found_or(*series.THOUSANDS),
        "on_missing": one_of(*series.ON_MISSING),
        "loss": one_of("gaussian", "point"),
        "context": positive,
        "horizon": positive,
        "period": not_negative,
        "validation": fraction,
        "test": fraction,
    }
    on_device = False
    select, select_mode = "loss", "min"
    validation_metrics = ("loss", "mae")

    @classmethod
    def defaults(cls) -> ConfigDict:
        """Returns the section of the config."""
        return config_dict.create(
            path="",  # a csv file, a row for each time
            header="auto",  # whether its first row holds names: auto, yes or no
            separator="",  # of columns: comma, semicolon, tab, bar or space; "": found
            decimal="",  # . or , before decimals; "": found
            thousands="",  # what stands between thousands: , . ' space or none; "": found
            time_column="",  # of the times; date,hour: of several columns; none: no times; "": found
            time_format="",  # as %d.%m.%Y of Python's strptime, or unix, unix_ms; "": found
            on_missing="refuse",  # missing values: refuse; drop the row; interpolate (from both sides, so that what is
            # forecast may be looked at), or hold the last value, where rows are put in for times left out as well
            columns="",  # to read, separated by commas; "": all of numbers, but for counters of rows and times
            targets="",  # to forecast, of these; "": all
            context=96,  # rows that are seen
            horizon=24,  # rows that are forecast
            loss="gaussian",  # gaussian: mean and variance; point: mean alone
            from_last=False,  # whether the mean is forecast as a change from the last value
            period=0,  # rows of a season, for the seasonal naive forecast of the report; 0: none
            validation=0.1,  # shares of the rows
            test=0.2,
        )

    @classmethod
    def check(cls, config: ConfigDict) -> None:
        """Checks that there is a file, and the shares of the parts.

        Raises:
            ConfigError: where there is none, or nothing is left to train on.
        """
        if not config.series.path:
            raise ConfigError(
                "series.path is ''; expected --config.series.path=FILE, a csv file with a row for each time"
            )
        check_split("series", config.series)

    def __init__(self, config: ConfigDict, workdir: str | Path, *, table: series.Table | None = None) -> None:
        self.config, self.options = config, config.series
        self.gaussian = self.options.loss == "gaussian"
        self.data = SeriesData(config, workdir, table)
        self.targets = list(self.data.targets)
        self.names = [self.data.names[place] for place in self.targets]
        self._forecast = jax.jit(self._forecast_rows, static_argnums=0)

    def stream(self, start: int) -> Generator[Batch, None, None]:
        """Yields training windows from batch `start` on, without end."""
        return stream(self.data.windows["train"], start)

    def notes(self) -> list[str]:
        """Notes rows, columns, parts and windows, and how the file was read."""
        return self.data.notes()

    def interface(self) -> Interface:
        """Columns, targets and scale. The outputs, reshaped to (B, horizon, targets, 1 or 2), are `forecast`'s.

        Inputs are standardised, (value − mean) / deviation, and so is what comes out: with "from_last" the mean is a
        change from the last input of its target, the log-variance of "gaussian" is the second number.
        """
        data, options = self.data, self.options
        scale = {"mean": data.mean.tolist(), "deviation": data.deviation.tolist()}
        form = {name: options[name] for name in ("context", "horizon", "loss", "from_last")}
        return Interface({"columns": list(data.names), "targets": self.names, **scale, **form})

    def model(self, rngs: nnx.Rngs) -> nnx.Module:
        """Returns a `Predictor` of horizon x targets x (mean, and log-variance)."""
        size = self.options.horizon * len(self.targets) * (2 if self.gaussian else 1)
        return predictor(self.config.model, len(self.data.names), size, rngs)

    def forecast(self, model: Model, inputs: Any, rngs: nnx.Rngs | None = None) -> Any:
        """Forecasts what follows inputs (B, L, D): mean, and log-variance or None, (B, H, K) each; standardised."""
        outputs = model(inputs, rngs=rngs)
        outputs = outputs.reshape(outputs.shape[0], self.options.horizon, len(self.targets), -1)
        mean = outputs[..., 0]
        if self.options.from_last:
            mean = mean + inputs[:, -1:, jnp.asarray(self.targets)]
        return mean, jnp.clip(outputs[..., 1], *LOG_VARIANCES) if self.gaussian else None

    def _forecast_rows(self, graphdef: nnx.GraphDef[Any], params: Any, inputs: Array) -> Any:
        return whole_rows(self.forecast(nnx.merge(graphdef, params), split_rows(inputs)))

    def losses(self, mean: Any, log_variance: Any, targets: Any, xp: Any = jnp) -> Any:
        """Returns the loss of each value, in numpy or in jax."""
        squares = (targets - mean) ** 2
        if log_variance is None:
            return squares
        return (np.log(2 * np.pi) + log_variance + squares * xp.exp(-log_variance)) / 2

    def loss(self, model: Model, batch: Batch, rngs: nnx.Rngs | None) -> Sums:
        """Returns the mean loss of all values; there is nothing right or wrong."""
        mean, log_variance = self.forecast(model, batch.inputs, rngs)
        loss = jnp.sum(self.losses(mean, log_variance, batch.targets))
        tokens = jnp.float32(batch.inputs.shape[0] * batch.inputs.shape[1])
        return {"loss": loss, "weight": jnp.float32(batch.targets.size), "tokens": tokens}

    def forecast_all(self, model: Model, inputs: Any) -> Any:
        """Returns `forecast` of inputs (B, L, D) as float64 numpy arrays, by one program for any B up to WINDOWS."""
        graphdef, params = nnx.split(model, nnx.Param)
        filled = np.resize(np.asarray(inputs, np.float32), (WINDOWS, *inputs.shape[1:]))
        mean, log_variance = jax.device_get(self._forecast(graphdef, params, filled))
        return [None if a is None else a[: len(inputs)].astype(np.float64) for a in (mean, log_variance)]

    def errors(self, model: Model, part: str) -> dict[str, np.ndarray]:
        """Returns the mean errors over the windows of a part, (H, K) each, of standardised values.

        Returns:
            "loss"; "absolute" and "squared" errors of the model, of the last value as "last_value_absolute" and so on,
            with a period of "seasonal" forecasts; for "gaussian" "covered", the share within the 90 % interval.
        """
        windows, horizon, period = self.data.windows[part], self.options.horizon, self.options.period
        values = self.data.standardised[:, self.targets]
        sums: dict[str, Any] = {}
        for start in range(0, len(windows.origins), WINDOWS):
            origins = np.asarray(windows.origins[start : start + WINDOWS])
            truth = values[origins[:, None] + np.arange(horizon)[None]]
            mean, log_variance = self.forecast_all(model, windows.at(origins).inputs)
            found = {"loss": self.losses(mean, log_variance, truth, np)}
            if self.gaussian:
                found["covered"] = np.abs(truth - mean) <= Z90 * np.exp(log_variance / 2)
            forecasts = {"": mean, "last_value_": series.last_value(values, origins, horizon)}
            if period:
                forecasts["seasonal_"] = series.seasonal(values, origins, horizon, period)
            for name, guess in forecasts.items():
                found |= {f"{name}absolute": np.abs(truth - guess), f"{name}squared": (truth - guess) ** 2}
            sums = {name: sums.get(name, 0) + np.sum(value, axis=0) for name, value in found.items()}
        return {name: value / len(windows.origins) for name, value in sums.items()}

    def validate(self, model: Model, key: Key[Array, ""]) -> dict[str, float]:
        """Returns loss, and mean absolute error of standardised values, on the validation part."""
        errors = self.errors(model, "validation")
        return {"loss": float(errors["loss"].mean()), "mae": float(errors["absolute"].mean())}

    def report(self, model: Model, key: Key[Array, ""], folder: Path, options: ConfigDict) -> dict[str, Any]:
        """Reports errors on the test part in the user's units, beside those of the naive forecasts, and a picture.

        `nll` is of standardised values, in nats a value; `coverage_90` is the share of values in the 90 % interval.
        What follows the last row of the file is forecast in next.csv.
        """
        errors = self.errors(model, "test")
        deviation = self.data.deviation[self.targets]
        columns = {n: self._figures(errors, place, deviation[place]) for place, n in enumerate(self.names)}
        self._draw(model, folder / "forecast.png")
        self._write_next(model, folder / "next.csv")
        return {
            "part": "test",
            "windows": len(self.data.windows["test"].origins),
            "context": self.options.context,
            "horizon": self.options.horizon,
            "loss": float(errors["loss"].mean()),
            "standardised": self._figures(errors, slice(None), 1.0),
            "columns": columns,
        }

    def _figures(self, errors: Any, place: Any, unit: Any) -> dict[str, Any]:
        """Returns the figures of one target, or of all, of which one deviation is `unit`."""

        def of(name: str) -> dict[str, float]:
            mae, squared = errors[f"{name}absolute"][:, place].mean(), errors[f"{name}squared"][:, place].mean()
            return {"mae": float(unit * mae), "rmse": float(unit * np.sqrt(squared))}

        figures: dict[str, Any] = of("") | {"last_value": of("last_value_")}
        if self.options.period:
            figures["seasonal"] = of("seasonal_")
        if self.gaussian:
            figures["nll"] = float(errors["loss"][:, place].mean())
            figures["coverage_90"] = float(errors["covered"][:, place].mean())
        return figures

    def predict_file(self, model: Model, path: Path) -> Iterable[dict[str, Any]]:
        """Forecasts what follows the last row of another file of the series: a record per step, as in next.csv.

        The first one has "notes" besides: how the file was read.

        Raises:
            DataError: as for `SeriesData.other`.
        """
        table = self.data.other(path)
        first, *others = self.following(model, table)
        return [first | {"notes": list(table.notes)}, *others]

    def following(self, model: Model, table: series.Table) -> list[dict[str, Any]]:
        """Returns a record for each step after a table: its number, its time where known, and forecasts by target.

        The ends of a forecast's 90 % interval are "NAME low" and "NAME high".
        """
        inputs = (table.values[-self.options.context :] - self.data.mean) / self.data.deviation
        centre, half = self._in_units(model, inputs)
        times = table.following(len(centre))
        records = []
        for step in range(len(centre)):
            record: dict[str, Any] = {"step": step + 1} | ({"time": times[step]} if times else {})
            for place, name in enumerate(self.names):
                middle = float(centre[step, place])
                record[name] = middle
                if half is not None:
                    around = float(half[step, place])
                    record |= {f"{name} low": middle - around, f"{name} high": middle + around}
            records.append(record)
        return records

    def _in_units(self, model: Model, inputs: Any) -> Any:
        """Forecasts after inputs (L, D) in user units: mean, and half the 90 % interval or None, (H, K) each."""
        mean, log_variance = self.forecast_all(model, inputs[None])
        unit = self.data.deviation[None, self.targets]
        centre = self.data.mean[None, self.targets] + unit * mean[0]
        return centre, unit * Z90 * np.exp(log_variance[0] / 2) if self.gaussian else None

    def _draw(self, model: Model, path: Path) -> None:
        """Plots the forecast of the window in the middle of the test part."""
        origins, options = self.data.windows["test"].origins, self.options
        origin = origins[len(origins) // 2]
        centre, half = self._in_units(model, self.data.standardised[origin - options.context : origin])
        around = self.data.table.values[origin - options.context : origin + options.horizon, self.targets]
        panels = {
            name: (around[:, place], centre[:, place], None if half is None else half[:, place])
            for place, name in enumerate(self.names[:PANELS])
        }
        title = f"{self.config.model.cell}, row {origin} of {Path(self.data.table.source).name}"
        plots.forecasts(panels, origin, title, path)

    def _write_next(self, model: Model, path: Path) -> None:
        """Writes what follows the run's own file, a row for each step."""
        records = self.following(model, self.data.table)
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(records[0]))
            writer.writeheader()
            writer.writerows(records)
