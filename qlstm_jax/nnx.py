"""Flax NNX modules over the cells: they own the parameters, the cells do the computing.

A cell (`QLSTMCell`, `PRLSTMCell`, `SLSTMCell`, `MLSTMCell`, `LSTMCell`, `GRUCell`, `SimpleCell`) is one time step and
works inside `flax.nnx.RNN`. A sequence layer (`QLSTM`, `PRLSTM`, `SLSTM`, `MLSTM`, `LSTM`, `GRU`, `SimpleRNN`) reads
whole sequences by the cell's own `unroll`, the fast way, in one or more layers. Both take the options of the cell's
`init` as keywords. Each parameter bears the name of its field in the cell's `Params`.
"""

import dataclasses
import inspect

import jax
import jax.numpy as jnp
from flax import nnx

from qlstm_jax.cells import base, gru, lstm, mlstm, pr_lstm, pr_lstm_beyond, pr_lstm_tokens, ql_lstm, rnn, slstm
from qlstm_jax.stack import check_stack, initial_carry, refuse_carry, run, run_last, step
from qlstm_jax.unroll import tokens

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


def cell_options(functions) -> dict:
    """The options of the cell `functions` with their defaults: the keywords of its `init` but for the dtypes."""
    keywords = inspect.signature(functions.init).parameters.values()
    keywords = [p for p in keywords if p.kind is p.KEYWORD_ONLY and p.name not in ("dtype", "param_dtype")]
    return {p.name: p.default for p in keywords}


def _check_options(owner: str, functions, options: dict):
    known = cell_options(functions)
    unknown = [name for name in options if name not in known]
    if unknown:
        raise TypeError(f"{owner} has no option {', '.join(unknown)}; expected {', '.join(known) or 'none'}")


class _Cell(nnx.RNNCellBase):
    """One time step, for `flax.nnx.RNN`; the formula is that of the module `functions`.

    Args:
        in_features: D.
        hidden_features: H.
        dtype: of activations; None for float32. Gates and sums are float32 whatever it is.
        param_dtype: of the parameters.
        rngs: for the initial parameters (stream "params").
        options: those of `functions.init`.

    Raises:
        TypeError: for an option that the cell does not have.
        ValueError: for a size or option out of range.
    """

    functions = None
    num_feature_axes = 1

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        dtype=None,
        param_dtype=jnp.float32,
        rngs: nnx.Rngs,
        **options,
    ):
        _check_options(type(self).__name__, self.functions, options)
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
    """The QL-LSTM cell of `qlstm_jax.cells.ql_lstm`; `init` there describes sharing, block_size, skip and more.

    cell = QLSTMCell(3, 8, block_size=16, rngs=nnx.Rngs(0))
    ys = nnx.RNN(cell)(xs)                        # (B, T, 3) to (B, T, 8)
    """

    functions = ql_lstm


class SLSTMCell(_Cell):
    """The sLSTM cell of `qlstm_jax.cells.slstm`; `init` there describes num_heads, forget_gate and more."""

    functions = slstm


class MLSTMCell(_Cell):
    """The mLSTM cell of `qlstm_jax.cells.mlstm`; `init` there describes num_heads, key_size and chunk_size."""

    functions = mlstm


