"""Layers that read whole sequences, by the `unroll` of their cell; they are called as `flax.linen.RNN` is."""

import inspect
from functools import partial
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from qlstm_jax import describe, stack
from qlstm_jax.cells import common
from qlstm_jax.cells.common import cell_options
from qlstm_jax.describe import Initializer
from qlstm_jax.linen.cells import Cell, described


class Layer(nn.Module):
    """The base class of the layers: sequences in, sequences out, by the `unroll` of a cell.

    A subclass sets `cell_class`, whose module has the formula, and has the fields of its options.

    Args:
        features: H, features of the output of one direction.
        num_layers: layers, each reading the outputs of the one below.
        bidirectional: whether each layer also reads backward; its two outputs lie side by side, 2H.
        dropout: rate between layers, not after the last.
        variational: whether it drops the same channels at all positions of a sequence (arXiv 1512.05287).
        kernel_init: initialiser (key, shape, dtype) of the kernels that the input meets; None for the cell's own.
        recurrent_kernel_init: of the kernels that the hidden state meets; None for the cell's own.
        bias_init: of the biases; None for the cell's own.
        dtype: of activations; None for float32. Gates and sums are float32 whatever it is.
        param_dtype: of the parameters.
    """

    features: int
    num_layers: int = 1
    bidirectional: bool = False
    dropout: float = 0.0
    variational: bool = False
    kernel_init: Initializer | None = None
    recurrent_kernel_init: Initializer | None = None
    bias_init: Initializer | None = None
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    cell_class: ClassVar[type[Cell]]
    functions: ClassVar[common.Cell]

    def setup(self) -> None:
        """Names the cells as their parameters' paths have them, and the dropout between layers."""
        stack.check_stack(self.num_layers, self.dropout, bidirectional=self.bidirectional, variational=self.variational)
        common.check_sizes(features=self.features)
        self.cells = [self._cell() for _ in range(self.num_layers)]
        if self.bidirectional:
            self.backward_cells = [self._cell() for _ in range(self.num_layers)]
        self.between = nn.Dropout(self.dropout, broadcast_dims=(1,) if self.variational else ())

    @nn.nowrap
    def _cell(self, **kwargs: Any) -> Cell:
        options = {name: getattr(self, name) for name in cell_options(self.functions)}
        return self.cell_class(
            features=self.features,
            kernel_init=self.kernel_init,
            recurrent_kernel_init=self.recurrent_kernel_init,
            bias_init=self.bias_init,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            **options,
            **kwargs,
        )

    @property
    def output_size(self) -> int:
        """Features of the outputs: H, bidirectional 2H."""
        return self.features * (2 if self.bidirectional else 1)

    @property
    def has_carry(self) -> bool:
        """Whether a sequence can be continued in another call: not where the layer also reads backward."""
        return not self.bidirectional

    @nn.nowrap
    def initialize_carry(self, batch_size: int, rng: Array | None = None, carry_init: Initializer | None = None) -> Any:
        """The carry before the first token: of one layer that of its cell, of several a tuple with one for each.

        Args:
            batch_size: B.
            rng: a key to draw with; a carry of zeros needs none.
            carry_init: initialiser (key, shape, dtype) of the carry's floating-point arrays; None for zeros.

        Raises:
            ValueError: if the layer is bidirectional, or for a carry_init without a key.
        """
        describe.check_initializers(carry_init=carry_init)
        return stack.draw_carry(self._zero_carry(batch_size), carry_init, rng)

    @nn.nowrap
    def _zero_carry(self, batch_size: int, **options: Any) -> Any:
        """`options` are those of the cell's `initial_carry`."""
        stack.check_has_carry(self.bidirectional)
        params = self._cell(parent=None).template(1)  # no carry depends on the size of the input
        start = self.functions.initial_carry
        return stack.pack_carries([start(params, batch_size, **options) for _ in range(self.num_layers)])

    def __call__(
        self,
        inputs: Float[Array, "... d"],
        *,
        initial_carry: Any = None,
        seq_lengths: Any = None,
        resets: Any = None,
        return_carry: bool = False,
        time_major: bool = False,
        reverse: bool = False,
        keep_order: bool = False,
        deterministic: bool = True,
    ) -> Any:
        """The outputs at every position; the call of `flax.linen.RNN`.

        Args:
            inputs: (*batch, T, D), or (T, *batch, D) with time_major.
            initial_carry: where to continue from; default `initialize_carry`.
            seq_lengths: optional (*batch,) number of valid positions; nothing beyond is read.
            resets: optional booleans (*batch, T), or (T, *batch) with time_major, true where a new sequence begins:
                each is read as if alone, in both directions.
            return_carry: whether to return the carry after each sequence's last valid position too.
            time_major: whether time is the first axis of inputs and outputs.
            reverse: whether each sequence is read from its last valid position to its first.
            keep_order: whether the outputs of a reversed call are in the order of the inputs, not in that of reading.
            deterministic: whether dropout is off; on, it draws from the stream "dropout".

        Returns:
            outputs (*batch, T, H or 2H), 0 beyond `seq_lengths`; with return_carry (carry, outputs).

        Raises:
            TypeError: if the inputs are no array of real numbers.
            ValueError: if a size, option, shape or carry does not fit, a length lies outside 0..T, a flag is neither
                True nor False, or a bidirectional layer is asked for a carry.
        """
        features = stack.check_inputs(inputs)
        common.check_flags(return_carry=return_carry)
        if initial_carry is not None or return_carry:
            stack.check_has_carry(self.bidirectional)
        carry, outputs = stack.run(
            self._cell_functions(deterministic),
            self._params(features),
            inputs,
            in_features=features,
            initial_carry=initial_carry,
            seq_lengths=seq_lengths,
            resets=resets,
            time_major=time_major,
            reverse=reverse,
            keep_order=keep_order,
            between=self._between(deterministic),
        )
        return (carry, outputs) if return_carry else outputs

    def last(
        self,
        inputs: Float[Array, "... d"],
        *,
        seq_lengths: Any = None,
        resets: Any = None,
        time_major: bool = False,
        deterministic: bool = True,
    ) -> Float[Array, "*batch h"]:
        """The output at each sequence's last valid position, (*batch, H); zeros at length 0.

        Bidirectional, (*batch, 2H): the backward half is its output at the first position, where it has read the whole.
        Arguments and errors are those of a call.
        """
        features = stack.check_inputs(inputs)
        return stack.last(
            self._cell_functions(deterministic),
            self._params(features),
            inputs,
            in_features=features,
            seq_lengths=seq_lengths,
            resets=resets,
            time_major=time_major,
            between=self._between(deterministic),
        )

    def _cell_functions(self, deterministic: bool) -> common.Cell:
        """The functions that a call with these arguments runs; default the module of the cell."""
        return self.functions

    def _between(self, deterministic: bool) -> stack.Between:
        """What drops between layers in a call with this argument."""
        common.check_flags(deterministic=deterministic)
        if self.dropout and self.num_layers > 1 and not deterministic and not self.has_rng("dropout"):
            raise ValueError('dropout has nothing to draw with; expected rngs={"dropout": key}, or deterministic=True')
        return partial(self.between, deterministic=deterministic)

    def _params(self, in_features: int) -> list[stack.Directions]:
        sizes = [in_features] + [self.output_size] * (self.num_layers - 1)
        directions = [self.cells, self.backward_cells] if self.bidirectional else [self.cells]
        layers = zip(*directions, strict=True)
        return [tuple(cell.params(size) for cell in layer) for layer, size in zip(layers, sizes, strict=True)]


def layer_class(name: str, cell: type[Cell], base: type[Layer] = Layer) -> type[Layer]:
    """The class of the layers over a cell, `base` having what they have beyond the others."""
    functions = cell.functions
    summary = f"Layers of `{functions.__name__}`." if base is Layer else inspect.getdoc(base) or ""
    attributes = described(functions, summary, Layer) | {"cell_class": cell}
    return describe.subclass(name, base, attributes)
