"""The problems that runs learn: one module each, with its config section, checks, data, model and figures.

`PROBLEMS` registers them: their names in configs. A problem of your own is handed to `qlstm_jax.training.loop.train`.
"""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from qlstm_jax.problems.adding import AddingProblem
from qlstm_jax.problems.base import Problem
from qlstm_jax.problems.copying import CopyingProblem
from qlstm_jax.problems.digits import DigitsProblem
from qlstm_jax.problems.formal import FormalProblem
from qlstm_jax.problems.lm import LMProblem
from qlstm_jax.problems.mqar import MQARProblem
from qlstm_jax.problems.recall import RecallProblem
from qlstm_jax.problems.selective_copying import SelectiveCopyingProblem
from qlstm_jax.problems.series import SeriesProblem
from qlstm_jax.problems.text import TextProblem

PROBLEMS: dict[str, type[Problem]] = {
    problem.name: problem
    for problem in (
        FormalProblem,
        RecallProblem,
        MQARProblem,
        AddingProblem,
        CopyingProblem,
        SelectiveCopyingProblem,
        DigitsProblem,
        TextProblem,
        LMProblem,
        SeriesProblem,
    )
}


def make(config: ConfigDict, workdir: str | Path) -> Problem:
    """Makes the problem that a checked config names; `workdir` keeps what belongs to a run, such as a tokenizer."""
    kind: Any = PROBLEMS[config.problem]  # all that are registered are made like this
    problem: Problem = kind(config, workdir)
    return problem


__all__ = [
    "PROBLEMS",
    "AddingProblem",
    "CopyingProblem",
    "DigitsProblem",
    "FormalProblem",
    "LMProblem",
    "MQARProblem",
    "Problem",
    "RecallProblem",
    "SelectiveCopyingProblem",
    "SeriesProblem",
    "TextProblem",
    "make",
]
