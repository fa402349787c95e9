"""Made by scripts/stubs.py from the cells; not to be edited."""

from collections.abc import Mapping
from typing import Any

from flax.nnx import Rngs
from jax.typing import DTypeLike

from qlstm_jax.describe import Initializer
from qlstm_jax.nnx import pr_lstm as _pr_lstm
from qlstm_jax.nnx.cells import Cell as Cell
from qlstm_jax.nnx.layers import Layer as Layer
from qlstm_jax.nnx.protocol import SequenceLayer as SequenceLayer

class SimpleCell(Cell):
    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        kernel_init: Initializer | None = None,
        recurrent_kernel_init: Initializer | None = None,
        bias_init: Initializer | None = None,
        kernel_metadata: Mapping[str, Any] = ...,
        recurrent_kernel_metadata: Mapping[str, Any] = ...,
        bias_metadata: Mapping[str, Any] = ...,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = ...,
        rngs: Rngs,
    ) -> None: ...

class SimpleRNN(Layer):
    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        variational: bool = False,
        kernel_init: Initializer | None = None,
        recurrent_kernel_init: Initializer | None = None,
        bias_init: Initializer | None = None,
        kernel_metadata: Mapping[str, Any] = ...,
        recurrent_kernel_metadata: Mapping[str, Any] = ...,
        bias_metadata: Mapping[str, Any] = ...,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = ...,
        rngs: Rngs,
    ) -> None: ...

class LSTMCell(Cell):
    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        kernel_init: Initializer | None = None,
        recurrent_kernel_init: Initializer | None = None,
        bias_init: Initializer | None = None,
        kernel_metadata: Mapping[str, Any] = ...,
        recurrent_kernel_metadata: Mapping[str, Any] = ...,
        bias_metadata: Mapping[str, Any] = ...,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = ...,
        chrono: int = 0,
        implementation: str = "auto",
        rngs: Rngs,
    ) -> None: ...

class LSTM(Layer):
    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        variational: bool = False,
        kernel_init: Initializer | None = None,
        recurrent_kernel_init: Initializer | None = None,
        bias_init: Initializer | None = None,
        kernel_metadata: Mapping[str, Any] = ...,
        recurrent_kernel_metadata: Mapping[str, Any] = ...,
        bias_metadata: Mapping[str, Any] = ...,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = ...,
        chrono: int = 0,
        implementation: str = "auto",
        rngs: Rngs,
    ) -> None: ...

class GRUCell(Cell):
    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        kernel_init: Initializer | None = None,
        recurrent_kernel_init: Initializer | None = None,
        bias_init: Initializer | None = None,
        kernel_metadata: Mapping[str, Any] = ...,
        recurrent_kernel_metadata: Mapping[str, Any] = ...,
        bias_metadata: Mapping[str, Any] = ...,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = ...,
        chrono: int = 0,
        implementation: str = "auto",
        rngs: Rngs,
    ) -> None: ...

class GRU(Layer):
    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        variational: bool = False,
        kernel_init: Initializer | None = None,
        recurrent_kernel_init: Initializer | None = None,
        bias_init: Initializer | None = None,
        kernel_metadata: Mapping[str, Any] = ...,
        recurrent_kernel_metadata: Mapping[str, Any] = ...,
        bias_metadata: Mapping[str, Any] = ...,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = ...,
        chrono: int = 0,
        implementation: str = "auto",
        rngs: Rngs,
    ) -> None: ...

class QLSTMCell(Cell):
    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        kernel_init: Initializer | None = None,
        recurrent_kernel_init: Initializer | None = None,
        bias_init: Initializer | None = None,
        kernel_metadata: Mapping[str, Any] = ...,
        recurrent_kernel_metadata: Mapping[str, Any] = ...,
        bias_metadata: Mapping[str, Any] = ...,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = ...,
        sharing: str = "full",
        num_heads: int = 1,
        block_size: int = 32,
        skip: bool = True,
        epsilon: float = 1.0,
        forget_bias: float = 1.0,
        chrono: int = 0,
        remat: bool = False,
        implementation: str = "auto",
        rngs: Rngs,
    ) -> None: ...

class QLSTM(Layer):
    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        variational: bool = False,
        kernel_init: Initializer | None = None,
        recurrent_kernel_init: Initializer | None = None,
        bias_init: Initializer | None = None,
        kernel_metadata: Mapping[str, Any] = ...,
        recurrent_kernel_metadata: Mapping[str, Any] = ...,
        bias_metadata: Mapping[str, Any] = ...,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = ...,
        sharing: str = "full",
        num_heads: int = 1,
        block_size: int = 32,
        skip: bool = True,
        epsilon: float = 1.0,
        forget_bias: float = 1.0,
        chrono: int = 0,
        remat: bool = False,
        implementation: str = "auto",
        rngs: Rngs,
    ) -> None: ...

