"""One time step of each cell, for `flax.nnx.RNN`; they own the parameters too that the sequence layers use."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from qlstm_jax.cells import common, gru, lstm, mlstm, pr_lstm, ql_lstm, rnn, slstm
from qlstm_jax.nnx.options import check_options
from qlstm_jax.stack import initial_carry, step


class Cell(nnx.RNNCellBase):
    """The base class of the cells: one time step, for `flax.nnx.RNN`.

    A subclass sets `functions`, the module that has the formula.

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
        check_options(type(self).__name__, self.functions, options)
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


class SimpleCell(Cell):
    """The plain recurrent cell of `qlstm_jax.cells.rnn`."""

    functions = rnn


class LSTMCell(Cell):
    """The LSTM cell of `qlstm_jax.cells.lstm`, whose `init` describes chrono; the carry is (c, h)."""

    functions = lstm


class GRUCell(Cell):
    """The GRU cell of `qlstm_jax.cells.gru`, whose `init` describes chrono."""

    functions = gru


class QLSTMCell(Cell):
    """The QL-LSTM cell of `qlstm_jax.cells.ql_lstm`; `init` there describes sharing, block_size, skip and more.

    cell = QLSTMCell(3, 8, block_size=16, rngs=nnx.Rngs(0))
    ys = nnx.RNN(cell)(xs)                        # (B, T, 3) to (B, T, 8)
    """

    functions = ql_lstm


class SLSTMCell(Cell):
    """The sLSTM cell of `qlstm_jax.cells.slstm`; `init` there describes num_heads, forget_gate and more."""

    functions = slstm


class MLSTMCell(Cell):
    """The mLSTM cell of `qlstm_jax.cells.mlstm`; `init` there describes num_heads, key_size and chunk_size."""

    functions = mlstm


class PRLSTMCell(Cell):
    """The PR-LSTM or PR-RNN cell of `qlstm_jax.cells.pr_lstm`, as a stream; `init` there describes its options.

    Args:
        max_length: tokens that the stream may grow to; fewer make a smaller carry, and beyond it outputs are NaN.
    """

    functions = pr_lstm

    def __init__(
        self, in_features: int, hidden_features: int, *, max_length: int = 2**pr_lstm.MAX_SLOTS - 1, **options
    ):
        super().__init__(in_features, hidden_features, **options)
        common.check_sizes(max_length=max_length)
        self.max_length = max_length

    def _carry_options(self):
        return {"max_length": self.max_length}
