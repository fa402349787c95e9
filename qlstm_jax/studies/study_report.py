"""Tables and pictures of `qlstm_jax.studies.study`."""

import math
import statistics
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, TypeAlias

from scipy import stats

from qlstm_jax.problems import plots
from qlstm_jax.studies import choice
from qlstm_jax.training.config import ConfigError

SHARES = ("accuracy", "accuracy_by_length", "macro_f1")  # shown in percent


def interval(values: list[float]) -> float:
    """Returns half the 95 % confidence interval of the mean, by Student's t; nan for one value."""
    if len(values) < 2:
        return math.nan
    quantile = stats.t.ppf(0.975, len(values) - 1)
    return float(quantile * statistics.stdev(values) / math.sqrt(len(values)))


Groups: TypeAlias = dict[tuple[str, str], list[float]]  # (row, column) to the figures of its seeds


def write(records: list[dict[str, Any]], metrics: list[str], folder: Path) -> Path:
    """Writes table.md, with a table for each metric, and a picture for each; returns the table's path.

    Of a row and column with several choices of settings, those are reported that are best on validation.

    Raises:
        ConfigError: if there are no results, or none has such a figure.
    """
    if not records:
        raise ConfigError(f"{folder} holds no results to report; run the study first")
    records, choices = choice.chosen(records)
    by_metric = {metric: collect(records, metric) for metric in metrics}
    parts = [about(records)]
    for metric, groups in by_metric.items():
        parts += [f"## {metric}", table(groups, records, metric)]
        columns = list(dict.fromkeys(column for _, column in groups))
        rows = list(dict.fromkeys(row for row, _ in groups))
        points = {
            row: [
                (statistics.mean(groups[row, c]), interval(groups[row, c])) if (row, c) in groups else None
                for c in columns
            ]
            for row in rows
        }
        plots.study(points, columns, metric, records[0]["task"], folder / f"{metric}.png")
    if choices:
        parts += ["## Settings, chosen on validation", choices]
    path = folder / "table.md"
    path.write_text("\n\n".join(parts) + "\n")
    return path


def collect(records: list[dict[str, Any]], metric: str) -> Groups:
    """(row, column) to the metric of its seeds; a run that was lost has none.

    A metric that has a value at each of several places, accuracy_by_length, has a column for each place.
    """
    groups: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    names: set[str] = set()
    for record in records:
        row, column, report = record["row"], record["column"], record["report"]
        names |= {k for k, v in report.items() if isinstance(v, int | float | dict)}
        if isinstance(report.get(metric), dict):
            for place, value in report[metric].items():
                places = [column, f"{metric.rpartition('_by_')[2]}={place}"]
                groups[row, ",".join(filter(None, places))].append(value)
        elif metric in report:
            groups[row, column].append(report[metric])
    if not groups:
        raise ConfigError(f"no result has a figure {metric!r}; expected one of {', '.join(sorted(names))}")
    return dict(groups)


def about(records: list[dict[str, Any]]) -> str:
    """Describes what the runs have in common."""
    seeds, devices = sorted({r["seed"] for r in records}), sorted({r["device"] for r in records})
    budgets = sorted({f"{r['steps']} steps of {r['batch_size']}" for r in records})
    return (
        f"Task {records[0]['task']}; {', '.join(budgets)}; seeds {', '.join(map(str, seeds))}; run on "
        f"{', '.join(devices)}. Means over the seeds, with half the 95 % confidence interval of the mean."
    )


def table(groups: Groups, records: list[dict[str, Any]], metric: str) -> str:
    """Returns a Markdown table: a line a row, with its numbers of parameters and what its training takes.

    Of time and tokens a second the medians over the runs; of memory the range over the columns. Records of older
    versions have neither tokens a second nor memory, those of runs that were cut off and went on no time.
    """
    columns = list(dict.fromkeys(column for _, column in groups))
    seeds = max(map(len, groups.values()))
    head = [
        "model",
        *(c or metric for c in columns),
        "parameters",
        "of the layer",
        "training",
        "tokens/s",
        "memory of a step",
    ]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in dict.fromkeys(row for row, _ in groups):
        mine = [r for r in records if r["row"] == row and r["report"]]
        lost = Counter(r["lost"] for r in records if r["row"] == row and r["lost"])
        cells = [_cell(groups.get((row, column), []), metric, seeds) for column in columns]
        sizes = [_range([r["report"][k] for r in mine]) for k in ("parameters", "recurrent_parameters")]
        known = ("train_seconds", "tokens_per_second", "step_bytes")
        seconds, speeds, memory = ([r[k] for r in mine if r.get(k)] for k in known)
        taken = f"{statistics.median(seconds):.0f} s" if seconds else ""
        speed = f"{statistics.median(speeds):,.0f}" if speeds else ""
        held = f"{_range([n / 1e6 for n in memory], digits=1)} MB" if memory else ""
        name = row + "".join(f" ({count} {reason})" for reason, count in lost.items())
        lines.append("| " + " | ".join([name, *cells, *sizes, taken, speed, held]) + " |")
    return "\n".join(lines)


def _range(values: list[Any], digits: int = 0) -> str:
    low, high = (f"{value:,.{digits}f}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def _cell(values: list[float], metric: str, seeds: int) -> str:
    if not values:
        return ""
    scale, digits = (100, 1) if metric in SHARES else (1, 3)
    text = f"{scale * statistics.mean(values):.{digits}f}"
    if len(values) > 1:
        text += f" ± {scale * interval(values):.{digits}f}"
    return text + (f", {len(values)} of {seeds} seeds" if len(values) < seeds else "")
