"""Layers that read whole sequences, by the `unroll` of their cell; they are called as `flax.nnx.RNN` is."""

import inspect
from collections.abc import Mapping
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
from qlstm_jax.nnx.cells import NO_METADATA, Cell, carry_key, described
from qlstm_jax.nnx.dropout import applied, dropout_stream
from qlstm_jax.nnx.protocol import TokenInputs


class Layer(TokenInputs, nnx.Module):
    """The base class of the layers: sequences in, sequences out, by the `unroll` of a cell.

    A subclass sets `cell_class`, whose module has the formula.

    Args:
        in_features: D, features of the input.
        hidden_features: H, features of the output of one direction.
        num_layers: layers, each reading the outputs of the one below.
        bidirectional: whether each layer also reads backward; its two outputs lie side by side, 2H.
        dropout: rate between layers (not after the last), by `nnx.Dropout`: on after `train()`, off after `eval()`.
        variational: whether it drops the same channels at all positions of a sequence (arXiv 1512.05287).
        kernel_init: initialiser (key, shape, dtype) of the kernels that the input meets; None for the cell's own.
        recurrent_kernel_init: of the kernels that the hidden state meets; None for the cell's own.
        bias_init: of the biases; None for the cell's own.
        kernel_metadata: metadata of the kernels' variables, such as their sharding; see `flax.nnx.Linear`.
        recurrent_kernel_metadata: that of the recurrent kernels.
        bias_metadata: that of the biases.
        dtype: of activations; None for float32. Gates and sums are float32 whatever it is.
        param_dtype: of the parameters.
        rngs: for the initial parameters (stream "params") and the dropout (stream "dropout").
        options: those of the cell.

    Raises:
        TypeError: for an option that the cell does not have, an initialiser that is no function, rngs that are none.
        ValueError: for a size, rate or option out of range.
    """

    cell_class: ClassVar[type[Cell]]
    functions: ClassVar[common.Cell]

    @keeps_arguments
    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        variational: bool = False,
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
        stack.check_stack(num_layers, dropout, bidirectional=bidirectional, variational=variational)
        common.check_sizes(in_features=in_features, hidden_features=hidden_features)
        checks.check_rngs(rngs)
        self.in_features, self.hidden_features, self.bidirectional = in_features, hidden_features, bidirectional
        options |= {
            "kernel_init": kernel_init,
            "recurrent_kernel_init": recurrent_kernel_init,
            "bias_init": bias_init,
            "kernel_metadata": kernel_metadata,
            "recurrent_kernel_metadata": recurrent_kernel_metadata,
            "bias_metadata": bias_metadata,
            "dtype": dtype,
            "param_dtype": param_dtype,
            "rngs": rngs,
        }
        sizes = [in_features] + [self.output_size] * (num_layers - 1)
        self.cells = nnx.List([self.cell_class(size, hidden_features, **options) for size in sizes])
        if bidirectional:
            self.backward_cells = nnx.List([self.cell_class(size, hidden_features, **options) for size in sizes])
        shared = (1,) if variational else ()
        between = dropout and num_layers > 1
        stream = dropout_stream(rngs)
        self.dropout = nnx.Dropout(dropout, broadcast_dims=shared, rngs=stream) if between else None

    @property
    def output_size(self) -> int:
        """Features of the outputs: H, bidirectional 2H."""
        return self.hidden_features * (2 if self.bidirectional else 1)

    @property
    def has_carry(self) -> bool:
        """Whether a sequence can be continued in another call: not where the layer also reads backward."""
        return not self.bidirectional

    def initialize_carry(
        self,
        batch_size: int,
        rngs: nnx.Rngs | nnx.RngStream | Array | None = None,
        carry_init: Initializer | None = None,
    ) -> Any:
        """The carry before the first token: of one layer that of its cell, of several a tuple with one for each.

        Args:
            batch_size: B.
            rngs: to draw with (stream "carry"), or a key; a carry of zeros needs none.
            carry_init: initialiser (key, shape, dtype) of the carry's floating-point arrays; None for zeros.

        Raises:
            TypeError: if carry_init is no function, or rngs is nothing to draw with.
            ValueError: if the layer is bidirectional, batch_size is none, or for a carry_init without rngs.
        """
        describe.check_initializers(carry_init=carry_init)
        checks.check_source(rngs, "carry")
        carry = self._zero_carry(batch_size)
        return carry if carry_init is None else stack.draw_carry(carry, carry_init, carry_key(rngs))

    def _zero_carry(self, batch_size: int, **options: Any) -> Any:
        """`options` are those of the cell's `initial_carry`."""
        stack.check_has_carry(self.bidirectional)
        start = self.functions.initial_carry
        return stack.pack_carries([start(cell.params, batch_size, **options) for cell in self.cells])

    remat = "none"  # what the gradient of a call computes again, by a name of `qlstm_jax.stack.REMAT`

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
        deterministic: bool | None = None,
        rngs: nnx.Rngs | Array | None = None,
    ) -> Any:
        """The outputs at every position; the call of `flax.nnx.RNN`.

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
            deterministic: whether dropout is off; default as set by `train()` and `eval()`.
            rngs: for dropout, an `nnx.Rngs` or a key; default those of the constructor.

        Returns:
            outputs (*batch, T, H or 2H), 0 beyond `seq_lengths`; with return_carry (carry, outputs).

        Raises:
            TypeError: if the inputs are no array of real numbers, or rngs is nothing to draw with.
            ValueError: if a shape or carry does not fit, a length lies outside 0..T, a flag is neither True nor False,
                or a bidirectional layer is asked for a carry.
        """
        common.check_flags(return_carry=return_carry)
        if initial_carry is not None or return_carry:
            stack.check_has_carry(self.bidirectional)
        carry, outputs = stack.run(
            self._cell_functions(deterministic, rngs),
            self._layer_params(),
            inputs,
            in_features=self.in_features,
            initial_carry=initial_carry,
            seq_lengths=seq_lengths,
            resets=resets,
            time_major=time_major,
            reverse=reverse,
            keep_order=keep_order,
            between=applied(self.dropout, deterministic, rngs),
            remat=self.remat,
        )
        return (carry, outputs) if return_carry else outputs

    def last(
        self,
        inputs: Float[Array, "... d"],
        *,
        seq_lengths: Any = None,
        resets: Any = None,
        time_major: bool = False,
        deterministic: bool | None = None,
        rngs: nnx.Rngs | Array | None = None,
    ) -> Float[Array, "*batch h"]:
        """The output at each sequence's last valid position, (*batch, H); zeros at length 0.

        Bidirectional, (*batch, 2H): the backward half is its output at the first position, where it has read the whole.
        Arguments and errors are those of a call.
        """
        return stack.last(
            self._cell_functions(deterministic, rngs),
            self._layer_params(),
            inputs,
            in_features=self.in_features,
            seq_lengths=seq_lengths,
            resets=resets,
            time_major=time_major,
            between=applied(self.dropout, deterministic, rngs),
            remat=self.remat,
        )

    def _cell_functions(self, deterministic: bool | None, rngs: nnx.Rngs | Array | None) -> common.Cell:
        """The functions that a call with these arguments runs; default the module of the cell."""
        return self.functions

    def layer_params(self) -> list[stack.Directions]:
        """For each layer the `Params` of its directions: (forward,) or (forward, backward)."""
        return self._layer_params()

    # Called by the methods here, as `nnx.tabulate` shows each public method that is called, and cannot show params.
    def _layer_params(self) -> list[stack.Directions]:
        directions = [self.cells, self.backward_cells] if self.bidirectional else [self.cells]
        return [tuple(cell.params for cell in layer) for layer in zip(*directions, strict=True)]


def layer_class(name: str, cell: type[Cell], base: type[Layer] = Layer) -> type[Layer]:
    """The class of the layers over a cell, `base` having what they have beyond the others."""
    functions = cell.functions
    summary = f"Layers of `{functions.__name__}`." if base is Layer else inspect.getdoc(base) or ""
    attributes = described(functions, summary, Layer.__init__, base.__init__, base=Layer) | {"cell_class": cell}
    return describe.subclass(name, base, attributes)
