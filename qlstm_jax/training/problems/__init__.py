"""What a run learns: a class for each section of `registry.SECTIONS`, with the methods of `base.Problem`."""

from qlstm_jax import registry
from qlstm_jax.training.problems.adding import AddingProblem
from qlstm_jax.training.problems.base import Problem
from qlstm_jax.training.problems.copying import CopyingProblem
from qlstm_jax.training.problems.digits import DigitsProblem
from qlstm_jax.training.problems.formal import FormalProblem
from qlstm_jax.training.problems.lm import LMProblem
from qlstm_jax.training.problems.mqar import MQARProblem
from qlstm_jax.training.problems.recall import RecallProblem
from qlstm_jax.training.problems.series import SeriesProblem
from qlstm_jax.training.problems.text import TextProblem

KINDS = {
    "adding": AddingProblem,
    "copy": CopyingProblem,
    "digits": DigitsProblem,
    "formal": FormalProblem,
    "lm": LMProblem,
    "mqar": MQARProblem,
    "recall": RecallProblem,
    "series": SeriesProblem,
    "text": TextProblem,
}


def make(config, workdir) -> Problem:
    """The problem that a checked config describes; `workdir` keeps what belongs to a run, such as a tokenizer."""
    return KINDS[registry.task_kind(config.task)](config, workdir)


__all__ = [
    "AddingProblem",
    "CopyingProblem",
    "DigitsProblem",
    "FormalProblem",
    "LMProblem",
    "MQARProblem",
    "Problem",
    "RecallProblem",
    "SeriesProblem",
    "TextProblem",
    "make",
]
