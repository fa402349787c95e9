"""Flax NNX modules over the cells: they own the parameters, the cells do the computing.

A cell (`QLSTMCell`, `PRLSTMCell`, `LSTMCell`, `GRUCell`, `SimpleCell`) is one time step and works inside
`flax.nnx.RNN`. A sequence layer (`QLSTM`, `PRLSTM`, `LSTM`, `GRU`, `SimpleRNN`) reads whole sequences by the cell's
own `unroll`, the fast way, in one or more layers. Each parameter bears the name of its field in the cell's `Params`.
"""

import dataclasses
import math
import warnings

import jax
import jax.numpy as jnp
from flax import nnx

from qlstm_jax.cells import base, gru, lstm, pr_lstm, ql_lstm, rnn
from qlstm_jax.unroll import sequential, tree

__all__ = [
    "GRU",
    "LSTM",
    "PRLSTM",
    "QLSTM",
    "GRUCell",
    "LSTMCell",
    "PRLSTMCell",
    "QLSTMCell",
    "SimpleCell",
    "SimpleRNN",
]


def check_stack(num_layers: int, dropout: float):
    """Raises ValueError for a number of layers or a rate that a sequence layer cannot have."""
    base.check_sizes(num_layers=num_layers)
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout is {dropout!r}; expected a rate from 0 to below 1")
    if dropout and num_layers == 1:
        warnings.warn("dropout acts between layers: with num_layers=1 it does nothing", UserWarning, stacklevel=3)


def refuse_carry(bidirectional: bool):
    """Raises ValueError where a bidirectional layer is asked for a carry."""
    if bidirectional:
        raise ValueError(
            "a bidirectional layer has no carry: its backward half starts from the end of the sequence, so that it "
            "cannot be continued. Leave out initial_carry and return_carry, or make the layer with bidirectional=False."
        )


def check_carry(functions, carry, batch: tuple[int, ...]):
    """Raises ValueError unless `carry` is one of the cell `functions` for the batch axes `batch`."""
    if not isinstance(carry, functions.Carry):
        raise ValueError(
            f"the carry is a {type(carry).__name__}; expected {functions.__name__}.{functions.Carry.__name__}, "
            "made by initialize_carry or returned by an earlier call"
        )
    shapes = [a.shape for a in jax.tree.leaves(carry)]
    if any(shape[: len(batch)] != batch for shape in shapes):
        raise ValueError(
            f"the carry's arrays have shapes {shapes}; expected {batch} as their first axes, the batch of the input"
        )


def step(functions, params, carry, x):
    """One time step of a cell with any number of batch axes: x (..., D) to (carry, y (..., H)).

    Raises:
        ValueError: if the carry is not one of this cell and batch.
    """
    batch = x.shape[:-1]
    check_carry(functions, carry, batch)
    flat = jax.tree.map(lambda a: a.reshape(-1, *a.shape[len(batch) :]), carry)
    carry, y = functions.step(params, flat, x.reshape(-1, x.shape[-1]))
    return jax.tree.map(lambda a: a.reshape(*batch, *a.shape[1:]), (carry, y))


def initial_carry(functions, params, input_shape: tuple[int, ...], **options):
    """The cell's initial carry for an input (..., D) with any number of batch axes."""
    batch = tuple(input_shape[:-1])
    carry = functions.initial_carry(params, math.prod(batch), **options)
    return jax.tree.map(lambda a: a.reshape(*batch, *a.shape[1:]), carry)


