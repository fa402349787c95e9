"""Sequence layers by their names in configs, and how a config's `model` section describes one.

Every cell of `qlstm_jax.cells.CELLS` has a layer here by the name of its module. The Transformer and xLSTM's stack of
blocks, which are called as sequence layers, are here too. Options and their defaults are read from the signature of the
class.
"""

import inspect
from typing import Any, Protocol, runtime_checkable

from flax import nnx

from qlstm_jax.describe import config_name
from qlstm_jax.models.transformer import Transformer
from qlstm_jax.models.xlstm import XLSTM
from qlstm_jax.nnx import LAYERS, Layer, SequenceLayer

LAYER_CLASSES: dict[str, type[Any]] = {config_name(layer.functions): layer for layer in LAYERS.values()}
LAYER_CLASSES |= {"xlstm": XLSTM, "transformer": Transformer}

# Keywords that are no options of a kind of layer: they have keys of their own in a config, or none.
COMMON: tuple[str, ...] = (
    "in_features",
    "hidden_features",
    "num_layers",
    "bidirectional",
    "dropout",
    "variational",
    "rngs",
)
COMMON += ("dtype", "param_dtype", "kernel_metadata", "recurrent_kernel_metadata", "bias_metadata")


@runtime_checkable
class ModelSection(Protocol):
    """The keys of a config's `model` section that are read here, besides the options for each kind of layer."""

    cell: str
    hidden_size: int
    num_layers: int
    bidirectional: bool
    dropout: float
    variational: bool
    dtype: str
    remat: str

    def __getitem__(self, cell: str) -> Any:
        """The options of a kind of layer."""

    def __contains__(self, cell: str) -> bool:
        """Whether a kind of layer has options."""


def signature(layer: type[Any]) -> inspect.Signature:
    """The keywords of a layer's class; Flax's metaclass hides those of a class that has not its own signature."""
    return inspect.signature(layer if issubclass(layer, Layer) else layer.__init__)


def layer_options() -> dict[str, dict[str, Any]]:
    """For each layer that has options of its own, their defaults; one whose default is None is not for configs."""
    result = {}
    for name, layer in LAYER_CLASSES.items():
        parameters = signature(layer).parameters.values()
        options = {p.name: p.default for p in parameters if p.name != "self" and p.name not in COMMON}
        options = {option: default for option, default in options.items() if default is not None}
        if options:
            result[name] = options
    return result


def build_layer(model: ModelSection, in_features: int, *, rngs: nnx.Rngs) -> SequenceLayer:
    """The sequence layer that a config's `model` section describes, reading `in_features` features."""
    layer = LAYER_CLASSES[model.cell]
    options = dict(model[model.cell]) if model.cell in model else {}
    known = signature(layer).parameters
    if "variational" in known:
        options["variational"] = model.variational
    # The dropout of a stack of cells acts between layers, that of the others within each block.
    drops = model.num_layers > 1 or not issubclass(layer, Layer)
    built: SequenceLayer = layer(
        in_features,
        model.hidden_size,
        num_layers=model.num_layers,
        bidirectional=model.bidirectional,
        dropout=model.dropout if drops else 0.0,
        dtype=model.dtype,
        rngs=rngs,
        **options,
    )
    if model.remat != "none" and isinstance(built, Layer):
        built.remat = model.remat
    return built
