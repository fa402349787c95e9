"""What a run learns: a class each for formal languages, recall, MQAR, text and language modelling, with the methods of
`base.Problem`.
"""

from qlstm_jax import registry
from qlstm_jax.training.problems.base import Problem
from qlstm_jax.training.problems.formal import FormalProblem
from qlstm_jax.training.problems.lm import LMProblem
from qlstm_jax.training.problems.mqar import MQARProblem
from qlstm_jax.training.problems.recall import RecallProblem
from qlstm_jax.training.problems.text import TextProblem

KINDS = {
    "formal": FormalProblem,
    "lm": LMProblem,
    "mqar": MQARProblem,
    "recall": RecallProblem,
    "text": TextProblem,
}


def make(config, workdir) -> Problem:
    """The problem that a checked config describes; `workdir` keeps what belongs to a run, such as a tokenizer."""
    return KINDS[registry.task_kind(config.task)](config, workdir)


__all__ = ["FormalProblem", "LMProblem", "MQARProblem", "Problem", "RecallProblem", "TextProblem", "make"]
