"""The call of a sequence layer for modules that are no stack of cells: `Transformer` and `XLSTM`."""

import math
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Float

from qlstm_jax import stack
from qlstm_jax.cells import common
from qlstm_jax.nnx.protocol import TokenInputs


class SequenceModule(TokenInputs, nnx.Module):
    """Sequences in, sequences out, called as the layers of `qlstm_jax.nnx` and `flax.nnx.RNN` are.

    A subclass sets the attributes and has `_read` and `initialize_carry`.

    Attributes:
        in_features: D, features of the input.
        output_size: H, features of the output.
        has_carry: whether a sequence can be continued in another call.
        bidirectional: False: the outputs are no two halves that read forward and backward.
    """

    in_features: int
    bidirectional: bool
    output_size: int
    has_carry: bool

    def initialize_carry(self, batch_size: int) -> Any:
        """The carry before the first token.

        Raises:
            ValueError: if there is none.
        """
        raise NotImplementedError

    def _read(
        self,
        sequence: common.Sequence,
        carry: Any,
        deterministic: bool | None,
        rngs: nnx.Rngs | Array | None,
        *,
        return_carry: bool,
    ) -> tuple[Any, Float[Array, "batch time h"]]:
        """(carry or None, outputs), these 0 in padding; carry is None at the start of a sequence."""
        raise NotImplementedError

    def __call__(
        self,
        inputs: Float[Array, "..."],
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
        """The outputs at every position; arguments and result as of `qlstm_jax.nnx.Layer`.

        Raises:
            TypeError: if the inputs are no array of real numbers, or rngs is nothing to draw with.
            ValueError: if a shape or carry does not fit, a length lies outside 0..T, a flag is neither True nor False,
                or a module without a carry is asked for one.
        """
        common.check_flags(return_carry=return_carry, reverse=reverse, keep_order=keep_order)
        if initial_carry is not None or return_carry:
            self._check_has_carry()
        sequence, batch = stack.batch_major(inputs, seq_lengths, resets, self.in_features, time_major)
        sequence = stack.read_backward(sequence) if reverse else sequence
        start = stack.check_batch(initial_carry, batch)
        start = jax.tree.map(lambda a: a.reshape(math.prod(batch), *a.shape[len(batch) :]), start)
        end, ys = self._read(sequence, start, deterministic, rngs, return_carry=return_carry)
        ys = common.reverse(ys, sequence.seq_lengths) if reverse and keep_order else ys
        outputs = stack.as_given(ys, batch, time_major)
        if not return_carry:
            return outputs
        return jax.tree.map(lambda a: a.reshape(*batch, *a.shape[1:]), end), outputs

    def last(
        self,
        inputs: Float[Array, "..."],
        *,
        seq_lengths: Any = None,
        resets: Any = None,
        time_major: bool = False,
        deterministic: bool | None = None,
        rngs: nnx.Rngs | Array | None = None,
    ) -> Float[Array, "..."]:
        """The output at each sequence's last valid position, (*batch, H); zeros at length 0.

        Arguments and errors are those of a call.
        """
        sequence, batch = stack.batch_major(inputs, seq_lengths, resets, self.in_features, time_major)
        _, ys = self._read(sequence, None, deterministic, rngs, return_carry=False)
        ys = common.last_valid(ys, sequence.seq_lengths)
        return ys.reshape(*batch, ys.shape[-1])

    def _check_has_carry(self) -> None:
        if not self.has_carry:
            raise ValueError(
                f"a {type(self).__name__} has no carry: it reads each sequence whole. Leave out initial_carry and "
                "return_carry, or use a recurrent layer of qlstm_jax.nnx."
            )
