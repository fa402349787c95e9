"""The results of a grid: one JSON line a run, a table in the layout of the papers, a picture for each task."""

import json
import operator
import os
import statistics
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qlstm_jax.data.files import read_text
from qlstm_jax.data.formal import TASKS
from qlstm_jax.data.rows import DataError
from qlstm_jax.problems import plots
from qlstm_jax.problems.formal import SOLVED


class Results:
    """The file of results, and what it holds.

    Several processes may add to one file: a line is written by one call, and read anew before each job.

    Args:
        path: of the JSON lines; made when the first is added.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    def records(self) -> list[dict[str, Any]]:
        """Reads all results. A last line that a killed process left half written is not one.

        Raises:
            DataError: for a file that cannot be read, or another line that is no JSON.
        """
        if not self.path.exists():
            return []
        found = []
        for number, line in enumerate(read_text(self.path, "expected a JSON line a run").splitlines(), 1):
            if line.endswith("}"):
                try:
                    found.append(json.loads(line))
                except json.JSONDecodeError as error:
                    raise DataError(f"{self.path}:{number}: no JSON ({error.msg}); take the line out") from error
        return found

    def add(self, record: dict[str, Any]) -> None:
        """Appends one result."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        whole = not self.path.exists() or self.path.read_bytes()[-1:] in (b"\n", b"")
        line = ("" if whole else "\n") + json.dumps(record) + "\n"
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, line.encode())
        finally:
            os.close(file)

    def has(self, identity: dict[str, Any], seed: int, also: Callable[[dict[str, Any]], bool] | None = None) -> bool:
        """Returns whether this run has a result.

        Args:
            identity: of the run.
            seed: of the run.
            also: which other identities count as this one.
        """
        mine = (r["identity"] for r in self.records() if r["seed"] == seed)
        return any(found == identity or (also is not None and also(found)) for found in mine)


def latest(records: list[dict[str, Any]], *keys: str) -> list[dict[str, Any]]:
    """Returns the last record of each run, identified by `keys`: a run that was made anew replaces the earlier."""
    found = {tuple(record[key] for key in keys): record for record in records}
    return list(found.values())


def grouped(records: list[dict[str, Any]], *keys: str) -> dict[Any, list[dict[str, Any]]]:
    """Groups records by what they have under `keys`: by the value of one, or the tuple of several."""
    groups = defaultdict(list)
    for record in records:
        groups[operator.itemgetter(*keys)(record)].append(record)
    return dict(groups)


def columns(records: list[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """Returns the variants that ran on half of the tasks or more, and those tried on fewer."""
    tasks = {r["task"] for r in records}
    reach = {v: {r["task"] for r in records if r["variant"] == v} for v in dict.fromkeys(r["variant"] for r in records)}
    everywhere = [v for v, seen in reach.items() if 2 * len(seen) >= len(tasks)]
    return everywhere, [v for v in reach if v not in everywhere]


def comparison(records: list[dict[str, Any]]) -> str:
    """Returns a Markdown table: a row per variant, a column per task that `columns`' second part was tried on."""
    runs, tried = grouped(records, "task", "variant"), columns(records)[1]
    seeds = max(map(len, runs.values()))
    tasks = [name for name in TASKS if any((name, v) in runs for v in tried)]
    variants = [v for v in dict.fromkeys(r["variant"] for r in records) if any((t, v) in runs for t in tasks)]
    lines = ["| variant | " + " | ".join(tasks) + " |", "|---|" + "---|" * len(tasks)]
    for variant in variants:
        lines.append(f"| {variant} | " + " | ".join(_cell(runs.get((t, variant), []), seeds) for t in tasks) + " |")
    return "\n".join(lines)


def table(records: list[dict[str, Any]]) -> str:
    """Returns a Markdown table: a row per task by level, a column per variant, "mean (best)" score in percent.

    Bold where the mean over seeds is solved, a star where only the best seed is. The last rows count them.
    """
    runs, variants = grouped(records, "task", "variant"), columns(records)[0]
    seeds = max(map(len, runs.values()))
    tasks = [name for name in TASKS if any((name, v) in runs for v in variants)]
    lines = ["| level | task | " + " | ".join(variants) + " |", "|---|---|" + "---|" * len(variants)]
    for name in tasks:
        cells = [_cell(runs.get((name, variant), []), seeds) for variant in variants]
        lines.append(f"| {TASKS[name].level} | {name} | " + " | ".join(cells) + " |")
    for title, value in (("mean", statistics.mean), ("best seed", max)):
        counts = []
        for variant in variants:
            scores = [[r["score"] for r in runs[name, variant]] for name in tasks if (name, variant) in runs]
            counts.append(f"{sum(value(s) >= SOLVED for s in scores)} of {len(scores)}")
        lines.append(f"| | solved, {title} | " + " | ".join(counts) + " |")
    return "\n".join(lines)


def _cell(records: list[dict[str, Any]], seeds: int) -> str:
    if not records:
        return ""
    scores = [r["score"] for r in records]
    mean, best = statistics.mean(scores), max(scores)
    text = f"{100 * mean:.1f} ({100 * best:.1f})"
    if mean >= SOLVED:
        text = f"**{text}**"
    elif best >= SOLVED:
        text += " *"
    if len(records) < seeds:
        text += f", {len(records)} of {seeds} seeds"
    diverged = sum(r["diverged"] for r in records)
    return text + (f", {diverged} diverged" if diverged else "")


def write_report(records: list[dict[str, Any]], folder: Path) -> Path:
    """Writes `table.md`, one table a budget, and for each budget a folder with a picture for each task.

    Returns:
        The path of the table.
    """
    parts = [
        "Score: mean accuracy over the lengths beyond those of training, in percent, as mean (best) over seeds. "
        "Bold: the mean is at least 90, solved. *: only the best seed is."
    ]
    for budget, group in grouped(records, "budget").items():
        seeds = sorted({r["seed"] for r in group})
        machines = sorted({r["device"] for r in group})
        parts += [f"## {budget}", f"Seeds {', '.join(map(str, seeds))}; run on {', '.join(machines)}.", table(group)]
        if columns(group)[1]:
            parts += ["Tried on some tasks, beside the others there:", comparison(group)]
        pictures = folder / "".join(c if c.isalnum() or c in "._-" else "-" for c in budget.replace(", ", "_"))
        pictures.mkdir(parents=True, exist_ok=True)
        runs = grouped(group, "task", "variant")
        for task in dict.fromkeys(r["task"] for r in group):
            series = {v: [r["accuracy_by_length"] for r in rs] for (t, v), rs in runs.items() if t == task}
            train = tuple(group[0]["train_lengths"])
            plots.accuracy_of_many(series, train, 1 / TASKS[task].output_size, task, pictures / f"{task}.png")
    path = folder / "table.md"
    path.write_text("\n\n".join(parts) + "\n")
    return path
