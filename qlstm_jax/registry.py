"""Names to what they stand for, one table each for cells and tasks: what a config's words mean.

To add a cell: write it in qlstm_jax/cells, its layer in qlstm_jax/nnx/layers.py, and add one line to CELLS. Its options
and their defaults are read from the keywords of the cell's `init` and of the layer. What is no cell but has the frame
of a sequence layer may stand there too, as the Transformer and xLSTM's stack of blocks do.
"""

import difflib
import inspect

from ml_collections import ConfigDict

from qlstm_jax import nnx as layers
from qlstm_jax.data.formal import TASKS
from qlstm_jax.models.transformer import Transformer
from qlstm_jax.models.xlstm import XLSTM

CELLS = {
    "rnn": layers.SimpleRNN,
    "lstm": layers.LSTM,
    "gru": layers.GRU,
    "ql_lstm": layers.QLSTM,
    "pr_lstm": layers.PRLSTM,
    "slstm": layers.SLSTM,
    "mlstm": layers.MLSTM,
    "xlstm": XLSTM,
    "transformer": Transformer,
}
SECTIONS = ("formal", "recall", "mqar", "adding", "copy", "digits", "text", "lm", "series")  # of a config, one a task
COMMON = ("num_layers", "bidirectional", "dropout", "variational", "dtype", "param_dtype", "rngs")
COMMON += ("kernel_metadata", "recurrent_kernel_metadata", "bias_metadata")


def cell_options() -> dict[str, ConfigDict]:
    """For each cell that has options of its own, their defaults; one whose default is None is not for configs."""
    result = {}
    for name, layer in CELLS.items():
        keywords = inspect.signature(layer if issubclass(layer, layers.Layer) else layer.__init__).parameters.values()
        options = {p.name: p.default for p in keywords if p.kind is p.KEYWORD_ONLY and p.name not in COMMON}
        options = {option: default for option, default in options.items() if default is not None}
        if options:
            result[name] = ConfigDict(options)
    return result


def build_layer(model, in_features: int, *, rngs):
    """The sequence layer that a config's `model` section describes, reading `in_features` channels."""
    options = dict(model[model.cell]) if model.cell in model else {}
    if issubclass(CELLS[model.cell], layers.Layer):
        options["variational"] = model.variational
    # A recurrent layer's dropout acts between layers, the Transformer's within each.
    drops = model.num_layers > 1 or CELLS[model.cell] is Transformer
    return CELLS[model.cell](
        in_features,
        model.hidden_size,
        num_layers=model.num_layers,
        bidirectional=model.bidirectional,
        dropout=model.dropout if drops else 0.0,
        dtype=model.dtype,
        rngs=rngs,
        **options,
    )


def task_names() -> list[str]:
    """All tasks."""
    return [*TASKS, *SECTIONS[1:]]


def task_kind(name: str) -> str:
    """The section of a config that describes a task: one of `SECTIONS`."""
    return "formal" if name in TASKS else name


def nearest(given, names) -> str:
    """A hint for an error: the nearest of `names`, or all of them."""
    names = [str(n) for n in names]
    close = difflib.get_close_matches(str(given), names, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}expected one of {', '.join(names)}"
