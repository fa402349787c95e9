"""Flax Linen modules over the cells: they own the parameters, the cells do the computing.

The names and the parameters are those of `qlstm_jax.nnx`, in Linen's conventions: sizes of inputs are inferred, a
cell works inside `flax.linen.RNN`, dropout is on with `deterministic=False` and draws from the rng "dropout". A
layer's parameters lie under "cells_0", "cells_1", ... and, bidirectional, "backward_cells_0", ...
"""

import dataclasses
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from qlstm_jax.cells import base, gru, lstm, mlstm, pr_lstm, pr_lstm_beyond, ql_lstm, rnn, slstm
from qlstm_jax.stack import check_stack, initial_carry, refuse_carry, run, run_last, step

__all__ = [
    "GRU",
    "LSTM",
    "MLSTM",
    "PRLSTM",
    "QLSTM",
    "SLSTM",
    "GRUCell",
    "LSTMCell",
    "MLSTMCell",
    "PRLSTMCell",
    "QLSTMCell",
    "SLSTMCell",
    "SimpleCell",
    "SimpleRNN",
]


# Linen evaluates an initialiser's shape each time a module is applied: under jit it is traced only once.
@partial(jax.jit, static_argnums=(1, 2, 3, 4))
def _draw(key, init, input_size, hidden_size, options):
    return init(key, input_size, hidden_size, **dict(options))


class _Cell(nn.RNNCellBase):
    """One time step, for `flax.linen.RNN`; the formula is that of the module `functions`.

    Args:
        features: H.
        dtype: of activations; None for float32. Gates and sums are float32 whatever it is.
        param_dtype: of the parameters.
    """

    features: int
    dtype: Any = None
    param_dtype: Any = jnp.float32

    functions = None
    option_names = ()
    num_feature_axes = 1

    @nn.nowrap
    def _init(self, input_size: int):
        options = {name: getattr(self, name) for name in self.option_names}
        options.update(dtype=jnp.float32 if self.dtype is None else self.dtype, param_dtype=self.param_dtype)
        return lambda key: _draw(key, self.functions.init, input_size, self.features, tuple(options.items()))

    @nn.nowrap
    def _template(self, input_size: int):
        """The cell's `Params` with shapes for arrays."""
        return jax.eval_shape(lambda: self._init(input_size)(jax.random.key(0)))

    @nn.compact
    def params(self, input_size: int):
        """The cell's `Params`, for use with its functions on inputs of `input_size` channels."""
        init, template = self._init(input_size), self._template(input_size)
        arrays = {
            field.name: self.param(field.name, lambda key, name=field.name: getattr(init(key), name))
            for field in dataclasses.fields(template)
            if isinstance(getattr(template, field.name), jax.ShapeDtypeStruct)
        }
        return dataclasses.replace(template, **arrays)

    def __call__(self, carry, x):
        """One time step: x (..., D) to (carry, y (..., H)).

        Raises:
            ValueError: if an option is out of range, or the carry is not one of this cell and batch.
        """
        return step(self.functions, self.params(x.shape[-1]), carry, x)

    @nn.nowrap
    def initialize_carry(self, rng, input_shape):
        """The carry before the first token.

        Args:
            rng: for `flax.linen.RNN`, which hands it to every cell; this carry holds nothing random.
            input_shape: (..., D), the shape of one time step.
        """
        return initial_carry(self.functions, self._template(input_shape[-1]), input_shape, **self._carry_options())

    @nn.nowrap
    def _carry_options(self):
        return {}


class SimpleCell(_Cell):
    """The plain recurrent cell of `qlstm_jax.cells.rnn`."""

    functions = rnn


class LSTMCell(_Cell):
    """The LSTM cell of `qlstm_jax.cells.lstm`; the carry is (c, h)."""

    functions = lstm


class GRUCell(_Cell):
    """The GRU cell of `qlstm_jax.cells.gru`."""

    functions = gru


