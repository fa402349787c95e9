"""The names and arrays of a state dict of `torch.nn.LSTM`, `GRU` and `RNN`, for `qlstm_jax.interop.torch`."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Float
from numpy.typing import ArrayLike

from qlstm_jax.cells import gru, lstm, rnn
from qlstm_jax.interop import checks
from qlstm_jax.nnx import Layer

StateDict = dict[str, Float[np.ndarray, "..."]]


class Kind(NamedTuple):
    """A recurrent module of PyTorch."""

    name: str  # in torch.nn
    params: type[Any]
    gates: int


LSTM, GRU, RNN = Kind("LSTM", lstm.Params, 4), Kind("GRU", gru.Params, 3), Kind("RNN", rnn.Params, 1)


def _names(layer: int | None, reverse: bool, prefix: str) -> dict[str, str]:
    end = "" if layer is None else f"_l{layer}{'_reverse' if reverse else ''}"
    return {kind: f"{prefix}{kind}{end}" for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")}


def fields(
    kind: Kind,
    state_dict: Mapping[str, ArrayLike],
    layer: int | None,
    reverse: bool,
    prefix: str,
    param_dtype: DTypeLike | None,
) -> dict[str, Any]:
    """The arrays of the cell's Params from one layer and direction."""
    names = _names(layer, reverse, prefix)
    if names["weight_hr"] in state_dict:
        raise ValueError(f"{names['weight_hr']} belongs to an LSTM with proj_size; expected one without a projection")
    chosen = {name: state_dict[name] for name in names.values() if name in state_dict}
    d, h = checks.size(chosen, names["weight_ih"], 1), checks.size(chosen, names["weight_hh"], 1)
    rows = checks.times(kind.gates, h)
    expected: dict[str, checks.Shape] = {names["weight_ih"]: (rows, d), names["weight_hh"]: (rows, h)}
    biases = [names["bias_ih"], names["bias_hh"]]
    if any(name in chosen for name in biases):
        expected |= dict.fromkeys(biases, (rows,))
    source = f"a PyTorch {kind.name}Cell" if layer is None else f"layer {layer} of a PyTorch {kind.name}"
    hint = "" if names["weight_ih"] in chosen else _hint(state_dict)
    arrays = checks.checked(source, chosen, expected, hint)
    stored = arrays[names["weight_ih"]].dtype if param_dtype is None else jnp.dtype(param_dtype)

    # Summed before they are rounded to what is stored.
    wide = np.promote_types(stored, np.float32)
    zeros = np.zeros(arrays[names["weight_ih"]].shape[0])
    first, second = (arrays.get(name, zeros).astype(wide) for name in biases)
    result = {"input_kernel": arrays[names["weight_ih"]].T, "recurrent_kernel": arrays[names["weight_hh"]].T}
    if kind.params is gru.Params:
        result["recurrent_bias"] = second[2 * second.size // 3 :].copy()
        second[2 * second.size // 3 :] = 0
    result["bias"] = first + second
    return {name: jnp.array(a, stored) for name, a in result.items()}  # copies: a tensor may change in place


_PLACE = re.compile(r"(.*)weight_ih(?:_l(\d+)(_reverse)?)?", re.DOTALL)


def _found(state_dict: Mapping[str, ArrayLike]) -> list[tuple[str, int | None, bool]]:
    """(prefix, layer or None for a Cell, whether backward) of all recurrent weights in a state dict."""
    matches = [m for m in map(_PLACE.fullmatch, state_dict) if m]
    return [(m[1], None if m[2] is None else int(m[2]), m[3] is not None) for m in matches]


def _hint(state_dict: Mapping[str, ArrayLike]) -> str:
    """The end of a message: what could have been asked for."""
    found = _found(state_dict)
    parts = []
    for prefix in sorted({prefix for prefix, _, _ in found}):
        layers = {layer for start, layer, _ in found if start == prefix}
        numbers = sorted(n for n in layers if n is not None)
        parts += [f"prefix={prefix!r}, layer=None"] if None in layers else []
        parts += [f"prefix={prefix!r}, layer={', '.join(map(str, numbers))}"] if numbers else []
        parts[-1] += " with reverse" if any(start == prefix and back for start, _, back in found) else ""
    return f". What is there: {'; '.join(parts)}" if parts else ". No name there ends as weight_ih_l0 does"


def places(kind: Kind, state_dict: Mapping[str, ArrayLike], prefix: str) -> list[list[dict[str, Any]]]:
    """For each layer the arguments `layer` and `reverse` of its directions."""
    found = {(layer, back) for start, layer, back in _found(state_dict) if start == prefix and layer is not None}
    directions = (False, True) if any(back for _, back in found) else (False,)
    last = max((layer for layer, _ in found if layer is not None), default=0)
    return [[{"layer": n, "reverse": back} for back in directions] for n in range(last + 1)]


def state_dict(kind: Kind, weights: Any, layer: int | None, reverse: bool, prefix: str, bias: bool) -> StateDict:
    """The state dict of params or of a whole layer; arguments as of `qlstm_jax.interop.torch.lstm_to_torch`."""
    if not isinstance(weights, Layer):
        return _one(kind, weights, _names(layer, reverse, prefix), bias)
    if layer != 0 or reverse:
        name = type(weights).__name__
        raise ValueError(
            f"layer is {layer} and reverse {reverse}; leave both out, as all layers of an {name} are written"
        )
    result: StateDict = {}
    for n, directions in enumerate(weights.layer_params()):
        for back, params in enumerate(directions):
            result |= _one(kind, params, _names(n, bool(back), prefix), bias)
    return result


def _one(kind: Kind, params: Any, names: Mapping[str, str], bias: bool) -> StateDict:
    """One layer and direction."""
    if not isinstance(params, kind.params):
        cell = kind.params.__module__.removesuffix(".cell")
        raise ValueError(f"the weights are a {type(params)}; expected params or a layer of {cell}")
    arrays = {"weight_ih": params.input_kernel.T, "weight_hh": params.recurrent_kernel.T}
    first = np.asarray(params.bias)
    second = np.zeros_like(first)
    if kind.params is gru.Params:
        second[-params.recurrent_bias.shape[0] :] = params.recurrent_bias
    if bias:
        arrays |= {"bias_ih": first, "bias_hh": second}
    elif np.any(first) or np.any(second):
        raise ValueError(f"bias is False, but the bias for {names['bias_ih']} is not zero; expected bias=True")
    return {names[name]: checks.writable(a) for name, a in arrays.items()}
