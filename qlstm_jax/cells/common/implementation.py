"""The option `implementation` of a cell: which program runs its `unroll`.

"scan" is the program of `recurrence`, which runs everywhere, and "auto", the default, is the scan. A cell may have
others, which want a certain device and may not have all arguments: they run when they are named.
"""

from collections.abc import Callable
from typing import Any

from qlstm_jax.cells.common.options import check_choice


def check_implementation(implementation: Any, *others: str) -> None:
    """Raises ValueError unless `implementation` is "auto", "scan" or one of the `others` that the cell has."""
    check_choice("implementation", implementation, ("auto", "scan", *others))


def choose(implementation: str, call: str, **refusals: Callable[[], str | None]) -> str:
    """The name of the program that runs a call: "scan" or one of `refusals`.

    Args:
        implementation: "auto", "scan" or the name of another program.
        call: what is to run, for the error, such as "lstm, xs (32, 100, 8)".
        refusals: of each program but the scan a function that gives a reason why it cannot run this call, such as
            "resets are given", or None if it can. Only that of the program that is named is called.

    Raises:
        ValueError: if there is no such program, or it cannot run the call.
    """
    check_implementation(implementation, *refusals)
    if implementation in ("auto", "scan"):
        return "scan"
    reason = refusals[implementation]()
    if reason is not None:
        raise ValueError(
            f"{call}: implementation is {implementation!r}, which cannot run this call: {reason}. Expected a call that "
            "it can run, or implementation='auto', the scan, which runs all."
        )
    return implementation
