"""Layers that read whole sequences, by the `unroll` of their cell."""

import jax.numpy as jnp
from flax import nnx

from qlstm_jax.cells import common
from qlstm_jax.nnx.cells import GRUCell, LSTMCell, MLSTMCell, QLSTMCell, SimpleCell, SLSTMCell
from qlstm_jax.nnx.dropout import applied, dropout_stream
from qlstm_jax.nnx.options import check_options
from qlstm_jax.stack import check_stack, refuse_carry, run, run_last


class Layer(nnx.Module):
    """The base class of the layers: sequences in, sequences out, by the `unroll` of a cell.

    A subclass sets `cell_class`, whose module has the formula.

    Args:
        in_features: D.
        hidden_size: H.
        num_layers: layers, each reading the outputs of the one below.
        bidirectional: whether each layer also reads backward; its two outputs lie side by side, 2H.
        dropout: rate between layers (not after the last), by `nnx.Dropout`: on after `train()`, off after `eval()`.
        variational: whether it drops the same channels at all positions of a row (arXiv 1512.05287).
        dtype: of activations; None for float32. Gates and sums are float32 whatever it is.
        param_dtype: of the parameters.
        rngs: for the initial parameters (stream "params") and the dropout (stream "dropout").
        options: those of the cell.

    Raises:
        TypeError: for an option that the cell does not have.
        ValueError: for a size, rate or option out of range.
    """

    cell_class = None

    def __init__(
        self,
        in_features: int,
        hidden_size: int,
        *,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        variational: bool = False,
        dtype=None,
        param_dtype=jnp.float32,
        rngs: nnx.Rngs,
        **options,
    ):
        check_options(type(self).__name__, self.cell_class.functions, options)
        check_stack(num_layers, dropout)
        self.in_features, self.hidden_size, self.bidirectional = in_features, hidden_size, bidirectional
        options = dict(options, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        inputs = [in_features] + [self.output_size] * (num_layers - 1)
        self.cells = nnx.List([self.cell_class(size, hidden_size, **options) for size in inputs])
        if bidirectional:
            self.backward_cells = nnx.List([self.cell_class(size, hidden_size, **options) for size in inputs])
        shared = (1,) if variational else ()
        between = dropout and num_layers > 1
        stream = dropout_stream(rngs)
        self.dropout = nnx.Dropout(dropout, broadcast_dims=shared, rngs=stream) if between else None

    @property
    def output_size(self) -> int:
        """Channels of the outputs: H, bidirectional 2H."""
        return self.hidden_size * (2 if self.bidirectional else 1)

    def initialize_carry(self, batch_size: int):
        """The carry before the first token, a tuple with one for each layer.

        Raises:
            ValueError: if the layer is bidirectional.
        """
        return self.stack_carry(batch_size)

    def stack_carry(self, batch_size: int, **options):
        """`initialize_carry`, with `options` for the `initial_carry` of the cell."""
        refuse_carry(self.bidirectional)
        return tuple(self.cell_class.functions.initial_carry(c.params, batch_size, **options) for c in self.cells)

    def __call__(self, xs, *, seq_lengths=None, initial_carry=None, return_carry=False, deterministic=None, rngs=None):
        """The outputs at every position.

        Args:
            xs: (B, T, D).
            seq_lengths: optional (B,) number of valid positions; what xs holds beyond is not read.
            initial_carry: where to continue from, a tuple with one carry for each layer.
            return_carry: whether to return the carry after each row's last valid position too.
            deterministic: whether dropout is off; default as set by `train()` and `eval()`.
            rngs: for dropout, an `nnx.Rngs` or a key; default those of the constructor.

        Returns:
            ys (B, T, H or 2H), 0 beyond `seq_lengths`; with return_carry (carry, ys).

        Raises:
            ValueError: if a shape or carry does not fit, a length lies outside 0..T, or a bidirectional layer is asked
                for a carry.
        """
        if initial_carry is not None or return_carry:
            refuse_carry(self.bidirectional)
        _, seq_lengths, _ = common.check_sequence(xs, seq_lengths, self.in_features)
        functions, between = self.functions_for(deterministic, rngs), applied(self.dropout, deterministic, rngs)
        carry, ys = run(functions, self.layer_params(), xs, seq_lengths, initial_carry, between)
        return (carry, ys) if return_carry else ys

    def last(self, xs, *, seq_lengths=None, deterministic=None, rngs=None):
        """The output at each row's last valid position, (B, H); zeros at length 0.

        Bidirectional, (B, 2H): the backward half is its output at the first position, where it has read the whole.
        Arguments and errors are those of a call.
        """
        _, seq_lengths, _ = common.check_sequence(xs, seq_lengths, self.in_features)
        functions, between = self.functions_for(deterministic, rngs), applied(self.dropout, deterministic, rngs)
        return run_last(functions, self.layer_params(), xs, seq_lengths, between)

    def functions_for(self, deterministic, rngs):
        """What gives `unroll` and `reduce` in a call with these arguments; default the module of the cell."""
        return self.cell_class.functions

    def layer_params(self) -> list[tuple]:
        """For each layer the `Params` of its directions: (forward,) or (forward, backward)."""
        directions = [self.cells, self.backward_cells] if self.bidirectional else [self.cells]
        return [tuple(cell.params for cell in layer) for layer in zip(*directions, strict=True)]


class SimpleRNN(Layer):
    """Plain recurrent layers of `qlstm_jax.cells.rnn`."""

    cell_class = SimpleCell


class LSTM(Layer):
    """LSTM layers of `qlstm_jax.cells.lstm`, whose `init` describes chrono.

    layer = LSTM(3, 8, num_layers=2, dropout=0.1, rngs=nnx.Rngs(0))
    carry, ys = layer(xs, return_carry=True)      # xs (B, T, 3), ys (B, T, 8)
    carry, more = layer(more_xs, initial_carry=carry, return_carry=True)
    """

    cell_class = LSTMCell


class GRU(Layer):
    """GRU layers of `qlstm_jax.cells.gru`, whose `init` describes chrono."""

    cell_class = GRUCell


class QLSTM(Layer):
    """QL-LSTM layers of `qlstm_jax.cells.ql_lstm`; `init` there describes sharing, block_size, skip and more.

    layer = QLSTM(3, 8, bidirectional=True, rngs=nnx.Rngs(0))
    ys = layer(xs, seq_lengths=seq_lengths)               # (B, T, 3) to (B, T, 16)
    y = layer.last(xs, seq_lengths=seq_lengths)           # (B, 16)
    """

    cell_class = QLSTMCell


class SLSTM(Layer):
    """sLSTM layers of `qlstm_jax.cells.slstm`; `init` there describes num_heads, forget_gate and more."""

    cell_class = SLSTMCell


class MLSTM(Layer):
    """mLSTM layers of `qlstm_jax.cells.mlstm`; `init` there describes num_heads, key_size and chunk_size."""

    cell_class = MLSTMCell
