"""The fifteen tasks of Neural Networks and the Chomsky Hierarchy (Deletang et al., arXiv 2207.02098).

Strings are drawn and labelled on the device, whole batches at a time.

Example:
    >>> import jax
    >>> from qlstm_jax.data.formal import TASKS
    >>> task = TASKS["reverse_string"]
    >>> batch = task.sample(jax.random.key(0), 128, 40)
    >>> xs, total_lengths = task.frame(batch)
    >>> xs.shape
    (128, 80, 3)
"""

from qlstm_jax.data.formal.base import Batch, FormalTask
from qlstm_jax.data.formal.binary import BinaryAddition, BinaryMultiplication, ComputeSqrt
from qlstm_jax.data.formal.context_free import (
    ModularArithmeticBrackets,
    ReverseString,
    SolveEquation,
    StackManipulation,
)
from qlstm_jax.data.formal.context_sensitive import (
    BucketSort,
    DuplicateString,
    MissingDuplicateString,
    OddsFirst,
)
from qlstm_jax.data.formal.regular import CycleNavigation, EvenPairs, ModularArithmetic, ParityCheck

TASKS: dict[str, FormalTask] = {
    task.name: task
    for task in (
        EvenPairs(),
        ParityCheck(),
        ModularArithmetic(),
        CycleNavigation(),
        ModularArithmeticBrackets(),
        SolveEquation(),
        StackManipulation(),
        ReverseString(),
        DuplicateString(),
        MissingDuplicateString(),
        OddsFirst(),
        BinaryAddition(),
        BinaryMultiplication(),
        ComputeSqrt(),
        BucketSort(),
    )
}

__all__ = ["TASKS", "Batch", "FormalTask"]
