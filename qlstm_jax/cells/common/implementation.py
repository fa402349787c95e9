"""The option `implementation` of a cell: which program runs its `unroll`.

"scan" is the program of `recurrence`, which runs everywhere. A cell may have others by name, which want a certain
device and may not have all arguments. "auto" takes the first of them that can run a call, else the scan.

What "auto" takes depends on the machine, and the outputs do not say: so each choice is told to Python's `logging` at
level DEBUG, as the call is traced. It is the one log below `training`.
"""

import logging
from collections.abc import Callable
from typing import Any

from qlstm_jax.cells.common.options import check_choice

_log = logging.getLogger(__name__)


def check_implementation(implementation: Any, *others: str) -> None:
    """Raises ValueError unless `implementation` is "auto", "scan" or one of the `others` that the cell has."""
    check_choice("implementation", implementation, ("auto", "scan", *others))


def choose(implementation: str, call: str, **refusals: Callable[[], str | None]) -> str:
    """The name of the program that runs a call: "scan" or one of `refusals`.

    Args:
        implementation: "auto" or the name of a program.
        call: what is to run, for the log, such as "lstm, xs (32, 100, 8)".
        refusals: of each program but the scan, the one to prefer first, a function that gives a reason why it cannot
            run this call, such as "resets are given", or None if it can. Only those that matter are called.

    Raises:
        ValueError: if the program that is named cannot run the call.
    """
    reasons = []
    for name, refusal in refusals.items():
        if implementation not in ("auto", name):
            continue
        reason = refusal()
        if reason is None:
            _log.debug("%s: %s", call, name)
            return name
        if implementation == name:
            raise ValueError(
                f"implementation is {name!r}, which cannot run this call: {reason}. Expected a call that it can run, "
                "or implementation='auto', which takes what can."
            )
        reasons.append(f"; not {name}: {reason}")
    _log.debug("%s: scan%s", call, "".join(reasons))
    return "scan"
