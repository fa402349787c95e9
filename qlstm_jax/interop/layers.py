"""Params of a cell as a module of `qlstm_jax.nnx`: what other libraries' weights become when they are to be called."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar, overload

import jax
import jax.numpy as jnp
from flax import nnx

from qlstm_jax.cells import gru, lstm, rnn
from qlstm_jax.nnx import GRU, LSTM, GRUCell, LSTMCell, SimpleCell, SimpleRNN

Module = TypeVar("Module", bound=nnx.Module)
Params = TypeVar("Params")
Layers: TypeAlias = Params | Sequence[Params] | Sequence[tuple[Params, ...]]

LAYERS: dict[type, type[Any]] = {lstm.Params: LSTM, gru.Params: GRU, rnn.Params: SimpleRNN}
CELLS: dict[type, type[Any]] = {lstm.Params: LSTMCell, gru.Params: GRUCell, rnn.Params: SimpleCell}


@overload
def to_layer(params: Layers[lstm.Params], *, dropout: float = 0.0) -> LSTM: ...
@overload
def to_layer(params: Layers[gru.Params], *, dropout: float = 0.0) -> GRU: ...
@overload
def to_layer(params: Layers[rnn.Params], *, dropout: float = 0.0) -> SimpleRNN: ...
def to_layer(params: Any, *, dropout: float = 0.0) -> Any:
    """An `nnx.LSTM`, `nnx.GRU` or `nnx.SimpleRNN` with these params; the inverse is its `layer_params()`.

    Args:
        params: those of `qlstm_jax.cells.lstm`, `gru` or `rnn`: of one layer, a sequence of them from the bottom layer
            up, or of a bidirectional layer a sequence of tuples (forward, backward).
        dropout: rate between layers; its keys come with each call.

    Raises:
        ValueError: for params of other cells, or that are not all of one cell; for layers that do not fit each other.
    """
    layers = [(params,)] if type(params) in LAYERS else [p if isinstance(p, tuple) else (p,) for p in params]
    cell = type(layers[0][0]) if layers else None
    if cell not in LAYERS or {(len(layer), *map(type, layer)) for layer in layers} - {(1, cell), (2, cell, cell)}:
        cells = (" and ".join(type(p).__module__.removesuffix(".cell") for p in layer) for layer in layers)
        found = ", ".join(cells) or "none"
        raise ValueError(f"params are {found}; expected params of one cell, qlstm_jax.cells.lstm, gru or rnn, a layer")
    first, sizes = layers[0][0], [layer[0].input_kernel.shape[0] for layer in layers]
    hidden = first.recurrent_kernel.shape[0]
    expected = [sizes[0]] + [hidden * len(layers[0])] * (len(layers) - 1)
    given = [(len(layer), p.input_kernel.shape[0], p.recurrent_kernel.shape[0]) for layer in layers for p in layer]
    wanted = [(len(layers[0]), size, hidden) for layer, size in zip(layers, expected, strict=True) for _ in layer]
    if given != wanted:
        raise ValueError(f"the params are of (directions, inputs, hidden features) {given}; expected {wanted}")
    options = {"num_layers": len(layers), "bidirectional": len(layers[0]) == 2, "dropout": dropout, **_options(first)}
    tree = {"cells": _numbered([layer[0] for layer in layers])}
    if options["bidirectional"]:
        tree["backward_cells"] = _numbered([layer[1] for layer in layers])
    return _made(LAYERS[cell], tree, sizes[0], hidden, **options)


@overload
def to_cell(params: lstm.Params) -> LSTMCell: ...
@overload
def to_cell(params: gru.Params) -> GRUCell: ...
@overload
def to_cell(params: rnn.Params) -> SimpleCell: ...
def to_cell(params: Any) -> Any:
    """An `nnx.LSTMCell`, `nnx.GRUCell` or `nnx.SimpleCell` with these params; the inverse is its `params`.

    Raises:
        ValueError: for params of other cells.
    """
    if type(params) not in CELLS:
        raise ValueError(f"params are a {type(params)}; expected those of qlstm_jax.cells.lstm, gru or rnn")
    sizes = params.input_kernel.shape[0], params.recurrent_kernel.shape[0]
    return _made(CELLS[type(params)], _arrays(params), *sizes, **_options(params))


def _arrays(params: Any) -> dict[str, Any]:
    """The arrays of params by field, copied: no module shares its parameters with another."""
    return {path[0].name: jnp.array(a) for path, a in jax.tree_util.tree_leaves_with_path(params)}


def _options(params: Any) -> dict[str, Any]:
    """What params hold besides arrays, such as their dtype."""
    return {f.name: getattr(params, f.name) for f in dataclasses.fields(params) if f.metadata.get("static")}


def _numbered(params: Sequence[Any]) -> dict[int, dict[str, Any]]:
    return {n: _arrays(p) for n, p in enumerate(params)}


def _made(kind: type[Module], tree: Any, *sizes: int, **options: Any) -> Module:
    """A module with the parameters of `tree`; none is initialized."""
    build: Callable[..., Module] = kind
    module = nnx.eval_shape(lambda: build(*sizes, rngs=nnx.Rngs(params=0), **options))
    nnx.update(module, tree)
    return module
