import json

import pytest

from qlstm_jax.training.metrics import Patience
from qlstm_jax.training.selection import Selection

NAN, INF = float("nan"), float("inf")


def best_of(figures, *, metric="x", mode="max"):
    """The place of the best of `figures`, counted from 1; None where none is finite."""
    held = None
    for place, values in enumerate(figures, 1):
        if Selection(metric, mode).better(values, held and held[1]):
            held = place, values
    return held and held[0]


@pytest.mark.parametrize(
    ("mode", "figures", "best"),
    [
        ("min", [NAN, 5.0, NAN], 2),
        ("min", [5.0, -INF, 4.0, 4.0], 3),
        ("max", [NAN, INF], None),
        ("max", [INF, 1.0, 0.5], 2),
    ],
)
def test_what_is_not_finite_is_never_the_best(mode, figures, best):
    assert best_of([{"x": value} for value in figures], mode=mode) == best


def test_of_equal_figures_the_lower_loss_is_the_better():
    figures = [(0.5, 1.0), (0.8, 2.0), (0.8, 1.5), (0.8, 1.7), (0.8, NAN), (0.7, 0.1)]
    assert best_of([{"accuracy": a, "loss": b} for a, b in figures], metric="accuracy") == 3


@pytest.mark.parametrize("read", [0, 2])
@pytest.mark.parametrize(
    ("mode", "values", "over"),
    [
        ("max", [1, 3, 3, 2], [False, False, False, True]),
        ("min", [3, 1, 1, 2], [False, False, False, True]),
        ("min", [NAN, 5, NAN, NAN], [False, False, False, True]),
        ("min", [NAN, 5, 4, 3], [False] * 4),
        ("min", [NAN, NAN], [False, True]),
    ],
)
def test_patience_counts_from_the_best(mode, values, over, read, tmp_path):
    """The first `read` figures are those of an earlier process."""
    lines = [{"step": n, "split": "validation", "loss": value} for n, value in enumerate(values[:read])]
    lines.insert(1, {"step": 0, "split": "train", "loss": -9.0})
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    patience = Patience(tmp_path, 2, select="loss", mode=mode)
    for value, expected in zip(values[read:], over[read:], strict=True):
        patience.add(value)
        assert patience.is_over() == expected
    assert patience.is_over() == over[-1]
    assert not Patience(tmp_path, 0, select="loss", mode=mode).is_over()
