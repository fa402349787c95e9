"""Weights from and to the layers `LSTM`, `GRU` and `SimpleRNN` of Keras 3, or their cells; Keras need not be installed.

Weights are the arrays of `layer.weights` or `layer.get_weights()` in their order: kernel (D, G·H), recurrent_kernel
(H, G·H) and, with use_bias=True, bias. Keras orders the gates i, f, c, o in an LSTM, as here, and z, r, h in a GRU.

    params = lstm_from_keras(layer.weights, config=layer.get_config())
    layer.set_weights(lstm_to_keras(params))
    both = to_layer([(lstm_from_keras(w[:3]), lstm_from_keras(w[3:]))])     # w: the weights of a Bidirectional

A GRU made with reset_after=True, the default, is ours: its reset gate acts on the recurrent term, and its bias is
(2, 3H). With reset_after=False the gate acts on the state before the product, and the bias is (3H,): another cell,
which is refused.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Float
from numpy.typing import ArrayLike

from qlstm_jax.cells import gru, lstm, rnn
from qlstm_jax.interop import checks

Weights = list[Float[np.ndarray, "..."]]
_NAMES = "kernel", "recurrent_kernel", "bias"
_NOTHING: Mapping[str, Any] = {}


def lstm_from_keras(
    weights: Sequence[ArrayLike], *, config: Mapping[str, Any] = _NOTHING, dtype: DTypeLike = "float32"
) -> lstm.Params:
    """Parameters of `qlstm_jax.cells.lstm` from the weights of a Keras `LSTM`.

    Args:
        weights: kernel (D, 4H), recurrent_kernel (H, 4H) and bias (4H,), or without the bias, which is then zero.
        config: what `get_config()` of the layer gives, of which the weights have no record: its functions are checked.
        dtype: of the cell's activations and products.

    Raises:
        ValueError: that lists every array missing, unexpected or of another shape; for a function in the config other
            than activation "tanh" and recurrent_activation "sigmoid".
    """
    _check_config("LSTM", config, {"activation": "tanh", "recurrent_activation": "sigmoid"})
    w = _checked("LSTM", weights, 4)
    arrays: dict[str, Any] = {n: jnp.array(a) for n, a in _named(w).items()}
    return lstm.Params(**arrays, dtype=jnp.dtype(dtype).name)


def gru_from_keras(
    weights: Sequence[ArrayLike],
    *,
    reset_after: bool = True,
    config: Mapping[str, Any] = _NOTHING,
    dtype: DTypeLike = "float32",
) -> gru.Params:
    """Parameters of `qlstm_jax.cells.gru` from the weights of a Keras `GRU`.

    Args:
        weights: kernel (D, 3H), recurrent_kernel (H, 3H) and bias (2, 3H), or without the bias, which is then zero.
        reset_after: that of the layer, of which weights without a bias have no record; must be True.
        config: as of `lstm_from_keras`; its reset_after is checked too.
        dtype: of the cell's activations and products.

    Raises:
        ValueError: as `lstm_from_keras`; for a layer with reset_after=False.
    """
    if not config.get("reset_after", reset_after) or (len(weights) == 3 and np.ndim(weights[2]) == 1):
        raise ValueError(
            "the weights are of a GRU with reset_after=False, whose reset gate acts before the recurrent product; "
            "expected reset_after=True, the default of Keras, as qlstm_jax.cells.gru has no other"
        )
    _check_config("GRU", config, {"activation": "tanh", "recurrent_activation": "sigmoid"})
    w = _checked("GRU", weights, 3, rows=(2,))
    kernel, recurrent, bias = (_swapped(w[name]) for name in _NAMES)
    size = recurrent.shape[0]
    joined = bias[0] + np.concatenate([bias[1, : 2 * size], np.zeros(size, bias.dtype)])
    return gru.Params(
        input_kernel=jnp.array(kernel),
        recurrent_kernel=jnp.array(recurrent),
        bias=jnp.array(joined),
        recurrent_bias=jnp.array(bias[1, 2 * size :]),
        dtype=jnp.dtype(dtype).name,
    )


def rnn_from_keras(
    weights: Sequence[ArrayLike], *, config: Mapping[str, Any] = _NOTHING, dtype: DTypeLike = "float32"
) -> rnn.Params:
    """Parameters of `qlstm_jax.cells.rnn` from the weights of a Keras `SimpleRNN`, as `lstm_from_keras`."""
    _check_config("SimpleRNN", config, {"activation": "tanh"})
    w = _checked("SimpleRNN", weights, 1)
    return rnn.Params(**{n: jnp.array(a) for n, a in _named(w).items()}, dtype=jnp.dtype(dtype).name)


def lstm_to_keras(params: lstm.Params, *, bias: bool = True) -> Weights:
    """The inverse of `lstm_from_keras`: [kernel, recurrent_kernel, bias] for the layer's `set_weights`.

    Args:
        params: of `qlstm_jax.cells.lstm`.
        bias: whether the layer has one, its use_bias.

    Raises:
        ValueError: with bias=False where a bias is not zero.
    """
    return _weights([params.input_kernel, params.recurrent_kernel], params.bias, bias)


def gru_to_keras(params: gru.Params, *, bias: bool = True) -> Weights:
    """The inverse of `gru_from_keras`, as `lstm_to_keras`, for a layer with reset_after=True; the bias is (2, 3H)."""
    both = np.zeros((2, params.bias.shape[0]), params.bias.dtype)
    both[0] = params.bias
    both[1, -params.recurrent_bias.shape[0] :] = params.recurrent_bias
    kernels = [_swapped(np.asarray(a)) for a in (params.input_kernel, params.recurrent_kernel)]
    return _weights(kernels, _swapped(both), bias)


def rnn_to_keras(params: rnn.Params, *, bias: bool = True) -> Weights:
    """The inverse of `rnn_from_keras`, as `lstm_to_keras`."""
    return _weights([params.input_kernel, params.recurrent_kernel], params.bias, bias)


def _weights(kernels: Sequence[ArrayLike], bias: ArrayLike, wanted: bool) -> Weights:
    if not wanted and np.any(np.asarray(bias)):
        raise ValueError("bias is False, but the bias of the params is not zero; expected a layer with use_bias=True")
    return [np.array(a) for a in ([*kernels, bias] if wanted else kernels)]


def _swapped(array: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Gates z, r, h as r, z, n, or back."""
    z, r, n = np.split(array, 3, axis=-1)
    return np.concatenate([r, z, n], axis=-1)


