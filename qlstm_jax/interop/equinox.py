"""Weights from and to the cells `LSTMCell` and `GRUCell` of Equinox, which keep kernels as (out, in).

Both sides order the gates i, f, g, o in an LSTM and r, z, n in a GRU. Equinox need not be installed:

    params = lstm_from_equinox(cell)
    arrays = lstm_to_equinox(params)
    cell = eqx.tree_at(lambda c: [getattr(c, name) for name in arrays], cell, list(arrays.values()))
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array

from qlstm_jax.cells import gru, lstm
from qlstm_jax.interop import checks


def lstm_from_equinox(cell: Any, *, dtype: DTypeLike = "float32") -> lstm.Params:
    """Parameters of `qlstm_jax.cells.lstm` from an `equinox.nn.LSTMCell`.

    Args:
        cell: the cell, or a mapping: weight_ih (4H, D), weight_hh (4H, H), bias (4H,). Made with use_bias=False its
            bias is None, which becomes zeros.
        dtype: of the cell's activations and products.

    Raises:
        ValueError: that lists every array missing or of another shape.
    """
    return lstm.Params(**_fields("an Equinox LSTMCell", cell, 4, {"bias": 4}), dtype=jnp.dtype(dtype).name)


def gru_from_equinox(cell: Any, *, dtype: DTypeLike = "float32") -> gru.Params:
    """Parameters of `qlstm_jax.cells.gru` from an `equinox.nn.GRUCell`: 3H, and bias_n (H,) beside bias.

    Arguments and errors are those of `lstm_from_equinox`.
    """
    return gru.Params(**_fields("an Equinox GRUCell", cell, 3, {"bias": 3, "bias_n": 1}), dtype=jnp.dtype(dtype).name)


def lstm_to_equinox(params: lstm.Params, *, bias: bool = True) -> dict[str, Array]:
    """The inverse of `lstm_from_equinox`: arrays by the cell's attributes, without a bias for use_bias=False.

    Raises:
        ValueError: with bias=False where a bias is not zero.
    """
    return _arrays(params, {"bias": params.bias}, bias)


def gru_to_equinox(params: gru.Params, *, bias: bool = True) -> dict[str, Array]:
    """The inverse of `gru_from_equinox`, as `lstm_to_equinox`."""
    return _arrays(params, {"bias": params.bias, "bias_n": params.recurrent_bias}, bias)


def _fields(source: str, cell: Any, gates: int, biases: Mapping[str, int]) -> dict[str, Any]:
    names = ["weight_ih", "weight_hh", *biases]
    given = cell if isinstance(cell, Mapping) else {n: getattr(cell, n) for n in names if hasattr(cell, n)}
    arrays = {name: a for name, a in given.items() if a is not None}
    d, h = checks.size(arrays, "weight_ih", 1), checks.size(arrays, "weight_hh", 1)
    expected: dict[str, checks.Shape] = {"weight_ih": (checks.times(gates, h), d)}
    expected["weight_hh"] = (checks.times(gates, h), h)
    if any(name in arrays for name in biases):
        expected |= {name: (checks.times(n, h),) for name, n in biases.items()}
    found = checks.checked(source, arrays, expected)
    kernel, recurrent = found["weight_ih"].T, found["weight_hh"].T
    result = {"input_kernel": kernel, "recurrent_kernel": recurrent}
    for name, n in biases.items():
        zeros = np.zeros(n * recurrent.shape[0], kernel.dtype)
        result["bias" if name == "bias" else "recurrent_bias"] = found.get(name, zeros)
    return {name: jnp.array(a) for name, a in result.items()}


def _arrays(params: lstm.Params | gru.Params, biases: Mapping[str, Array], bias: bool) -> dict[str, Array]:
    arrays = {"weight_ih": params.input_kernel.T, "weight_hh": params.recurrent_kernel.T}
    if bias:
        return {**arrays, **biases}
    for name, array in biases.items():
        if np.any(np.asarray(array)):
            raise ValueError(f"bias is False, but the array for {name} is not zero; expected bias=True")
    return arrays
