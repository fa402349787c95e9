"""Flax NNX modules over the cells: they own the parameters, the cells do the computing.

A cell (`LSTMCell`, `QLSTMCell`, ...) is one time step and works inside `flax.nnx.RNN`. A sequence layer (`LSTM`,
`QLSTM`, ...) is called as `flax.nnx.RNN` is, and reads whole sequences by the cell's own `unroll`, the fast way, in one
or more layers. Both take the options of the cell's `init` as keywords. Each parameter has the name of its field in the
cell's `Params`.

There is a layer and a cell for each line of `qlstm_jax.cells.CELLS`.
"""

from qlstm_jax.cells import CELLS
from qlstm_jax.describe import cell_class_name
from qlstm_jax.nnx import pr_lstm
from qlstm_jax.nnx.cells import Cell, cell_class
from qlstm_jax.nnx.layers import Layer, layer_class
from qlstm_jax.nnx.protocol import SequenceLayer

# The layers and cells that have more than the others.
_CELL_BASES = {"PRLSTM": pr_lstm.PRLSTMCell}
_LAYER_BASES = {"PRLSTM": pr_lstm.PRLSTM}

for _layer, _functions in CELLS.items():
    _cell = cell_class(_layer, _functions, _CELL_BASES.get(_layer, Cell))
    globals()[_cell.__name__] = _cell
    globals()[_layer] = layer_class(_layer, _cell, _LAYER_BASES.get(_layer, Layer))

LAYERS: dict[str, type[Layer]] = {_layer: globals()[_layer] for _layer in CELLS}  # by class name

__all__ = ["LAYERS", "Cell", "Layer", "SequenceLayer", *CELLS, *map(cell_class_name, CELLS)]
