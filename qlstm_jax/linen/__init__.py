"""Flax Linen modules over the cells: they own the parameters, the cells do the computing.

The same names as in `qlstm_jax.nnx`, with `features` for H and the options of the cell's `init` as fields. A cell is
one time step and works inside `flax.linen.RNN`; a sequence layer is called as `flax.linen.RNN` is.
"""

from qlstm_jax.cells import CELLS
from qlstm_jax.describe import cell_class_name
from qlstm_jax.linen import pr_lstm
from qlstm_jax.linen.cells import Cell, cell_class
from qlstm_jax.linen.layers import Layer, layer_class

# The layers and cells that have more than the others.
_CELL_BASES = {"PRLSTM": pr_lstm.StreamCell}
_LAYER_BASES = {"PRLSTM": pr_lstm.StreamLayer}

for _layer, _functions in CELLS.items():
    _cell = cell_class(_layer, _functions, _CELL_BASES.get(_layer, Cell))
    globals()[_cell.__name__] = _cell
    globals()[_layer] = layer_class(_layer, _cell, _LAYER_BASES.get(_layer, Layer))

LAYERS: dict[str, type[Layer]] = {_layer: globals()[_layer] for _layer in CELLS}  # by class name

__all__ = ["LAYERS", "Cell", "Layer", *CELLS, *map(cell_class_name, CELLS)]