def _named(w: Mapping[str, Float[np.ndarray, "..."]]) -> dict[str, Float[np.ndarray, "..."]]:
    return {"input_kernel": w["kernel"], "recurrent_kernel": w["recurrent_kernel"], "bias": w["bias"]}


def _checked(
    layer: str, weights: Sequence[ArrayLike], gates: int, rows: tuple[int, ...] = ()
) -> dict[str, Float[np.ndarray, "..."]]:
    """The arrays by Keras's names, with a bias of zeros where there is none."""
    names = [*_NAMES, *(f"array {n}" for n in range(3, len(weights)))]
    arrays = dict(zip(names, weights, strict=False))
    d, h = checks.size(arrays, "kernel", 0), checks.size(arrays, "recurrent_kernel", 0)
    wide = checks.times(gates, h)
    expected: dict[str, checks.Shape] = {"kernel": (d, wide), "recurrent_kernel": (h, wide)}
    expected |= {"bias": (*rows, wide)} if "bias" in arrays else {}
    found = checks.checked(f"a Keras {layer}", arrays, expected)
    kernel = found["kernel"]
    return {"bias": np.zeros((*rows, kernel.shape[1]), kernel.dtype)} | found


def _check_config(layer: str, config: Mapping[str, Any], expected: Mapping[str, str]) -> None:
    for name, value in expected.items():
        if config.get(name, value) != value:
            raise ValueError(f"{name} of the Keras {layer} is {config[name]!r}; expected {value!r}, as our cell has")