class QLSTMCell(_Cell):
    """The QL-LSTM cell of `qlstm_jax.cells.ql_lstm`; `init` there describes sharing, block_size, skip and more.

    layer = nn.RNN(QLSTMCell(8, block_size=16))
    ys, variables = layer.init_with_output(key, xs)      # (B, T, D) to (B, T, 8)
    """

    sharing: str = "full"
    block_size: int = 32
    skip: bool = True
    epsilon: float = 1.0
    remat: bool = False

    functions = ql_lstm
    option_names = ("sharing", "block_size", "skip", "epsilon", "remat")


class SLSTMCell(_Cell):
    """The sLSTM cell of `qlstm_jax.cells.slstm`; `init` there describes num_heads, forget_gate and more."""

    num_heads: int = 1
    forget_gate: str = "sigmoid"
    block_position: float = 0.0

    functions = slstm
    option_names = ("num_heads", "forget_gate", "block_position")


class MLSTMCell(_Cell):
    """The mLSTM cell of `qlstm_jax.cells.mlstm`; `init` there describes num_heads, key_size and chunk_size."""

    num_heads: int = 4
    key_size: int | None = None
    chunk_size: int = 64

    functions = mlstm
    option_names = ("num_heads", "key_size", "chunk_size")


class PRLSTMCell(_Cell):
    """The PR-LSTM or PR-RNN cell of `qlstm_jax.cells.pr_lstm`, as a stream.

    Args:
        refinements, cell, norm, value_init, forget_bias, remat: as for `init` there.
        max_length: tokens that the stream may grow to; fewer make a smaller carry, and beyond it outputs are NaN.
    """

    refinements: int = 1
    cell: str = "lstm"
    norm: str = "none"
    value_init: str = "paper"
    forget_bias: float = 0.0
    remat: bool = False
    max_length: int = 2**pr_lstm.MAX_SLOTS - 1

    functions = pr_lstm
    option_names = ("refinements", "cell", "norm", "value_init", "forget_bias", "remat")

    @nn.nowrap
    def _carry_options(self):
        return {"max_length": self.max_length}


