"""Pictures of results. Each function writes one PNG with a title and labelled axes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SIZE = (7.0, 4.0)  # inches
SHADE, LINE = "#dbe9f6", "#1f5fa8"


def _dashes(number: int) -> str:
    """Returns the style of line `number` of a picture, from 0: there are ten colours, which then begin anew."""
    return ("-", "--", ":")[number // 10 % 3]


def _save(figure: Figure, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, dpi=140)
    plt.close(figure)


def accuracy_by_length(
    accuracy: dict[int, float], train: tuple[int, int], chance: float, title: str, path: Path
) -> None:
    """Plots accuracy against length, the training lengths shaded."""
    figure, axes = plt.subplots(figsize=SIZE)
    lengths = sorted(accuracy)
    if train[0] == train[1]:
        axes.axvline(train[0], color=SHADE, linewidth=6, label=f"trained at {train[0]}")
    else:
        axes.axvspan(*train, color=SHADE, label=f"trained at {train[0]}..{train[1]}")
    style = "o-" if len(lengths) < 20 else "-"
    axes.plot(lengths, [accuracy[n] for n in lengths], style, color=LINE, linewidth=1.2, markersize=4)
    axes.axhline(chance, color="grey", linestyle=":", linewidth=1, label=f"chance {chance:.2f}")
    axes.set(xlabel="sequence length (tokens)", ylabel="accuracy", title=title, ylim=(0, 1.03))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left", frameon=False)
    _save(figure, path)


def accuracy_of_many(series: dict[str, Any], train: tuple[int, int], chance: float, title: str, path: Path) -> None:
    """Plots accuracy against length for several models: the mean over runs, and their range as a band.

    Args:
        series: name to the runs of a model, each a mapping from length, as in JSON a string, to accuracy.
        train: the training lengths, shaded.
        chance: accuracy of guessing, a dotted line.
        title: of the picture.
        path: of the PNG.
    """
    longest = max(map(len, [*series, f"trained at {train[0]}..{train[1]}"]))
    figure, axes = plt.subplots(figsize=(5.6 + 0.066 * longest, SIZE[1]))  # the legend stands beside the axes
    axes.axvspan(*train, color="#ececec", label=f"trained at {train[0]}..{train[1]}")
    for number, (name, runs) in enumerate(series.items()):
        lengths = sorted(int(n) for n in runs[0])
        values = [[run[str(n)] for run in runs] for n in lengths]
        means = [sum(v) / len(v) for v in values]
        (line,) = axes.plot(lengths, means, linewidth=1.2, linestyle=_dashes(number), label=name)
        low, high = [min(v) for v in values], [max(v) for v in values]
        axes.fill_between(lengths, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    axes.axhline(chance, color="grey", linestyle=":", linewidth=1, label=f"chance {chance:.2f}")
    axes.set(xlabel="sequence length (tokens)", ylabel="accuracy", title=title, ylim=(0, 1.03))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    _save(figure, path)


def bits_per_byte_by_position(curve: Any, trained: int, title: str, path: Path) -> None:
    """Plots bits per byte (C,) against the tokens read, on a logarithmic axis, a window of training shaded."""
    figure, axes = plt.subplots(figsize=SIZE)
    axes.axvspan(1, trained, color=SHADE, label=f"a window of training, {trained}")
    axes.plot(range(1, len(curve) + 1), curve, color=LINE, linewidth=1.2)
    axes.set(xlabel="position in the context (tokens)", ylabel="bits per byte", title=title, xscale="log")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    _save(figure, path)


def confusion_matrix(confusion: np.ndarray[Any, Any], names: Sequence[str], title: str, path: Path) -> None:
    """Counts by true and predicted label, shaded by their share of the true label."""
    side = max(4.0, 0.6 * len(names) + 2)
    figure, axes = plt.subplots(figsize=(side + 1, side))
    shares = confusion / confusion.sum(axis=1, keepdims=True).clip(1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for i, row in enumerate(confusion):
        for j, count in enumerate(row):
            color = "white" if shares[i, j] > 0.5 else "black"
            axes.text(j, i, f"{count}\n{100 * shares[i, j]:.1f} %", ha="center", va="center", color=color)
    axes.set(xlabel="predicted label", ylabel="true label", title=title)
    axes.set_xticks(range(len(names)), names, rotation=45 if len(names) > 4 else 0)
    axes.set_yticks(range(len(names)), names)
    figure.colorbar(image, label="share of the true label", fraction=0.046)
    _save(figure, path)


def learning_curves(records: list[dict[str, Any]], title: str, path: Path) -> None:
    """Plots loss and, where there is one, accuracy against the step, of training and validation."""
    names = [name for name in ("loss", "accuracy") if any(name in r for r in records)] or ["loss"]
    figure, panels = plt.subplots(1, len(names), figsize=(len(names) * SIZE[0] * 0.75, SIZE[1]), squeeze=False)
    for axes, name in zip(panels[0], names, strict=True):
        for split, color in (("train", LINE), ("validation", "#d9762b")):
            points = [(r["step"], r[name]) for r in records if r["split"] == split and name in r]
            if points:
                axes.plot(
                    *zip(*points, strict=True), color=color, label=split, marker="." if len(points) < 20 else None
                )
        axes.set(xlabel="step", ylabel=name)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
        if name == "accuracy":
            axes.set_ylim(0, 1.03)
    figure.suptitle(title)
    _save(figure, path)


def forecasts(panels: dict[str, Any], origin: int, title: str, path: Path) -> None:
    """Plots what was seen, what followed and what was forecast, a panel for each series.

    Args:
        panels: name to (values (L + H,), forecast (H,), half the 90 % interval (H,) or None).
        origin: row of the first value that is forecast.
        title: of the picture.
        path: of the PNG.
    """
    figure, rows = plt.subplots(len(panels), 1, figsize=(SIZE[0], 1 + 2.4 * len(panels)), sharex=True, squeeze=False)
    for axes, (name, (values, centre, half)) in zip(rows[:, 0], panels.items(), strict=True):
        ahead = range(origin, origin + len(centre))
        axes.plot(range(ahead.stop - len(values), ahead.stop), values, color="grey", linewidth=1, label="measured")
        axes.plot(ahead, centre, color=LINE, linewidth=1.5, label="forecast")
        if half is not None:
            axes.fill_between(ahead, centre - half, centre + half, color=SHADE, label="90 % interval")
        axes.set(ylabel=name)
        axes.grid(alpha=0.3)
    rows[0, 0].set_title(title)
    rows[0, 0].legend(frameon=False, loc="upper left", fontsize=8)
    rows[-1, 0].set_xlabel("row")
    _save(figure, path)


def study(points: dict[str, Any], columns: list[str], metric: str, title: str, path: Path) -> None:
    """Plots a line for each model over the columns of a study, or a point for each where there is one column.

    Args:
        points: model to a (mean, half the confidence interval) for each column, or None where there is none.
        columns: their names.
        metric: name of the figure.
        title: of the picture.
        path: of the PNG.
    """
    figure, axes = plt.subplots(figsize=SIZE)
    if len(columns) == 1:
        names = list(points)
        means, halves = zip(*(points[name][0] for name in names), strict=True)
        # Points and not bars, whose lengths would mislead on an axis that does not begin at 0.
        axes.errorbar(means, range(len(names)), xerr=halves, fmt="o", color=LINE, capsize=3)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)  # the first above
        axes.set(xlabel=metric, title=title, xlim=_around(means, halves))
    else:
        for number, (name, values) in enumerate(points.items()):
            places = [i for i, value in enumerate(values) if value is not None]
            means, halves = zip(*(values[i] for i in places), strict=True)
            style: dict[str, Any] = {
                "marker": "o",
                "markersize": 4,
                "linewidth": 1.2,
                "linestyle": _dashes(number),
                "capsize": 3,
            }
            axes.errorbar(places, means, yerr=halves, label=name, **style)
        setting, names = _settings(columns)
        axes.set_xticks(range(len(columns)), names)
        axes.set(xlabel=setting, ylabel=metric, title=title)
        axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.grid(alpha=0.3)
    _save(figure, path)


def _settings(columns: Sequence[str]) -> Any:
    """Returns a label of the axis, and of each column: its value alone where they all set one and the same key."""
    keys, values = zip(*(column.rpartition("=")[::2] for column in columns), strict=True)
    if len(set(keys)) == 1 and "=" not in keys[0]:
        return keys[0], values
    return "setting of the task", [column.replace(",", "\n") for column in columns]


def _around(means: Any, halves: Any) -> Any:
    """Limits an axis to the intervals, without the empty way from 0 to them."""
    halves = [h if h == h else 0.0 for h in halves]
    low = min(m - h for m, h in zip(means, halves, strict=True))
    high = max(m + h for m, h in zip(means, halves, strict=True))
    margin = 0.15 * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin
