"""LSTM weights from and to PyTorch's `torch.nn.LSTM`, which keeps kernels as (out, in) and two biases.

Both sides order the gates i, f, g, o.
"""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Float
from numpy.typing import ArrayLike

from qlstm_jax.cells import lstm
from qlstm_jax.interop import checks


def _names(layer: int, reverse: bool, prefix: str) -> dict[str, str]:
    end = f"_l{layer}{'_reverse' if reverse else ''}"
    kinds = "weight_ih", "weight_hh", "bias_ih", "bias_hh"
    return {kind: f"{prefix}{kind}{end}" for kind in kinds} | {"weight_hr": f"{prefix}weight_hr{end}"}


def lstm_from_torch(
    state_dict: Mapping[str, ArrayLike],
    *,
    layer: int = 0,
    reverse: bool = False,
    prefix: str = "",
    dtype: DTypeLike = "float32",
) -> lstm.Params:
    """Parameters of `qlstm_jax.cells.lstm` from one layer and direction of a `torch.nn.LSTM`.

    W = weight_ih^T,  U = weight_hh^T,  b = bias_ih + bias_hh

    Args:
        state_dict: mapping from name to array: weight_ih_l0 (4H, D), weight_hh_l0 (4H, H), bias_ih_l0 and bias_hh_l0
            (4H,). A layer made with bias=False has neither bias and gets zeros. Other names are ignored, as a model has
            more than one layer.
        layer: which layer.
        reverse: whether its backward direction is meant.
        prefix: the beginning of each name, "encoder." for instance.
        dtype: of the cell's activations and products.

    Returns:
        lstm.Params.

    Raises:
        ValueError: that lists every name missing or of another shape; for one with proj_size, which this cell lacks.
    """
    names = _names(layer, reverse, prefix)
    if names["weight_hr"] in state_dict:
        raise ValueError(f"{names['weight_hr']} belongs to an LSTM with proj_size; expected one without a projection")
    chosen = {name: state_dict[name] for name in names.values() if name in state_dict}
    d, h = checks.size(chosen, names["weight_ih"], 1), checks.size(chosen, names["weight_hh"], 1)
    gates = checks.times(4, h)
    expected: dict[str, checks.Shape] = {names["weight_ih"]: (gates, d), names["weight_hh"]: (gates, h)}
    biases = [names["bias_ih"], names["bias_hh"]]
    if any(name in chosen for name in biases):
        expected |= dict.fromkeys(biases, (gates,))
    checks.check_arrays(f"layer {layer} of a PyTorch LSTM", chosen, expected)

    arrays = {name: np.asarray(a) for name, a in chosen.items()}
    input_kernel = arrays[names["weight_ih"]].T
    bias = sum((arrays[name] for name in biases if name in arrays), np.zeros(input_kernel.shape[1], input_kernel.dtype))
    return lstm.Params(
        input_kernel=jnp.asarray(input_kernel),
        recurrent_kernel=jnp.asarray(arrays[names["weight_hh"]].T),
        bias=jnp.asarray(bias),
        dtype=jnp.dtype(dtype).name,
    )


def lstm_to_torch(
    params: lstm.Params, *, layer: int = 0, reverse: bool = False, prefix: str = ""
) -> dict[str, Float[np.ndarray, "..."]]:
    """The inverse of `lstm_from_torch`: a mapping from PyTorch's names to numpy arrays.

    The cell has one bias where PyTorch adds two: bias_ih gets it and bias_hh is zero.
    """
    names = _names(layer, reverse, prefix)
    bias = np.asarray(params.bias)
    return {
        names["weight_ih"]: np.asarray(params.input_kernel).T,
        names["weight_hh"]: np.asarray(params.recurrent_kernel).T,
        names["bias_ih"]: bias,
        names["bias_hh"]: np.zeros_like(bias),
    }