class _Layer(nn.Module):
    """Sequences in, sequences out, by the `unroll` of `cell_class`, whose module has the formula.

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
        return self._initialize_carry(batch_size)

    @nn.nowrap
    def _initialize_carry(self, batch_size, **options):
        refuse_carry(self.bidirectional)
        params = self._cell(parent=None)._template(1)  # no carry depends on the size of the input
        return (self.cell_class.functions.initial_carry(params, batch_size, **options),) * self.num_layers

    def __call__(self, xs, *, lengths=None, initial_carry=None, return_carry=False, deterministic=True):
        """The outputs at every position.

        Args:
            xs: (B, T, D).
            lengths: optional (B,) number of valid positions; what xs holds beyond is not read.
            initial_carry: where to continue from, a tuple with one carry for each layer.
            return_carry: whether to return the carry after each row's last valid position too.
            deterministic: whether dropout is off.

        Returns:
            ys (B, T, H or 2H), 0 beyond `lengths`; with return_carry (ys, carry).

        Raises:
            ValueError: if a size, option, shape or carry does not fit, a length lies outside 0..T, or a bidirectional
                layer is asked for a carry.
        """
        if initial_carry is not None or return_carry:
            refuse_carry(self.bidirectional)
        _, lengths, _ = base.prepare(xs, lengths, xs.shape[-1])
        between = partial(self.between, deterministic=deterministic)
        ys, carry = run(self._functions(deterministic), self._params(xs), xs, lengths, initial_carry, between)
        return (ys, carry) if return_carry else ys

    def last(self, xs, *, lengths=None, deterministic=True):
        """The output at each row's last valid position, (B, H); zeros at length 0.

        Bidirectional, (B, 2H): the backward half is its output at the first position, where it has read the whole.
        Arguments and errors are those of a call.
        """
        _, lengths, _ = base.prepare(xs, lengths, xs.shape[-1])
        between = partial(self.between, deterministic=deterministic)
        return run_last(self._functions(deterministic), self._params(xs), xs, lengths, between)

    def _functions(self, deterministic):
        """What gives `unroll` and `reduce`."""
        return self.cell_class.functions

    def _params(self, xs):
        sizes = [xs.shape[-1]] + [self.output_size] * (self.num_layers - 1)
        directions = [self.cells, self.backward_cells] if self.bidirectional else [self.cells]
        layers = zip(*directions, strict=True)
        return [tuple(cell.params(size) for cell in layer) for layer, size in zip(layers, sizes, strict=True)]


class SimpleRNN(_Layer):
    """Plain recurrent layers of `qlstm_jax.cells.rnn`."""

    cell_class = SimpleCell


class LSTM(_Layer):
    """LSTM layers of `qlstm_jax.cells.lstm`.

    layer = LSTM(8, num_layers=2)
    variables = layer.init(key, xs)
    ys, carry = layer.apply(variables, xs, return_carry=True)      # xs (B, T, D), ys (B, T, 8)
    """

    cell_class = LSTMCell


class GRU(_Layer):
    """GRU layers of `qlstm_jax.cells.gru`."""

    cell_class = GRUCell


class QLSTM(_Layer):
    """QL-LSTM layers of `qlstm_jax.cells.ql_lstm`; `init` there describes sharing, block_size, skip and more.

    layer = QLSTM(8, bidirectional=True)
    variables = layer.init(key, xs)
    y = layer.apply(variables, xs, lengths=lengths, method="last")      # (B, T, D) to (B, 16)
    """

    sharing: str = "full"
    block_size: int = 32
    skip: bool = True
    epsilon: float = 1.0
    remat: bool = False

    cell_class = QLSTMCell


class SLSTM(_Layer):
    """sLSTM layers of `qlstm_jax.cells.slstm`; `init` there describes num_heads, forget_gate and more."""

    num_heads: int = 1
    forget_gate: str = "sigmoid"
    block_position: float = 0.0

    cell_class = SLSTMCell


class MLSTM(_Layer):
    """mLSTM layers of `qlstm_jax.cells.mlstm`; `init` there describes num_heads, key_size and chunk_size."""

    num_heads: int = 4
    key_size: int | None = None
    chunk_size: int = 64

    cell_class = MLSTMCell


class PRLSTM(_Layer):
    """PR-LSTM or PR-RNN layers of `qlstm_jax.cells.pr_lstm`; `init` there describes their options.

    `last` takes half the merges of a call. With max_offset and deterministic=False the tree of each row begins at a
    random place up to max_offset leaves before its first token (`qlstm_jax.cells.pr_lstm_beyond`), drawn from the
    stream "dropout"; there is no carry then.
    """

    refinements: int = 1
    cell: str = "lstm"
    norm: str = "none"
    value_init: str = "paper"
    forget_bias: float = 0.0
    remat: bool = False
    max_offset: int = 0

    cell_class = PRLSTMCell

    @nn.nowrap
    def initialize_carry(self, batch_size: int, *, max_length: int = 2**pr_lstm.MAX_SLOTS - 1):
        """As for the other layers; max_length, the tokens that the stream may grow to, sets the size of the carry."""
        return self._initialize_carry(batch_size, max_length=max_length)

    def __call__(self, xs, *, lengths=None, initial_carry=None, return_carry=False, deterministic=True):
        """As for the other layers.

        Raises:
            ValueError: also if a carry is given or wanted under random offsets, or max_offset is negative.
        """
        if (initial_carry is not None or return_carry) and self.max_offset and not deterministic:
            raise ValueError(
                f"a carry is given or wanted in training with max_offset={self.max_offset}: a tree that began before "
                "its first token cannot be continued. Give deterministic=True, or make the layer with max_offset=0."
            )
        options = {"lengths": lengths, "initial_carry": initial_carry, "return_carry": return_carry}
        return super().__call__(xs, **options, deterministic=deterministic)

    def _functions(self, deterministic):
        if self.max_offset < 0:
            raise ValueError(f"max_offset is {self.max_offset!r}; expected an integer, 0 or more")
        if deterministic or not self.max_offset:
            return pr_lstm
        return pr_lstm_beyond.RandomOffset(self.make_rng("dropout"), self.max_offset)
