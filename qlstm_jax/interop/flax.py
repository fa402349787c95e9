"""Weights from and to the parameter trees of Flax Linen's `OptimizedLSTMCell`, `GRUCell` and `SimpleCell`.

A tree is a nested mapping, `variables["params"]` of the cell. Flax names the input kernel of a gate i<gate>, the other
one h<gate>; here gates lie side by side in one array, in the same orientation (in, out).
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float
from numpy.typing import ArrayLike

from qlstm_jax.cells import gru, lstm, rnn
from qlstm_jax.interop import checks

Tree: TypeAlias = dict[str, dict[str, Array]]


def _read(cell: str, tree: Mapping[str, Any], gates: Sequence[str], biases: Sequence[str]) -> dict[str, Any]:
    """The tree as a mapping from "name/kind" to array, its names and shapes checked."""
    arrays: dict[str, ArrayLike] = {}
    for name, leaves in tree.items():
        for kind, array in leaves.items() if hasattr(leaves, "items") else [("", leaves)]:
            arrays[f"{name}/{kind}" if kind else name] = array
    d, h = checks.size(arrays, f"i{gates[0]}/kernel", 0), checks.size(arrays, f"h{gates[0]}/kernel", 1)
    expected: dict[str, checks.Shape] = {f"i{gate}/kernel": (d, h) for gate in gates}
    expected |= {f"h{gate}/kernel": (h, h) for gate in gates}
    expected |= {f"{name}/bias": (h,) for name in biases}
    return checks.checked(f"Flax's {cell}", arrays, expected)


def _concatenated(arrays: Mapping[str, ArrayLike], names: Sequence[str]) -> Float[Array, "..."]:
    return jnp.concatenate([jnp.asarray(arrays[name]) for name in names], axis=-1)


def _split(array: Float[Array, "..."], names: Sequence[str]) -> dict[str, Array]:
    """The inverse of `_concatenated`."""
    return dict(zip(names, jnp.split(array, len(names), axis=-1), strict=True))


def _kernels(arrays: Mapping[str, ArrayLike], gates: Sequence[str]) -> dict[str, Array]:
    return {
        "input_kernel": _concatenated(arrays, [f"i{gate}/kernel" for gate in gates]),
        "recurrent_kernel": _concatenated(arrays, [f"h{gate}/kernel" for gate in gates]),
    }


def _tree(params: lstm.Params | gru.Params | rnn.Params, gates: Sequence[str], biases: Mapping[str, Array]) -> Tree:
    """Flax's tree of the kernels in `params` and of `biases`, a mapping from module name to array."""
    tree: Tree = {}
    for module, kernel in (("i", params.input_kernel), ("h", params.recurrent_kernel)):
        for name, block in _split(kernel, [module + gate for gate in gates]).items():
            tree[name] = {"kernel": block}
    for name, bias in biases.items():
        tree[name]["bias"] = bias
    return tree


def lstm_from_flax(tree: Mapping[str, Any], *, dtype: DTypeLike = "float32") -> lstm.Params:
    """Parameters of `qlstm_jax.cells.lstm` from those of an `OptimizedLSTMCell` (or `LSTMCell`, the same tree).

    Args:
        tree: {"ii", "if", "ig", "io": {"kernel" (D, H)}, "hi", "hf", "hg", "ho": {"kernel" (H, H), "bias" (H,)}}.
        dtype: of the cell's activations and products.

    Raises:
        ValueError: that lists every name missing, unexpected or of another shape.
    """
    biases = ["hi", "hf", "hg", "ho"]
    arrays = _read("LSTM cell", tree, "ifgo", biases)
    bias = _concatenated(arrays, [f"{name}/bias" for name in biases])
    return lstm.Params(**_kernels(arrays, "ifgo"), bias=bias, dtype=jnp.dtype(dtype).name)


def lstm_to_flax(params: lstm.Params) -> Tree:
    """The inverse of `lstm_from_flax`."""
    return _tree(params, "ifgo", _split(params.bias, ["hi", "hf", "hg", "ho"]))


def gru_from_flax(tree: Mapping[str, Any], *, dtype: DTypeLike = "float32") -> gru.Params:
    """Parameters of `qlstm_jax.cells.gru` from those of a `GRUCell`.

    Args:
        tree: {"ir", "iz", "in": {"kernel" (D, H), "bias" (H,)}, "hr", "hz": {"kernel" (H, H)},
            "hn": {"kernel" (H, H), "bias" (H,)}}.
        dtype: of the cell's activations and products.

    Raises:
        ValueError: that lists every name missing, unexpected or of another shape.
    """
    arrays = _read("GRU cell", tree, "rzn", ["ir", "iz", "in", "hn"])
    return gru.Params(
        **_kernels(arrays, "rzn"),
        bias=_concatenated(arrays, [f"{name}/bias" for name in ("ir", "iz", "in")]),
        recurrent_bias=jnp.asarray(arrays["hn/bias"]),
        dtype=jnp.dtype(dtype).name,
    )


def gru_to_flax(params: gru.Params) -> Tree:
    """The inverse of `gru_from_flax`."""
    return _tree(params, "rzn", _split(params.bias, ["ir", "iz", "in"]) | {"hn": params.recurrent_bias})


def rnn_from_flax(tree: Mapping[str, Any], *, dtype: DTypeLike = "float32") -> rnn.Params:
    """Parameters of `qlstm_jax.cells.rnn` from those of a `SimpleCell`.

    Args:
        tree: {"i": {"kernel" (D, H), "bias" (H,)}, "h": {"kernel" (H, H)}}.
        dtype: of the cell's activations and products.

    Raises:
        ValueError: that lists every name missing, unexpected or of another shape.
    """
    arrays = _read("simple cell", tree, ("",), ["i"])
    return rnn.Params(**_kernels(arrays, ("",)), bias=jnp.asarray(arrays["i/bias"]), dtype=jnp.dtype(dtype).name)


def rnn_to_flax(params: rnn.Params) -> Tree:
    """The inverse of `rnn_from_flax`."""
    return _tree(params, ("",), {"i": params.bias})
