"""Chooses the settings that a study reports: for each model and column, the best on validation."""

import math
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

from qlstm_jax.training import records
from qlstm_jax.training.config import ConfigError
from qlstm_jax.training.selection import Selection

Cell = tuple[str, str]  # row and column


def validation_at(folder: Path, step: int) -> dict[str, float]:
    """Returns the validation figures that a run wrote at the step of its reported checkpoint; {} if none."""
    found = [r for r in records.read(folder) if r["split"] == "validation" and r["step"] == step]
    return {k: v for k, v in found[-1].items() if k not in ("split", "step")} if found else {}


def chosen(records: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], str]:
    """Returns the records of the best choice of each row and column, and a table of all choices ("" if one each).

    The best has the best mean over its seeds of the validation metric that its runs were selected by. A run that was
    lost counts as worse than any figure, and so does a choice with fewer seeds than another of the same cell.

    Raises:
        ConfigError: if there are no validation figures to choose by.
    """
    cells: dict[Cell, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        cells[record["row"], record["column"]][record.get("choice", "")].append(record)
    if all(len(choices) == 1 for choices in cells.values()):
        return records, ""
    lines: list[str] = []
    best = {cell: _best(cell, choices, lines) for cell, choices in cells.items()}
    head = ["| model | column | settings | validation, mean over seeds | |", "|---|---|---|---|---|"]
    kept = [r for r in records if r.get("choice", "") == best[r["row"], r["column"]]]
    return kept, "\n".join([*head, *lines])


def _best(cell: Cell, choices: dict[str, list[dict[str, Any]]], lines: list[str]) -> str:
    """Returns the best of the choices of a cell; a line for each is added to `lines`."""
    seeds = max(map(len, choices.values()))
    scores, shown = {}, {}
    for name, runs in choices.items():
        selection = Selection(*next((r["selection"] for r in runs if "selection" in r), ("", "max")))
        values = [r.get("validation", {}).get(selection.metric, math.nan) for r in runs]
        complete = len(values) == seeds and all(map(math.isfinite, values))
        scores[name] = selection.score(statistics.mean(values)) if complete else -math.inf
        shown[name] = f"{selection.metric} {statistics.mean(values):.4f}" if complete else "not all seeds"
    if all(score == -math.inf for score in scores.values()):
        row, column = cell
        raise ConfigError(
            f"no settings of {row!r} {column} have validation figures of all seeds to choose by; expected a validation "
            "part, and runs that come to their end"
        )
    best = max(scores, key=scores.__getitem__)
    lines += [f"| {cell[0]} | {cell[1]} | {n} | {shown[n]} | {'chosen' if n == best else ''} |" for n in choices]
    return best
