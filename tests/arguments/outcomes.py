"""A call of a public function with drawn arguments, and what comes of it."""

import dataclasses
import linecache
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import qlstm_jax

PACKAGE = str(pathlib.Path(qlstm_jax.__file__).parent)
NUMBERS, OURS = "numbers for meaningful arguments", "an error of ours for meaningless ones"
REFUSED = "meaningful arguments refused"
FOREIGN = "an error raised elsewhere, or of many lines"
SILENT = "numbers for meaningless arguments"
NOT_FINITE = "NaN or infinity for meaningful arguments"
GOOD, FAULTS = (NUMBERS, OURS), (REFUSED, FOREIGN, SILENT, NOT_FINITE)


@dataclasses.dataclass(frozen=True)
class Call:
    """A public function, how to draw meaningful arguments for it, and what is meaningless for each.

    Attributes:
        name: of the function, with its room first.
        function: takes the drawn arguments by name.
        draw: (rng) -> meaningful arguments by name.
        meaningless: (arguments) -> by name, values that are meaningless in place of the drawn ones.
        traced: whether it can also be traced, the arguments being constants.
    """

    name: str
    function: Callable[..., Any]
    draw: Callable[[np.random.Generator], dict[str, Any]]
    meaningless: Callable[[dict[str, Any]], dict[str, Any]]
    traced: bool = False

    def arguments(self, rng):
        """(arguments, the names of those that are meaningless)."""
        arguments = dict(self.draw(rng))
        if rng.random() < 0.25:
            return arguments, ()
        wrong = {name: values for name, values in self.meaningless(arguments).items() if len(values)}
        chosen = rng.choice(sorted(wrong), size=1 if rng.random() < 0.8 or len(wrong) < 2 else 2, replace=False)
        for name in chosen:
            arguments[str(name)] = wrong[name][rng.integers(len(wrong[name]))]
        return arguments, tuple(map(str, chosen))


def outcome(call, arguments, wrong, *, traced):
    """(which of `GOOD` and `FAULTS`, the error if one was raised)."""
    try:
        if traced:
            result = jax.eval_shape(lambda: call.function(**arguments))
        else:
            result = call.function(**arguments)
    except Exception as error:
        return _of_error(error, wrong), error
    if wrong:
        return SILENT, None
    return (NUMBERS if traced or _finite(result) else NOT_FINITE), None


def _of_error(error, wrong):
    if not _is_ours(error):
        return FOREIGN
    return OURS if wrong else REFUSED


def _is_ours(error):
    """Whether the package itself has raised it, in one line."""
    if not isinstance(error, ValueError | TypeError) or not str(error) or "\n" in str(error):
        return False
    place = error.__traceback__
    while place.tb_next is not None:
        place = place.tb_next
    file = place.tb_frame.f_code.co_filename
    return file.startswith(PACKAGE) and linecache.getline(file, place.tb_lineno).lstrip().startswith("raise")


def _finite(result):
    arrays = [a for a in jax.tree.leaves(result) if isinstance(a, jax.Array | np.ndarray)]
    inexact = [np.asarray(a, np.float32) for a in arrays if jnp.issubdtype(a.dtype, jnp.inexact)]
    return all(np.all(np.isfinite(a)) for a in inexact)
