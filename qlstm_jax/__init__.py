"""Recurrent sequence models in JAX: QL-LSTM, PR-LSTM and the baselines that they are compared with.

    qlstm_jax.nnx      Flax NNX layers and cells        qlstm_jax.models    classifiers, language models, xLSTM
    qlstm_jax.linen    Flax Linen layers and cells      qlstm_jax.interop   weights from PyTorch, Haiku and Flax
    qlstm_jax.cells    cells as pure functions          qlstm_jax.data      formal languages, texts, series

Each is imported when it is first used. Training needs `pip install "qlstm_jax[train]"`, as do

    qlstm_jax.save(layer, "layer.safetensors")      any module of the library in one file
    layer = qlstm_jax.load("layer.safetensors")
    run = qlstm_jax.load_run("runs/reviews")        a trained run: run.predict(...), run.stream(), run.model
    qlstm_jax.export(run.model, "exported")         programs that run with JAX alone

Axis letters, the same everywhere:

    B  batch            H  hidden size             K  slots of a PR-LSTM stream
    T  time             N  heads, or children      L  block size
    D  input size       V  vocabulary              R  refinements

Batch-major: a sequence is (B, T, D), `seq_lengths` is (B,) int32, positions at or beyond a row's length are padding.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qlstm_jax import cells, data, interop, linen, models, nnx
    from qlstm_jax.saving import load, save

    export: Any  # of modules that import this package
    load_run: Any

__version__ = "0.2.0"

__all__ = ["__version__", "cells", "data", "export", "interop", "linen", "load", "load_run", "models", "nnx", "save"]

# By the modules that have them.
_FUNCTIONS = {"save": "saving", "load": "saving", "export": "exporting", "load_run": "training.trained"}


def __getattr__(name: str) -> Any:
    if name in _FUNCTIONS:
        return getattr(importlib.import_module(f"{__name__}.{_FUNCTIONS[name]}"), name)
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
