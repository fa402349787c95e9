"""Made by scripts/stubs.py from the cells; not to be edited."""

from qlstm_jax.linen import pr_lstm as _pr_lstm
from qlstm_jax.linen.cells import Cell as Cell
from qlstm_jax.linen.layers import Layer as Layer

class SimpleCell(Cell):
    pass

class SimpleRNN(Layer):
    pass

class LSTMCell(Cell):
    chrono: int = 0
    implementation: str = "auto"

class LSTM(Layer):
    chrono: int = 0
    implementation: str = "auto"

class GRUCell(Cell):
    chrono: int = 0
    implementation: str = "auto"

class GRU(Layer):
    chrono: int = 0
    implementation: str = "auto"

class QLSTMCell(Cell):
    sharing: str = "full"
    num_heads: int = 1
    block_size: int = 32
    skip: bool = True
    epsilon: float = 1.0
    forget_bias: float = 1.0
    chrono: int = 0
    remat: bool = False
    implementation: str = "auto"

class QLSTM(Layer):
    sharing: str = "full"
    num_heads: int = 1
    block_size: int = 32
    skip: bool = True
    epsilon: float = 1.0
    forget_bias: float = 1.0
    chrono: int = 0
    remat: bool = False
    implementation: str = "auto"

class PRLSTMCell(_pr_lstm.StreamCell):
    refinements: int = 1
    cell: str = "lstm"
    norm: str = "none"
    value_init: str = "paper"
    forget_bias: float = 0.0
    remat: bool = False

class PRLSTM(_pr_lstm.StreamLayer):
    refinements: int = 1
    cell: str = "lstm"
    norm: str = "none"
    value_init: str = "paper"
    forget_bias: float = 0.0
    remat: bool = False

class SLSTMCell(Cell):
    num_heads: int = 1
    forget_gate: str = "sigmoid"
    block_position: float = 0.0
    implementation: str = "auto"

class SLSTM(Layer):
    num_heads: int = 1
    forget_gate: str = "sigmoid"
    block_position: float = 0.0
    implementation: str = "auto"

class MLSTMCell(Cell):
    num_heads: int = 4
    key_size: int | None = None
    chunk_size: int = 64

class MLSTM(Layer):
    num_heads: int = 4
    key_size: int | None = None
    chunk_size: int = 64

class MinGRUCell(Cell):
    pass

class MinGRU(Layer):
    pass

class MinLSTMCell(Cell):
    forget_bias: float = 0.0

class MinLSTM(Layer):
    forget_bias: float = 0.0

LAYERS: dict[str, type[Layer]]
