"""PR-LSTM and PR-RNN weights from the authors' Haiku code (github.com/tristangaudreault/pr-lstm)."""

import re
from collections.abc import Iterable, Mapping

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from numpy.typing import ArrayLike

from qlstm_jax.cells import pr_lstm
from qlstm_jax.interop import checks

_LEAF = "~get_elems/linear"
_CELL = re.compile(r"~get_cell/nary_(lstm|rnn)(?:_([1-9]\d*))?/linear/[wb]")


def pr_lstm_from_haiku(flat: Mapping[str, ArrayLike], *, dtype: DTypeLike = "float32") -> pr_lstm.Params:
    """Parameters of `qlstm_jax.cells.pr_lstm` from the official ones.

    Haiku numbers the modules of one class as they are made, so nary_lstm is the binary cell and nary_lstm_1,
    nary_lstm_2, ... are the refinements. Both sides order the gates i, g, o, f_1, f_2 and keep kernels as (in, out).

    Args:
        flat: mapping from name to array, the names being Haiku's paths joined with slashes, as in
            "parallel_recursive/~get_cell/nary_lstm/linear/w". What comes before "~get_" may be anything, but is the
            same for all. Weights of other modules, such as a readout, are left out by the caller.
        dtype: of the cell's activations and products.

    Returns:
        Params with as many refinements as there are unary cells, and cell "lstm" or "rnn" as the names say.

    Raises:
        ValueError: that lists every name missing, unexpected or of another shape.
    """
    start = _common_start(flat)
    found = [m for m in (_CELL.fullmatch(name[len(start) :]) for name in flat if name.startswith(start)) if m]
    cell = "rnn" if any(m[1] == "rnn" for m in found) and not any(m[1] == "lstm" for m in found) else "lstm"
    refinements = max((int(m[2] or 0) for m in found if m[1] == cell), default=0)
    leaf, merge, refine = (3, 5, 4) if cell == "lstm" else (1, 1, 1)
    names = [start + _LEAF] + [
        f"{start}~get_cell/nary_{cell}{f'_{r}' if r else ''}/linear" for r in range(refinements + 1)
    ]

    d, h = checks.size(flat, f"{names[0]}/w", 0), checks.size(flat, f"{names[0]}/w", -1, leaf)
    h = checks.size(flat, f"{names[1]}/w", -1, merge) if h is None else h
    fan_in, gates = [d, checks.times(2, h)] + [h] * refinements, [leaf, merge] + [refine] * refinements
    expected: dict[str, checks.Shape] = {}
    for name, rows, blocks in zip(names, fan_in, gates, strict=True):
        expected[f"{name}/w"] = (rows, checks.times(blocks, h))
        expected[f"{name}/b"] = (checks.times(blocks, h),)
    arrays = checks.checked(f"a PR-{cell.upper()} with {refinements} refinements in Haiku", flat, expected)

    kernels, biases = ([arrays[f"{name}/{kind}"] for name in names] for kind in "wb")
    size = kernels[1].shape[1] // merge
    return pr_lstm.Params(
        leaf_kernel=jnp.array(kernels[0]),
        leaf_bias=jnp.array(biases[0]),
        merge_kernel=jnp.array(kernels[1]),
        merge_bias=jnp.array(biases[1]),
        refine_kernel=jnp.array(np.reshape(kernels[2:], (refinements, size, refine * size)), kernels[1].dtype),
        refine_bias=jnp.array(np.reshape(biases[2:], (refinements, refine * size)), biases[1].dtype),
        cell=cell,
        dtype=jnp.dtype(dtype).name,
    )


def _common_start(names: Iterable[str]) -> str:
    """The part before "~get_" of the first name that has it; names that start otherwise are found unexpected."""
    starts = sorted(name[: name.index("~get_")] for name in names if "~get_" in name)
    return starts[0] if starts else ""
