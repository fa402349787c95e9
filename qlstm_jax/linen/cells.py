"""One time step of each cell, for `flax.linen.RNN`; they own the parameters too that the sequence layers use."""

import dataclasses
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from qlstm_jax.cells import gru, lstm, mlstm, pr_lstm, ql_lstm, rnn, slstm
from qlstm_jax.stack import initial_carry, step


# Linen evaluates an initialiser's shape each time a module is applied: under jit it is traced only once.
@partial(jax.jit, static_argnums=(1, 2, 3, 4))
def _draw(key, init, input_size, hidden_size, options):
    return init(key, input_size, hidden_size, **dict(options))


class Cell(nn.RNNCellBase):
    """The base class of the cells: one time step, for `flax.linen.RNN`.

    A subclass sets `functions`, the module that has the formula, and `option_names`, those of its fields that are
    keywords of `functions.init`.

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
    def template(self, input_size: int):
        """The cell's `Params` with shapes for arrays."""
        return jax.eval_shape(lambda: self._init(input_size)(jax.random.key(0)))

    @nn.compact
    def params(self, input_size: int):
        """The cell's `Params`, for use with its functions on inputs of `input_size` channels."""
        init, template = self._init(input_size), self.template(input_size)
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
        return initial_carry(self.functions, self.template(input_shape[-1]), input_shape, **self._carry_options())

    @nn.nowrap
    def _carry_options(self):
        return {}


class SimpleCell(Cell):
    """The plain recurrent cell of `qlstm_jax.cells.rnn`."""

    functions = rnn


class LSTMCell(Cell):
    """The LSTM cell of `qlstm_jax.cells.lstm`, whose `init` describes chrono; the carry is (c, h)."""

    chrono: int = 0

    functions = lstm
    option_names = ("chrono",)


class GRUCell(Cell):
    """The GRU cell of `qlstm_jax.cells.gru`, whose `init` describes chrono."""

    chrono: int = 0

    functions = gru
    option_names = ("chrono",)


class QLSTMCell(Cell):
    """The QL-LSTM cell of `qlstm_jax.cells.ql_lstm`; `init` there describes sharing, block_size, skip and more.

    layer = nn.RNN(QLSTMCell(8, block_size=16))
    ys, variables = layer.init_with_output(key, xs)      # (B, T, D) to (B, T, 8)
    """

    sharing: str = "full"
    block_size: int = 32
    skip: bool = True
    epsilon: float = 1.0
    forget_bias: float = 1.0
    chrono: int = 0
    remat: bool = False

    functions = ql_lstm
    option_names = ("sharing", "block_size", "skip", "epsilon", "forget_bias", "chrono", "remat")


class SLSTMCell(Cell):
    """The sLSTM cell of `qlstm_jax.cells.slstm`; `init` there describes num_heads, forget_gate and more."""

    num_heads: int = 1
    forget_gate: str = "sigmoid"
    block_position: float = 0.0

    functions = slstm
    option_names = ("num_heads", "forget_gate", "block_position")


class MLSTMCell(Cell):
    """The mLSTM cell of `qlstm_jax.cells.mlstm`; `init` there describes num_heads, key_size and chunk_size."""

    num_heads: int = 4
    key_size: int | None = None
    chunk_size: int = 64

    functions = mlstm
    option_names = ("num_heads", "key_size", "chunk_size")


class PRLSTMCell(Cell):
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
