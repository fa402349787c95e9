"""Layers that read whole sequences, by the `unroll` of their cell."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from qlstm_jax.cells import common
from qlstm_jax.linen.cells import GRUCell, LSTMCell, MLSTMCell, QLSTMCell, SimpleCell, SLSTMCell
from qlstm_jax.stack import check_stack, refuse_carry, run, run_last


class Layer(nn.Module):
    """The base class of the layers: sequences in, sequences out, by the `unroll` of a cell.

    A subclass sets `cell_class`, whose module has the formula, and has the fields of its options.

    Args:
        hidden_size: H.
        num_layers: layers, each reading the outputs of the one below.
        bidirectional: whether each layer also reads backward; its two outputs lie side by side, 2H.
        dropout: rate between layers, not after the last.
        variational: whether it drops the same channels at all positions of a row (arXiv 1512.05287).
        dtype: of activations; None for float32. Gates and sums are float32 whatever it is.
        param_dtype: of the parameters.
    """

    hidden_size: int
    num_layers: int = 1
    bidirectional: bool = False
    dropout: float = 0.0
    variational: bool = False
    dtype: Any = None
    param_dtype: Any = jnp.float32

    cell_class = None

    def setup(self):
        """Names the cells as their parameters' paths have them, and the dropout between layers."""
        check_stack(self.num_layers, self.dropout)
        self.cells = [self._cell() for _ in range(self.num_layers)]
        if self.bidirectional:
            self.backward_cells = [self._cell() for _ in range(self.num_layers)]
        self.between = nn.Dropout(self.dropout, broadcast_dims=(1,) if self.variational else ())

    @nn.nowrap
    def _cell(self, **kwargs):
        options = {name: getattr(self, name) for name in self.cell_class.option_names}
        return self.cell_class(
            features=self.hidden_size, dtype=self.dtype, param_dtype=self.param_dtype, **options, **kwargs
        )

    @property
    def output_size(self) -> int:
        """Channels of the outputs: H, bidirectional 2H."""
        return self.hidden_size * (2 if self.bidirectional else 1)

    @nn.nowrap
    def initialize_carry(self, batch_size: int):
        """The carry before the first token, a tuple with one for each layer. Needs no parameters.

        Raises:
            ValueError: if the layer is bidirectional.
        """
        return self.stack_carry(batch_size)

    @nn.nowrap
    def stack_carry(self, batch_size: int, **options):
        """`initialize_carry`, with `options` for the `initial_carry` of the cell."""
        refuse_carry(self.bidirectional)
        params = self._cell(parent=None).template(1)  # no carry depends on the size of the input
        return (self.cell_class.functions.initial_carry(params, batch_size, **options),) * self.num_layers

    def __call__(self, xs, *, seq_lengths=None, initial_carry=None, return_carry=False, deterministic=True):
        """The outputs at every position.

        Args:
            xs: (B, T, D).
            seq_lengths: optional (B,) number of valid positions; what xs holds beyond is not read.
            initial_carry: where to continue from, a tuple with one carry for each layer.
            return_carry: whether to return the carry after each row's last valid position too.
            deterministic: whether dropout is off.

        Returns:
            ys (B, T, H or 2H), 0 beyond `seq_lengths`; with return_carry (carry, ys).

        Raises:
            ValueError: if a size, option, shape or carry does not fit, a length lies outside 0..T, or a bidirectional
                layer is asked for a carry.
        """
        if initial_carry is not None or return_carry:
            refuse_carry(self.bidirectional)
        _, seq_lengths, _ = common.check_sequence(xs, seq_lengths, xs.shape[-1])
        between = partial(self.between, deterministic=deterministic)
        carry, ys = run(self.functions_for(deterministic), self._params(xs), xs, seq_lengths, initial_carry, between)
        return (carry, ys) if return_carry else ys

    def last(self, xs, *, seq_lengths=None, deterministic=True):
        """The output at each row's last valid position, (B, H); zeros at length 0.

        Bidirectional, (B, 2H): the backward half is its output at the first position, where it has read the whole.
        Arguments and errors are those of a call.
        """
        _, seq_lengths, _ = common.check_sequence(xs, seq_lengths, xs.shape[-1])
        between = partial(self.between, deterministic=deterministic)
        return run_last(self.functions_for(deterministic), self._params(xs), xs, seq_lengths, between)

    def functions_for(self, deterministic):
        """What gives `unroll` and `reduce` in a call with these arguments; default the module of the cell."""
        return self.cell_class.functions

    def _params(self, xs):
        sizes = [xs.shape[-1]] + [self.output_size] * (self.num_layers - 1)
        directions = [self.cells, self.backward_cells] if self.bidirectional else [self.cells]
        layers = zip(*directions, strict=True)
        return [tuple(cell.params(size) for cell in layer) for layer, size in zip(layers, sizes, strict=True)]


class SimpleRNN(Layer):
    """Plain recurrent layers of `qlstm_jax.cells.rnn`."""

    cell_class = SimpleCell


class LSTM(Layer):
    """LSTM layers of `qlstm_jax.cells.lstm`, whose `init` describes chrono.

    layer = LSTM(8, num_layers=2)
    variables = layer.init(key, xs)
    carry, ys = layer.apply(variables, xs, return_carry=True)      # xs (B, T, D), ys (B, T, 8)
    """

    chrono: int = 0

    cell_class = LSTMCell


class GRU(Layer):
    """GRU layers of `qlstm_jax.cells.gru`, whose `init` describes chrono."""

    chrono: int = 0

    cell_class = GRUCell


class QLSTM(Layer):
    """QL-LSTM layers of `qlstm_jax.cells.ql_lstm`; `init` there describes sharing, block_size, skip and more.

    layer = QLSTM(8, bidirectional=True)
    variables = layer.init(key, xs)
    y = layer.apply(variables, xs, seq_lengths=seq_lengths, method="last")      # (B, T, D) to (B, 16)
    """

    sharing: str = "full"
    block_size: int = 32
    skip: bool = True
    epsilon: float = 1.0
    forget_bias: float = 1.0
    chrono: int = 0
    remat: bool = False

    cell_class = QLSTMCell


class SLSTM(Layer):
    """sLSTM layers of `qlstm_jax.cells.slstm`; `init` there describes num_heads, forget_gate and more."""

    num_heads: int = 1
    forget_gate: str = "sigmoid"
    block_position: float = 0.0

    cell_class = SLSTMCell


class MLSTM(Layer):
    """mLSTM layers of `qlstm_jax.cells.mlstm`; `init` there describes num_heads, key_size and chunk_size."""

    num_heads: int = 4
    key_size: int | None = None
    chunk_size: int = 64

    cell_class = MLSTMCell
