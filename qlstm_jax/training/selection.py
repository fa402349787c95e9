"""Compares validations, for the best checkpoint and for patience."""

import dataclasses
import math
from collections.abc import Mapping

from qlstm_jax.problems.base import Problem


@dataclasses.dataclass(frozen=True)
class Selection:
    """A validation metric and its direction.

    Attributes:
        metric: its name, such as "accuracy".
        mode: "max" if the higher is the better, or "min".
    """

    metric: str
    mode: str = "max"

    def score(self, value: float) -> float:
        """Returns the value so that the higher is the better; what is not finite is worse than anything finite."""
        signed = {"max": 1, "min": -1}[self.mode] * float(value)
        return signed if math.isfinite(signed) else -math.inf

    def better(self, values: Mapping[str, float], held: Mapping[str, float] | None) -> bool:
        """Returns whether figures are better than those held: by the metric, and if equal by the lower loss, if known.

        Figures without a finite metric are never better, and any finite ones are better than none.
        """
        new, old = self.score(values[self.metric]), -math.inf
        if held is not None:
            old = self.score(held[self.metric])
        if new != old or new == -math.inf or held is None:
            return new > old
        loss = Selection("loss", "min")
        return "loss" in values and loss.score(values["loss"]) > loss.score(held.get("loss", math.nan))


def selection(problem: Problem, metric: str = "") -> Selection:
    """Returns the `Selection` of a run: by the metric that its config names, else by the problem's own.

    Args:
        problem: of the run.
        metric: the config's train.select_metric, "" for the problem's own.
    """
    if metric in ("", problem.select):
        return Selection(problem.select, problem.select_mode)
    return Selection(metric, "max" if metric in problem.higher_is_better else "min")