def run(functions, layers, xs, lengths, carry, between):
    """Reads sequences with a stack of layers, each the `unroll` of a cell, or of two in opposite directions.

    Args:
        functions: the cell's module in `qlstm_jax.cells`.
        layers: for each layer the params of its directions, (forward,) or (forward, backward).
        xs: (B, T, D).
        lengths: None or (B,), as `base.prepare` returns them.
        carry: None or one carry for each layer.
        between: maps the outputs of each layer but the last to the input of the next.

    Returns:
        (ys, carry): (B, T, H or 2H) and the forward carries, one for each layer.

    Raises:
        ValueError: if the carry does not fit.
    """
    if carry is None:
        carry = (None,) * len(layers)
    elif not isinstance(carry, tuple) or hasattr(carry, "_fields") or len(carry) != len(layers):
        raise ValueError(f"initial_carry is {carry!r:.80}; expected a tuple of {len(layers)}, one carry for each layer")
    else:
        for start in carry:
            check_carry(functions, start, xs.shape[:1])
    ends = []
    for number, ((forward, *backward), start) in enumerate(zip(layers, carry, strict=True)):
        xs = between(xs) if number else xs
        ys, end = functions.unroll(forward, xs, lengths=lengths, carry=start)
        if backward:
            zs, _ = functions.unroll(backward[0], sequential.reverse(xs, lengths), lengths=lengths)
            ys = jnp.concatenate([ys, sequential.reverse(zs, lengths)], axis=-1)
        xs = ys
        ends.append(end)
    return xs, tuple(ends)


def run_last(functions, layers, xs, lengths, between):
    """The output of `run` at the last position that each direction reads, (B, H or 2H); zeros at length 0."""
    *below, top = layers
    if below:
        xs = between(run(functions, below, xs, lengths, None, between)[0])
    inputs = [xs, sequential.reverse(xs, lengths)] if len(top) > 1 else [xs]
    outputs = [_final(functions, params, x, lengths) for params, x in zip(top, inputs, strict=True)]
    return jnp.concatenate(outputs, axis=-1) if len(top) > 1 else outputs[0]


def _final(functions, params, xs, lengths):
    if functions is pr_lstm:
        return pr_lstm.reduce(params, xs, lengths=lengths).h
    ys, _ = functions.unroll(params, xs, lengths=lengths)
    if xs.shape[1] == 0:
        return jnp.zeros((ys.shape[0], ys.shape[2]), ys.dtype)
    return ys[:, -1] if lengths is None else tree.pick(ys, lengths - 1)


