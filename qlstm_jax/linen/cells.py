"""One time step of each cell, for `flax.linen.RNN`; they own the parameters too that the sequence layers use."""

import dataclasses
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from qlstm_jax import describe, stack
from qlstm_jax.cells import common
from qlstm_jax.cells.common import cell_options
from qlstm_jax.describe import Initializer


# Linen evaluates an initialiser's shape each time a module is applied: under jit it is traced only once.
@partial(jax.jit, static_argnums=(1, 2, 3, 4))
def _draw(key: Array, init: Callable[..., Any], input_size: int, features: int, options: tuple[Any, ...]) -> Any:
    return init(key, input_size, features, **dict(options))


class Cell(nn.RNNCellBase):
    """The base class of the cells: one time step, for `flax.linen.RNN`.

    A subclass sets `functions`, the module that has the formula, whose options are its fields.

    Args:
        features: H, features of the output.
        kernel_init: initialiser (key, shape, dtype) of the kernels that the input meets; None for the cell's own.
        recurrent_kernel_init: of the kernels that the hidden state meets; None for the cell's own.
        bias_init: of the biases; None for the cell's own.
        carry_init: of the carry's floating-point arrays; None for zeros.
        dtype: of activations; None for float32. Gates and sums are float32 whatever it is.
        param_dtype: of the parameters.
    """

    features: int
    kernel_init: Initializer | None = None
    recurrent_kernel_init: Initializer | None = None
    bias_init: Initializer | None = None
    carry_init: Initializer | None = None
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    functions: ClassVar[common.Cell]
    num_feature_axes: ClassVar[int] = 1

    @nn.nowrap
    def _init(self, input_size: int) -> Callable[[Array], Any]:
        options = {name: getattr(self, name) for name in cell_options(self.functions)}
        options |= {"dtype": jnp.float32 if self.dtype is None else self.dtype, "param_dtype": self.param_dtype}
        names = "kernel_init", "recurrent_kernel_init", "bias_init", "carry_init"
        describe.check_initializers(**{name: getattr(self, name) for name in names})
        common.check_sizes(features=self.features)
        for name, value in options.items():
            if not isinstance(value, Hashable):
                raise ValueError(f"{name} is {common.shown(value)}; expected a value that can be hashed")
        return lambda key: _draw(key, self.functions.init, input_size, self.features, tuple(options.items()))

    @nn.nowrap
    def template(self, input_size: int) -> Any:
        """The cell's `Params` with shapes for arrays."""
        draw = self._init(input_size)
        return jax.eval_shape(lambda: draw(jax.random.key(0)))

    @nn.compact
    def params(self, input_size: int) -> Any:
        """The cell's `Params`, for use with its functions on inputs of `input_size` features."""
        draw, template = self._init(input_size), self.template(input_size)
        given = {
            "kernel": self.kernel_init,
            "recurrent_kernel": self.recurrent_kernel_init,
            "bias": self.bias_init,
        }
        arrays = {}
        for field in dataclasses.fields(template):
            shape = getattr(template, field.name)
            if describe.is_array(shape):
                init = describe.initializer(field.name, given)
                own = lambda key, name=field.name: getattr(draw(key), name)  # noqa: E731
                self._check_stored(field.name, shape.shape, input_size)
                arguments = (own,) if init is None else (init, shape.shape, shape.dtype)
                arrays[field.name] = self.param(field.name, *arguments)
        return dataclasses.replace(template, **arrays)

    @nn.nowrap
    def _check_stored(self, name: str, shape: tuple[int, ...], input_size: int) -> None:
        """Raises ValueError where the variables hold a parameter of another shape than these inputs need."""
        stored = nn.meta.unbox(self.get_variable("params", name)) if self.has_variable("params", name) else None
        if stored is not None and jnp.shape(stored) != shape:
            raise ValueError(
                f"the variables hold {name} of shape {jnp.shape(stored)}; expected {shape} for inputs of {input_size} "
                f"features and features={self.features}"
            )

    def __call__(self, carry: Any, inputs: Float[Array, "*batch d"]) -> tuple[Any, Float[Array, "*batch h"]]:
        """One time step: inputs (..., D) to (carry, outputs (..., H)).

        Raises:
            TypeError: if the inputs are no array of real numbers.
            ValueError: if an option is out of range, or the carry is not one of this cell and batch.
        """
        return stack.step(self.functions, self.params(stack.check_inputs(inputs)), carry, inputs)

    @nn.nowrap
    def initialize_carry(self, rng: Array | None, input_shape: Sequence[int]) -> Any:
        """The carry before the first token: zeros, or drawn by carry_init.

        Args:
            rng: a key to draw with; a carry of zeros needs none.
            input_shape: (..., D), the shape of one time step.

        Raises:
            ValueError: if input_shape is no shape, or for a carry_init without a key.
        """
        template = self.template(stack.check_input_shape(input_shape))
        carry = stack.initial_carry(self.functions, template, input_shape, **self._carry_options())
        return stack.draw_carry(carry, self.carry_init, rng)

    @nn.nowrap
    def _carry_options(self) -> dict[str, Any]:
        return {}


def option_fields(functions: common.Cell) -> dict[str, Any]:
    """The options of a cell as the fields of a Linen module: their annotations and defaults."""
    options = cell_options(functions)
    annotations = {name: p.annotation for name, p in options.items()}
    return {"__annotations__": annotations, **{name: p.default for name, p in options.items()}}


def cell_class(layer: str, functions: common.Cell, base: type[Cell] = Cell) -> type[Cell]:
    """The class of the cell of a layer, LSTMCell for "LSTM"; `base` has what it has beyond the others."""
    summary = f"The cell of `{functions.__name__}`, one time step; works inside `flax.linen.RNN`."
    return describe.subclass(describe.cell_class_name(layer), base, described(functions, summary, Cell))


def described(functions: common.Cell, summary: str, base: type) -> dict[str, Any]:
    """The attributes of a class over a cell: its functions, fields and documentation."""
    return {
        "functions": functions,
        "__module__": "qlstm_jax.linen",
        "__doc__": describe.docstring(summary, base, functions),
        **option_fields(functions),
    }