class PRLSTMCell(_Cell):
    """The PR-LSTM or PR-RNN cell of `qlstm_jax.cells.pr_lstm`, as a stream; `init` there describes its options.

    Args:
        max_length: tokens that the stream may grow to; fewer make a smaller carry, and beyond it outputs are NaN.
    """

    functions = pr_lstm

    def __init__(
        self, in_features: int, hidden_features: int, *, max_length: int = 2**pr_lstm.MAX_SLOTS - 1, **options
    ):
        super().__init__(in_features, hidden_features, **options)
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
        _check_options(type(self).__name__, self.cell_class.functions, options)
        check_stack(num_layers, dropout)
        self.in_features, self.hidden_size, self.bidirectional = in_features, hidden_size, bidirectional
        options = dict(options, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        inputs = [in_features] + [self.output_size] * (num_layers - 1)
        self.cells = nnx.List([self.cell_class(size, hidden_size, **options) for size in inputs])
        if bidirectional:
            self.backward_cells = nnx.List([self.cell_class(size, hidden_size, **options) for size in inputs])
        # Without a stream of its own the dropout takes its keys from each call, and the layer holds no state.
        stream = rngs if {"dropout", "default"} & set(rngs) else None
        shared = (1,) if variational else ()
        between = dropout and num_layers > 1
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
        functions, between = self._functions(deterministic, rngs), self._between(deterministic, rngs)
        ys, carry = run(functions, self._params(), xs, lengths, initial_carry, between)
        return (ys, carry) if return_carry else ys

    def last(self, xs, *, lengths=None, deterministic=None, rngs=None):
        """The output at each row's last valid position, (B, H); zeros at length 0.

        Bidirectional, (B, 2H): the backward half is its output at the first position, where it has read the whole.
        Arguments and errors are those of a call.
        """
        _, lengths, _ = base.prepare(xs, lengths, self.in_features)
        functions, between = self._functions(deterministic, rngs), self._between(deterministic, rngs)
        return run_last(functions, self._params(), xs, lengths, between)

    def _functions(self, deterministic, rngs):
        """What gives `unroll` and `reduce`."""
        return self.cell_class.functions

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
    """QL-LSTM layers of `qlstm_jax.cells.ql_lstm`; `init` there describes sharing, block_size, skip and more.

    layer = QLSTM(3, 8, bidirectional=True, rngs=nnx.Rngs(0))
    ys = layer(xs, lengths=lengths)               # (B, T, 3) to (B, T, 16)
    y = layer.last(xs, lengths=lengths)           # (B, 16)
    """

    cell_class = QLSTMCell


class SLSTM(_Layer):
    """sLSTM layers of `qlstm_jax.cells.slstm`; `init` there describes num_heads, forget_gate and more."""

    cell_class = SLSTMCell


class MLSTM(_Layer):
    """mLSTM layers of `qlstm_jax.cells.mlstm`; `init` there describes num_heads, key_size and chunk_size."""

    cell_class = MLSTMCell


class PRLSTM(_Layer):
    """PR-LSTM or PR-RNN layers of `qlstm_jax.cells.pr_lstm`; `init` there describes their options.

    `last` takes half the merges of a call. With max_offset, after `train()` the tree of each row begins at a random
    place up to max_offset leaves before its first token (`qlstm_jax.cells.pr_lstm_beyond`); `rngs` draws it, and there
    is no carry.
    """

    cell_class = PRLSTMCell

    def __init__(self, in_features: int, hidden_size: int, *, max_offset: int = 0, **options):
        if isinstance(max_offset, bool) or not isinstance(max_offset, int) or max_offset < 0:
            raise ValueError(f"max_offset is {max_offset!r}; expected an integer, 0 or more")
        super().__init__(in_features, hidden_size, **options)
        self.max_offset = max_offset
        self.deterministic = False  # set by train() and eval()

    def initialize_carry(self, batch_size: int, *, max_length: int = 2**pr_lstm.MAX_SLOTS - 1):
        """As for the other layers; max_length, the tokens that the stream may grow to, sets the size of the carry."""
        return self._initialize_carry(batch_size, max_length=max_length)

    def __call__(self, xs, *, lengths=None, initial_carry=None, return_carry=False, deterministic=None, rngs=None):
        """As for the other layers.

        Raises:
            ValueError: also if a carry is given or wanted under random offsets, or they get no `rngs`.
        """
        if (initial_carry is not None or return_carry) and self._moves(deterministic):
            raise ValueError(
                f"a carry is given or wanted in training with max_offset={self.max_offset}: a tree that began before "
                "its first token cannot be continued. Call eval(), or make the layer with max_offset=0."
            )
        options = {"lengths": lengths, "initial_carry": initial_carry, "return_carry": return_carry}
        return super().__call__(xs, **options, deterministic=deterministic, rngs=rngs)

    def of_tokens(self, symbols, ids, *, lengths=None, deterministic=None, rngs=None):
        """A call on the inputs symbols[ids]: in fewer products where one layer reads forward and V is small.

        Args:
            symbols: (V, D), the input of each symbol.
            ids: (B, T) integers in 0..V-1; what stands beyond `lengths` is not read.
            lengths, deterministic, rngs: as for a call.
        """
        if self._reads_tokens_alone(deterministic):
            return pr_lstm_tokens.unroll(self.cells[0].params, symbols, ids, lengths=lengths)
        return self(tokens.read(symbols, ids), lengths=lengths, deterministic=deterministic, rngs=rngs)

    def last_of_tokens(self, symbols, ids, *, lengths=None, deterministic=None, rngs=None):
        """`last` of the inputs symbols[ids], in far fewer merges; see `of_tokens`."""
        if self._reads_tokens_alone(deterministic):
            return pr_lstm_tokens.reduce(self.cells[0].params, symbols, ids, lengths=lengths).h
        return self.last(tokens.read(symbols, ids), lengths=lengths, deterministic=deterministic, rngs=rngs)

    def _reads_tokens_alone(self, deterministic) -> bool:
        return len(self.cells) == 1 and not self.bidirectional and not self._moves(deterministic)

    def associativity(self, xs, *, lengths=None, rngs):
        """The penalty of `qlstm_jax.cells.pr_lstm_beyond.associativity`, mean over the layers; `rngs` draws triples.

        Raises:
            ValueError: if the layer is bidirectional, or a shape does not fit.
        """
        if self.bidirectional:
            raise ValueError("bidirectional is True; expected a layer that reads forward, whose spans are prefixes'")
        key, penalties = rngs if isinstance(rngs, jax.Array) else rngs.dropout(), []
        for number, (params,) in enumerate(self._params()):
            layer_key = jax.random.fold_in(key, number)
            penalties.append(pr_lstm_beyond.associativity(params, xs, layer_key, lengths=lengths))
            if number + 1 < len(self.cells):
                xs, _ = pr_lstm.unroll(params, xs, lengths=lengths)
        return sum(penalties) / len(penalties)

    def _moves(self, deterministic) -> bool:
        return self.max_offset > 0 and not (self.deterministic if deterministic is None else deterministic)

    def _functions(self, deterministic, rngs):
        if not self._moves(deterministic):
            return pr_lstm
        if rngs is None:
            raise ValueError(
                f"rngs is None in training with max_offset={self.max_offset}; expected an nnx.Rngs or a key to draw "
                "the offsets with. To evaluate, call eval() first."
            )
        key = rngs if isinstance(rngs, jax.Array) else rngs.dropout()
        return pr_lstm_beyond.RandomOffset(jax.random.fold_in(key, 1), self.max_offset)