class _Cell(nnx.RNNCellBase):
    """One time step, for `flax.nnx.RNN`; the formula is that of the module `functions`.

    Args:
        in_features: D.
        hidden_features: H.
        dtype: of activations; None for float32. Gates and sums are float32 whatever it is.
        param_dtype: of the parameters.
        rngs: for the initial parameters (stream "params").
    """

    functions = None
    num_feature_axes = 1

    def __init__(self, in_features: int, hidden_features: int, *, dtype=None, param_dtype=jnp.float32, rngs: nnx.Rngs):
        self._draw(in_features, hidden_features, rngs, dtype, param_dtype)

    def _draw(self, in_features, hidden_features, rngs, dtype, param_dtype, **options):
        dtype = jnp.float32 if dtype is None else dtype
        params = self.functions.init(
            rngs.params(), in_features, hidden_features, dtype=dtype, param_dtype=param_dtype, **options
        )
        self.in_features, self.hidden_features = in_features, hidden_features
        for field in dataclasses.fields(params):
            value = getattr(params, field.name)
            setattr(self, field.name, nnx.Param(value) if isinstance(value, jax.Array) else value)

    @property
    def params(self):
        """The cell's `Params`, for use with its functions."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self.functions.Params)}
        return self.functions.Params(
            **{name: value[...] if isinstance(value, nnx.Variable) else value for name, value in fields.items()}
        )

    def __call__(self, carry, x):
        """One time step: x (..., D) to (carry, y (..., H)).

        Raises:
            ValueError: if x does not end with D, or the carry is not one of this cell and batch.
        """
        if x.shape[-1:] != (self.in_features,):
            raise ValueError(
                f"x has shape {x.shape}; expected (..., {self.in_features}), one time step of a cell made with "
                f"in_features={self.in_features}. For a whole sequence use flax.nnx.RNN or a sequence layer."
            )
        return step(self.functions, self.params, carry, x)

    def initialize_carry(self, input_shape, rngs=None, carry_init=None):
        """The carry before the first token.

        Args:
            input_shape: (..., D), the shape of one time step.
            rngs: for `flax.nnx.RNN`, which hands it to every cell; this carry holds nothing random.
            carry_init: must be None.

        Raises:
            ValueError: if a carry_init is given.
        """
        if carry_init is not None:
            raise ValueError(
                "carry_init is given, but this cell's carry is fixed before the first token. To start from another "
                "state pass it as initial_carry to flax.nnx.RNN."
            )
        return initial_carry(self.functions, self.params, input_shape, **self._carry_options())

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
    """The QL-LSTM cell of `qlstm_jax.cells.ql_lstm`; `init` there describes sharing, block_size, skip and epsilon.

    cell = QLSTMCell(3, 8, block_size=16, rngs=nnx.Rngs(0))
    ys = nnx.RNN(cell)(xs)                        # (B, T, 3) to (B, T, 8)
    """

    functions = ql_lstm

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        sharing: str = "full",
        block_size: int = 32,
        skip: bool = True,
        epsilon: float = 1.0,
        dtype=None,
        param_dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        options = {"sharing": sharing, "block_size": block_size, "skip": skip, "epsilon": epsilon}
        self._draw(in_features, hidden_features, rngs, dtype, param_dtype, **options)


class PRLSTMCell(_Cell):
    """The PR-LSTM or PR-RNN cell of `qlstm_jax.cells.pr_lstm`, as a stream.

    Args:
        refinements, cell: as for `init` there.
        max_length: tokens that the stream may grow to; fewer make a smaller carry, and beyond it outputs are NaN.
    """

    functions = pr_lstm

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        refinements: int = 1,
        cell: str = "lstm",
        max_length: int = 2**pr_lstm.MAX_SLOTS - 1,
        dtype=None,
        param_dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        self._draw(in_features, hidden_features, rngs, dtype, param_dtype, refinements=refinements, cell=cell)
        base.check_sizes(max_length=max_length)
        self.max_length = max_length

    def _carry_options(self):
        return {"max_length": self.max_length}


class _Layer(nnx.Module):
    """Sequences in, sequences out, by the `unroll` of `cell_class`, whose module has the formula.

    Args:
        in_features: D.
        hidden_size: H.
        num_layers: layers, each reading the outputs of the one below.
        bidirectional: whether each layer also reads backward; its two outputs lie side by side, 2H.
        dropout: rate between layers (not after the last), by `nnx.Dropout`: on after `train()`, off after `eval()`.
        dtype: of activations; None for float32. Gates and sums are float32 whatever it is.
        param_dtype: of the parameters.
        rngs: for the initial parameters (stream "params") and the dropout (stream "dropout").

    Raises:
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
        dtype=None,
        param_dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        self._build(in_features, hidden_size, num_layers, bidirectional, dropout, rngs, dtype, param_dtype)

    def _build(self, in_features, hidden_size, num_layers, bidirectional, dropout, rngs, dtype, param_dtype, **options):
        check_stack(num_layers, dropout)
        self.in_features, self.hidden_size, self.bidirectional = in_features, hidden_size, bidirectional
        options = dict(options, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        inputs = [in_features] + [self.output_size] * (num_layers - 1)
        self.cells = nnx.List([self.cell_class(size, hidden_size, **options) for size in inputs])
        if bidirectional:
            self.backward_cells = nnx.List([self.cell_class(size, hidden_size, **options) for size in inputs])
        self.dropout = nnx.Dropout(dropout, rngs=rngs) if dropout and num_layers > 1 else None

    @property
    def output_size(self) -> int:
        """Channels of the outputs: H, bidirectional 2H."""
        return self.hidden_size * (2 if self.bidirectional else 1)

    def initialize_carry(self, batch_size: int):
        """The carry before the first token, a tuple with one for each layer.

        Raises:
            ValueError: if the layer is bidirectional.
        """
        return self._initialize_carry(batch_size)

    def _initialize_carry(self, batch_size, **options):
        refuse_carry(self.bidirectional)
        return tuple(self.cell_class.functions.initial_carry(c.params, batch_size, **options) for c in self.cells)

    def __call__(self, xs, *, lengths=None, initial_carry=None, return_carry=False, deterministic=None, rngs=None):
        """The outputs at every position.

        Args:
            xs: (B, T, D).
            lengths: optional (B,) number of valid positions; what xs holds beyond is not read.
            initial_carry: where to continue from, a tuple with one carry for each layer.
            return_carry: whether to return the carry after each row's last valid position too.
            deterministic: whether dropout is off; default as set by `train()` and `eval()`.
            rngs: for dropout, an `nnx.Rngs` or a key; default those of the constructor.

        Returns:
            ys (B, T, H or 2H), 0 beyond `lengths`; with return_carry (ys, carry).

        Raises:
            ValueError: if a shape or carry does not fit, a length lies outside 0..T, or a bidirectional layer is asked
                for a carry.
        """
        if initial_carry is not None or return_carry:
            refuse_carry(self.bidirectional)
        _, lengths, _ = base.prepare(xs, lengths, self.in_features)
        between = self._between(deterministic, rngs)
        ys, carry = run(self.cell_class.functions, self._params(), xs, lengths, initial_carry, between)
        return (ys, carry) if return_carry else ys

    def last(self, xs, *, lengths=None, deterministic=None, rngs=None):
        """The output at each row's last valid position, (B, H); zeros at length 0.

        Bidirectional, (B, 2H): the backward half is its output at the first position, where it has read the whole.
        Arguments and errors are those of a call.
        """
        _, lengths, _ = base.prepare(xs, lengths, self.in_features)
        return run_last(self.cell_class.functions, self._params(), xs, lengths, self._between(deterministic, rngs))

    def _params(self):
        directions = [self.cells, self.backward_cells] if self.bidirectional else [self.cells]
        return [tuple(cell.params for cell in layer) for layer in zip(*directions, strict=True)]

    def _between(self, deterministic, rngs):
        if self.dropout is None:
            return lambda xs: xs
        # One key would give every layer the same mask.
        rngs = nnx.Rngs(rngs) if isinstance(rngs, jax.Array) else rngs
        return lambda xs: self.dropout(xs, deterministic=deterministic, rngs=rngs)


class SimpleRNN(_Layer):
    """Plain recurrent layers of `qlstm_jax.cells.rnn`."""

    cell_class = SimpleCell


class LSTM(_Layer):
    """LSTM layers of `qlstm_jax.cells.lstm`.

    layer = LSTM(3, 8, num_layers=2, dropout=0.1, rngs=nnx.Rngs(0))
    ys, carry = layer(xs, return_carry=True)      # xs (B, T, 3), ys (B, T, 8)
    more, carry = layer(more_xs, initial_carry=carry, return_carry=True)
    """

    cell_class = LSTMCell


class GRU(_Layer):
    """GRU layers of `qlstm_jax.cells.gru`."""

    cell_class = GRUCell


class QLSTM(_Layer):
    """QL-LSTM layers of `qlstm_jax.cells.ql_lstm`; `init` there describes sharing, block_size, skip and epsilon.

    layer = QLSTM(3, 8, bidirectional=True, rngs=nnx.Rngs(0))
    ys = layer(xs, lengths=lengths)               # (B, T, 3) to (B, T, 16)
    y = layer.last(xs, lengths=lengths)           # (B, 16)
    """

    cell_class = QLSTMCell

    def __init__(
        self,
        in_features: int,
        hidden_size: int,
        *,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        sharing: str = "full",
        block_size: int = 32,
        skip: bool = True,
        epsilon: float = 1.0,
        dtype=None,
        param_dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        options = {"sharing": sharing, "block_size": block_size, "skip": skip, "epsilon": epsilon}
        self._build(in_features, hidden_size, num_layers, bidirectional, dropout, rngs, dtype, param_dtype, **options)


class PRLSTM(_Layer):
    """PR-LSTM or PR-RNN layers of `qlstm_jax.cells.pr_lstm`; `init` there describes refinements and cell.

    `last` takes half the merges of a call.
    """

    cell_class = PRLSTMCell

    def __init__(
        self,
        in_features: int,
        hidden_size: int,
        *,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        refinements: int = 1,
        cell: str = "lstm",
        dtype=None,
        param_dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        options = {"refinements": refinements, "cell": cell}
        self._build(in_features, hidden_size, num_layers, bidirectional, dropout, rngs, dtype, param_dtype, **options)

    def initialize_carry(self, batch_size: int, *, max_length: int = 2**pr_lstm.MAX_SLOTS - 1):
        """As for the other layers; max_length, the tokens that the stream may grow to, sets the size of the carry."""
        return self._initialize_carry(batch_size, max_length=max_length)
