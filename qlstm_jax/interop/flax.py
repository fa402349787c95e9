"""Weights from and to the cells of Flax, Linen and NNX: `OptimizedLSTMCell`, `LSTMCell`, `GRUCell` and `SimpleCell`.

A tree is a nested mapping: `variables["params"]` of a Linen cell, `nnx.state(cell)` of an NNX cell, or that cell.
Kernels are (in, out) on both sides; i<gate> is Flax's input kernel of a gate, h<gate> its recurrent one. Here gates lie
side by side in one array. Flax has three forms:

    "linen"          all four cells of Linen, a kernel for each gate
    "nnx"            NNX's LSTMCell: the same with `if_` for `if`, which Python does not allow as an attribute
    "nnx_fused"      NNX's OptimizedLSTMCell, GRUCell and SimpleCell: `dense_i` and `dense_h`, gates side by side

NNX's GRUCell has no bias b_n of the recurrent term, which Linen's has.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.core import meta
from jax.typing import DTypeLike
from jaxtyping import Array

from qlstm_jax.cells import common, gru, lstm, rnn
from qlstm_jax.interop import checks

Tree: TypeAlias = dict[str, dict[str, Array]]
Source: TypeAlias = Mapping[str, Any] | nnx.Module


class _Kind(NamedTuple):
    name: str
    gates: Sequence[str]
    biases: Sequence[str]  # Linen's modules that have a bias, in the order of ours, which is of all gates
    fused_bias: str  # the module of NNX's fused form that has it
    forms: Sequence[str]


LSTM = _Kind("LSTM cell", ["i", "f", "g", "o"], ["hi", "hf", "hg", "ho"], "dense_h", ("linen", "nnx", "nnx_fused"))
GRU = _Kind("GRU cell", ["r", "z", "n"], ["ir", "iz", "in"], "dense_i", ("linen", "nnx_fused"))
RNN = _Kind("simple cell", [""], ["i"], "dense_i", ("linen", "nnx_fused"))


def lstm_from_flax(tree: Source, *, dtype: DTypeLike = "float32") -> lstm.Params:
    """Parameters of `qlstm_jax.cells.lstm` from those of an `OptimizedLSTMCell` or `LSTMCell`.

    Args:
        tree: of Linen, {"ii", "if", "ig", "io": {"kernel" (D, H)}, "hi", "hf", "hg", "ho": {"kernel" (H, H), "bias"
            (H,)}}; of NNX, the cell, its state or that as a dict.
        dtype: of the cell's activations and products.

    Raises:
        ValueError: that lists every name missing, unexpected or of another shape; for an NNX cell with other functions
            than the default sigmoid and tanh.
    """
    return lstm.Params(**_fields(LSTM, tree), dtype=jnp.dtype(dtype).name)


def lstm_to_flax(params: lstm.Params, *, form: str = "linen") -> Tree:
    """The inverse of `lstm_from_flax`: a Linen tree, or one for `nnx.update(cell, tree)`.

    Args:
        params: of `qlstm_jax.cells.lstm`.
        form: "linen", "nnx" for NNX's `LSTMCell` or "nnx_fused" for its `OptimizedLSTMCell`.

    Raises:
        ValueError: for another form.
    """
    return _tree(LSTM, params, form)


def gru_from_flax(tree: Source, *, dtype: DTypeLike = "float32") -> gru.Params:
    """Parameters of `qlstm_jax.cells.gru` from those of a `GRUCell`.

    Args:
        tree: of Linen, {"ir", "iz", "in": {"kernel" (D, H), "bias" (H,)}, "hr", "hz": {"kernel" (H, H)},
            "hn": {"kernel" (H, H), "bias" (H,)}}; of NNX, the cell, its state or that as a dict.
        dtype: of the cell's activations and products.

    Raises:
        ValueError: as `lstm_from_flax`.
    """
    return gru.Params(**_fields(GRU, tree), dtype=jnp.dtype(dtype).name)


def gru_to_flax(params: gru.Params, *, form: str = "linen") -> Tree:
    """The inverse of `gru_from_flax`; form "linen", or "nnx_fused" for NNX's `GRUCell`.

    Raises:
        ValueError: for another form; for NNX where b_n is not zero.
    """
    if form == "nnx_fused" and np.any(np.asarray(params.recurrent_bias)):
        raise ValueError("recurrent_bias is not zero, and the GRUCell of NNX has no such bias; Linen's has it")
    return _tree(GRU, params, form)


def rnn_from_flax(tree: Source, *, dtype: DTypeLike = "float32") -> rnn.Params:
    """Parameters of `qlstm_jax.cells.rnn` from those of a `SimpleCell`.

    Args:
        tree: of Linen, {"i": {"kernel" (D, H), "bias" (H,)}, "h": {"kernel" (H, H)}}; of NNX, the cell, its state or
            that as a dict.
        dtype: of the cell's activations and products.

    Raises:
        ValueError: as `lstm_from_flax`; for an NNX cell with residual=True.
    """
    return rnn.Params(**_fields(RNN, tree), dtype=jnp.dtype(dtype).name)


def rnn_to_flax(params: rnn.Params, *, form: str = "linen") -> Tree:
    """The inverse of `rnn_from_flax`; form "linen", or "nnx_fused" for NNX's `SimpleCell`.

    Raises:
        ValueError: for another form.
    """
    return _tree(RNN, params, form)


def _fields(kind: _Kind, source: Source) -> dict[str, Any]:
    """The arrays of our Params, the names and shapes of theirs checked."""
    arrays = _flat(source)
    if any(name.startswith("dense_") for name in arrays):
        return _fused_fields(kind, arrays)
    form = "nnx" if any(name.startswith("if_/") for name in arrays) and "nnx" in kind.forms else "linen"
    inputs, recurrent = ([_attribute(part + gate, form) for gate in kind.gates] for part in "ih")
    biases = [*kind.biases, "hn"] if kind is GRU else kind.biases
    d, h = checks.size(arrays, f"{inputs[0]}/kernel", 0), checks.size(arrays, f"{recurrent[0]}/kernel", 1)
    expected: dict[str, checks.Shape] = {f"{name}/kernel": (d, h) for name in inputs}
    expected |= {f"{name}/kernel": (h, h) for name in recurrent} | {f"{name}/bias": (h,) for name in biases}
    found = checks.checked(f"Flax's {kind.name}", arrays, expected)

    def together(names: Sequence[str], leaf: str) -> Array:
        return jnp.array(np.concatenate([found[f"{name}/{leaf}"] for name in names], axis=-1))

    fields = {"input_kernel": together(inputs, "kernel"), "recurrent_kernel": together(recurrent, "kernel")}
    fields["bias"] = together(kind.biases, "bias")
    return fields | ({"recurrent_bias": together(["hn"], "bias")} if kind is GRU else {})


def _fused_fields(kind: _Kind, arrays: Mapping[str, Any]) -> dict[str, Array]:
    d, h = checks.size(arrays, "dense_i/kernel", 0), checks.size(arrays, "dense_h/kernel", 0)
    gates, bias = checks.times(len(kind.gates), h), f"{kind.fused_bias}/bias"
    expected: dict[str, checks.Shape] = {"dense_i/kernel": (d, gates), "dense_h/kernel": (h, gates), bias: (gates,)}
    found = checks.checked(f"Flax's {kind.name} of NNX", arrays, expected)
    names = {"input_kernel": "dense_i/kernel", "recurrent_kernel": "dense_h/kernel", "bias": bias}
    fields = {ours: jnp.array(found[theirs]) for ours, theirs in names.items()}
    no_bias = {"recurrent_bias": jnp.zeros_like(fields["bias"], shape=fields["recurrent_kernel"].shape[:1])}
    return fields | (no_bias if kind is GRU else {})


def _attribute(name: str, form: str) -> str:
    return "if_" if form == "nnx" and name == "if" else name


def _flat(source: Source) -> dict[str, Any]:
    """The tree as a mapping from "name/leaf" to array."""
    if isinstance(source, nnx.Module):
        _check_functions(source)
        source = nnx.state(source, nnx.Param)
    tree = nnx.to_pure_dict(source) if isinstance(source, nnx.State) else meta.unbox(dict(source))
    arrays = {}
    for name, leaves in tree.items():
        for leaf, array in leaves.items() if hasattr(leaves, "items") else [("", leaves)]:
            arrays[f"{name}/{leaf}" if leaf else name] = array
    return arrays


def _check_functions(cell: nnx.Module) -> None:
    """Raises ValueError for options of an NNX cell that ours lack; a state or a Linen tree has no record of them."""
    defaults = {"gate_fn": nnx.sigmoid, "activation_fn": nnx.tanh, "residual": False}
    for name, default in defaults.items():
        value = getattr(cell, name, default)
        if value is not default:
            given, expected = (getattr(v, "__name__", v) for v in (value, default))
            raise ValueError(f"{name} of the {type(cell).__name__} is {given}; expected {expected}")


def _tree(kind: _Kind, params: Any, form: str) -> Tree:
    """Flax's tree of params, in one of its forms."""
    common.check_choice("form", form, kind.forms)
    if form == "nnx_fused":
        tree = {"dense_i": {"kernel": params.input_kernel}, "dense_h": {"kernel": params.recurrent_kernel}}
        tree[kind.fused_bias]["bias"] = params.bias
        return tree
    tree = {}
    for part, kernel in (("i", params.input_kernel), ("h", params.recurrent_kernel)):
        for gate, block in zip(kind.gates, jnp.split(kernel, len(kind.gates), axis=-1), strict=True):
            tree[_attribute(part + gate, form)] = {"kernel": block}
    for name, block in zip(kind.biases, jnp.split(params.bias, len(kind.biases)), strict=True):
        tree[name]["bias"] = block
    if kind is GRU:
        tree["hn"]["bias"] = params.recurrent_bias
    return tree