class PRLSTMCell(_pr_lstm.PRLSTMCell):
    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        kernel_init: Initializer | None = None,
        recurrent_kernel_init: Initializer | None = None,
        bias_init: Initializer | None = None,
        kernel_metadata: Mapping[str, Any] = ...,
        recurrent_kernel_metadata: Mapping[str, Any] = ...,
        bias_metadata: Mapping[str, Any] = ...,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = ...,
        max_length: int = 2147483647,
        refinements: int = 1,
        cell: str = "lstm",
        norm: str = "none",
        value_init: str = "paper",
        forget_bias: float = 0.0,
        remat: bool = False,
        rngs: Rngs,
    ) -> None: ...

class PRLSTM(_pr_lstm.PRLSTM):
    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        variational: bool = False,
        kernel_init: Initializer | None = None,
        recurrent_kernel_init: Initializer | None = None,
        bias_init: Initializer | None = None,
        kernel_metadata: Mapping[str, Any] = ...,
        recurrent_kernel_metadata: Mapping[str, Any] = ...,
        bias_metadata: Mapping[str, Any] = ...,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = ...,
        max_offset: int = 0,
        refinements: int = 1,
        cell: str = "lstm",
        norm: str = "none",
        value_init: str = "paper",
        forget_bias: float = 0.0,
        remat: bool = False,
        rngs: Rngs,
    ) -> None: ...

class SLSTMCell(Cell):
    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        kernel_init: Initializer | None = None,
        recurrent_kernel_init: Initializer | None = None,
        bias_init: Initializer | None = None,
        kernel_metadata: Mapping[str, Any] = ...,
        recurrent_kernel_metadata: Mapping[str, Any] = ...,
        bias_metadata: Mapping[str, Any] = ...,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = ...,
        num_heads: int = 1,
        forget_gate: str = "sigmoid",
        block_position: float = 0.0,
        implementation: str = "auto",
        rngs: Rngs,
    ) -> None: ...

class SLSTM(Layer):
    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        variational: bool = False,
        kernel_init: Initializer | None = None,
        recurrent_kernel_init: Initializer | None = None,
        bias_init: Initializer | None = None,
        kernel_metadata: Mapping[str, Any] = ...,
        recurrent_kernel_metadata: Mapping[str, Any] = ...,
        bias_metadata: Mapping[str, Any] = ...,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = ...,
        num_heads: int = 1,
        forget_gate: str = "sigmoid",
        block_position: float = 0.0,
        implementation: str = "auto",
        rngs: Rngs,
    ) -> None: ...

class MLSTMCell(Cell):
    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        kernel_init: Initializer | None = None,
        recurrent_kernel_init: Initializer | None = None,
        bias_init: Initializer | None = None,
        kernel_metadata: Mapping[str, Any] = ...,
        recurrent_kernel_metadata: Mapping[str, Any] = ...,
        bias_metadata: Mapping[str, Any] = ...,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = ...,
        num_heads: int = 4,
        key_size: int | None = None,
        chunk_size: int = 64,
        rngs: Rngs,
    ) -> None: ...

class MLSTM(Layer):
    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        variational: bool = False,
        kernel_init: Initializer | None = None,
        recurrent_kernel_init: Initializer | None = None,
        bias_init: Initializer | None = None,
        kernel_metadata: Mapping[str, Any] = ...,
        recurrent_kernel_metadata: Mapping[str, Any] = ...,
        bias_metadata: Mapping[str, Any] = ...,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = ...,
        num_heads: int = 4,
        key_size: int | None = None,
        chunk_size: int = 64,
        rngs: Rngs,
    ) -> None: ...

class MinGRUCell(Cell):
    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        kernel_init: Initializer | None = None,
        recurrent_kernel_init: Initializer | None = None,
        bias_init: Initializer | None = None,
        kernel_metadata: Mapping[str, Any] = ...,
        recurrent_kernel_metadata: Mapping[str, Any] = ...,
        bias_metadata: Mapping[str, Any] = ...,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = ...,
        rngs: Rngs,
    ) -> None: ...

class MinGRU(Layer):
    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        variational: bool = False,
        kernel_init: Initializer | None = None,
        recurrent_kernel_init: Initializer | None = None,
        bias_init: Initializer | None = None,
        kernel_metadata: Mapping[str, Any] = ...,
        recurrent_kernel_metadata: Mapping[str, Any] = ...,
        bias_metadata: Mapping[str, Any] = ...,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = ...,
        rngs: Rngs,
    ) -> None: ...

class MinLSTMCell(Cell):
    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        kernel_init: Initializer | None = None,
        recurrent_kernel_init: Initializer | None = None,
        bias_init: Initializer | None = None,
        kernel_metadata: Mapping[str, Any] = ...,
        recurrent_kernel_metadata: Mapping[str, Any] = ...,
        bias_metadata: Mapping[str, Any] = ...,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = ...,
        forget_bias: float = 0.0,
        rngs: Rngs,
    ) -> None: ...

class MinLSTM(Layer):
    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        variational: bool = False,
        kernel_init: Initializer | None = None,
        recurrent_kernel_init: Initializer | None = None,
        bias_init: Initializer | None = None,
        kernel_metadata: Mapping[str, Any] = ...,
        recurrent_kernel_metadata: Mapping[str, Any] = ...,
        bias_metadata: Mapping[str, Any] = ...,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = ...,
        forget_bias: float = 0.0,
        rngs: Rngs,
    ) -> None: ...

LAYERS: dict[str, type[Layer]]
