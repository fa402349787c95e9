"""One time step of each cell, for `flax.nnx.RNN`; they own the parameters too that the sequence layers use."""

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from qlstm_jax import describe, stack
from qlstm_jax.cells import common
from qlstm_jax.describe import Initializer
from qlstm_jax.nnx import checks
from qlstm_jax.nnx.arguments import keeps_arguments

NO_METADATA: Mapping[str, Any] = MappingProxyType({})


class Cell(nnx.RNNCellBase):
    """The base class of the cells: one time step, for `flax.nnx.RNN`.

    A subclass sets `functions`, the module that has the formula.

    Args:
        in_features: D, features of the input.
        hidden_features: H, features of the output.
        kernel_init: initialiser (key, shape, dtype) of the kernels that the input meets; None for the cell's own.
        recurrent_kernel_init: of the kernels that the hidden state meets; None for the cell's own.
        bias_init: of the biases; None for the cell's own.
        kernel_metadata: metadata of the kernels' variables, such as their sharding; see `flax.nnx.Linear`.
        recurrent_kernel_metadata: that of the recurrent kernels.
        bias_metadata: that of the biases.
        dtype: of activations; None for float32. Gates and sums are float32 whatever it is.
        param_dtype: of the parameters.
        rngs: for the initial parameters (stream "params").
        options: those of the cell's `init`.

    Raises:
        TypeError: for an option that the cell does not have, an initialiser that is no function, rngs that are none.
        ValueError: for a size or option out of range, or rngs without keys for parameters.
    """

    functions: ClassVar[common.Cell]
    num_feature_axes = 1

    @keeps_arguments
    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        kernel_init: Initializer | None = None,
        recurrent_kernel_init: Initializer | None = None,
        bias_init: Initializer | None = None,
        kernel_metadata: Mapping[str, Any] = NO_METADATA,
        recurrent_kernel_metadata: Mapping[str, Any] = NO_METADATA,
        bias_metadata: Mapping[str, Any] = NO_METADATA,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
        **options: Any,
    ) -> None:
        describe.check_options(type(self).__name__, self.functions, options)
        checks.check_rngs(rngs)
        given = {"kernel": kernel_init, "recurrent_kernel": recurrent_kernel_init, "bias": bias_init}
        metadata = {"kernel": kernel_metadata, "recurrent_kernel": recurrent_kernel_metadata, "bias": bias_metadata}
        describe.check_initializers(**{f"{name}_init": init for name, init in given.items()})
        checks.check_metadata(**{f"{name}_metadata": value for name, value in metadata.items()})
        dtypes = {"dtype": jnp.float32 if dtype is None else dtype, "param_dtype": param_dtype}
        params = self.functions.init(rngs.params(), in_features, hidden_features, **dtypes, **options)
        self.in_features, self.hidden_features = in_features, hidden_features
        self.params_class = type(params)  # which depends on the options where a cell has several kinds
        for field in dataclasses.fields(params):
            value = getattr(params, field.name)
            if describe.is_array(value):
                init = describe.initializer(field.name, given)
                value = value if init is None else init(rngs.params(), value.shape, value.dtype)
                value = nnx.Param(value, **metadata.get(describe.role(field.name) or "", NO_METADATA))
            setattr(self, field.name, value)

    @property
    def params(self) -> Any:
        """The cell's `Params`, for use with its functions."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self.params_class)}
        return self.params_class(
            **{name: value[...] if isinstance(value, nnx.Variable) else value for name, value in fields.items()}
        )

    def __call__(self, carry: Any, inputs: Float[Array, "*batch d"]) -> tuple[Any, Float[Array, "*batch h"]]:
        """One time step: inputs (..., D) to (carry, outputs (..., H)).

        Raises:
            TypeError: if the inputs are no array of real numbers.
            ValueError: if the inputs do not end with D, or the carry is not one of this cell and batch.
        """
        stack.check_inputs(inputs, self.in_features)
        return stack.step(self.functions, self.params, carry, inputs)

    def initialize_carry(
        self,
        input_shape: Sequence[int],
        rngs: nnx.Rngs | nnx.RngStream | Array | None = None,
        carry_init: Initializer | None = None,
    ) -> Any:
        """The carry before the first token: zeros, or drawn by carry_init.

        Args:
            input_shape: (..., D), the shape of one time step.
            rngs: to draw with (stream "carry"), or a key; a carry of zeros needs none.
            carry_init: initialiser (key, shape, dtype) of the carry's floating-point arrays.

        Raises:
            TypeError: if carry_init is no function, or rngs is nothing to draw with.
            ValueError: if input_shape is no shape that ends with D, or for a carry_init without rngs.
        """
        stack.check_input_shape(input_shape, self.in_features)
        describe.check_initializers(carry_init=carry_init)
        checks.check_source(rngs, "carry")
        carry = stack.initial_carry(self.functions, self.params, input_shape, **self._carry_options())
        return carry if carry_init is None else stack.draw_carry(carry, carry_init, carry_key(rngs))

    def _carry_options(self) -> dict[str, Any]:
        return {}


def carry_key(rngs: nnx.Rngs | nnx.RngStream | Array | None) -> Array | None:
    """A key to draw a carry with."""
    stream = rngs.carry if isinstance(rngs, nnx.Rngs) else rngs
    return stream() if isinstance(stream, nnx.RngStream) else stream


def cell_class(layer: str, functions: common.Cell, base: type[Cell] = Cell) -> type[Cell]:
    """The class of the cell of a layer, LSTMCell for "LSTM"; `base` has what it has beyond the others."""
    summary = f"The cell of `{functions.__name__}`, one time step; works inside `flax.nnx.RNN`."
    attributes = described(functions, summary, Cell.__init__, base.__init__, base=Cell)
    return describe.subclass(describe.cell_class_name(layer), base, attributes)


def described(functions: common.Cell, summary: str, *constructors: Any, base: type) -> dict[str, Any]:
    """The attributes of a class over a cell: its functions, documentation and signature."""
    return {
        "functions": functions,
        "__module__": "qlstm_jax.nnx",
        "__doc__": describe.docstring(summary, base, functions),
        "__signature__": describe.Signature(*constructors, cell=functions),
    }
