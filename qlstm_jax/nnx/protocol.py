"""A sequence layer, as the models see it."""

from typing import Any, Protocol, cast, runtime_checkable

from jaxtyping import Array, Float, Int

from qlstm_jax.cells import common


@runtime_checkable
class SequenceLayer(Protocol):
    """Sequences in, sequences out: the layers of `qlstm_jax.nnx`, and what may stand in their place in a model."""

    in_features: int
    bidirectional: bool  # whether the second half of the outputs is read backward

    @property
    def output_size(self) -> int:
        """Features of the outputs."""

    @property
    def has_carry(self) -> bool:
        """Whether a sequence can be continued in another call: not by a bidirectional layer or a Transformer."""

    def initialize_carry(self, batch_size: int) -> Any:
        """The carry before the first token; raises ValueError where there is none."""

    def __call__(
        self,
        inputs: Array,
        *,
        initial_carry: Any = None,
        seq_lengths: Any = None,
        resets: Any = None,
        return_carry: bool = False,
        time_major: bool = False,
        reverse: bool = False,
        keep_order: bool = False,
        deterministic: bool | None = None,
        rngs: Any = None,
    ) -> Any:
        """The outputs at every position or, with return_carry, (carry, outputs); as `flax.nnx.RNN` is called."""

    def last(
        self,
        inputs: Array,
        *,
        seq_lengths: Any = None,
        resets: Any = None,
        time_major: bool = False,
        deterministic: bool | None = None,
        rngs: Any = None,
    ) -> Float[Array, "*batch h"]:
        """The output at each sequence's last valid position; zeros at length 0."""

    def from_tokens(
        self, symbols: Array, ids: Array, *, seq_lengths: Any = None, resets: Any = None, rngs: Any = None
    ) -> Array:
        """A call on the inputs symbols[ids], as `TokenInputs` has it."""

    def last_from_tokens(
        self, symbols: Array, ids: Array, *, seq_lengths: Any = None, resets: Any = None, rngs: Any = None
    ) -> Array:
        """`last` of the inputs symbols[ids]."""


class TokenInputs:
    """Inputs by token, for a sequence layer that gains nothing from knowing them: the inputs are looked up first."""

    def from_tokens(
        self,
        symbols: Float[Array, "vocabulary d"],
        ids: Int[Array, "batch time"],
        *,
        seq_lengths: Any = None,
        resets: Any = None,
        deterministic: bool | None = None,
        rngs: Any = None,
    ) -> Float[Array, "batch time h"]:
        """A call on the inputs symbols[ids].

        Args:
            symbols: (V, D), the input of each symbol.
            ids: (B, T) integers in 0..V-1; nothing beyond `seq_lengths` is read.
            seq_lengths: as for a call.
            resets: as for a call.
            deterministic: as for a call.
            rngs: as for a call.
        """
        layer = cast(SequenceLayer, self)
        options = {"seq_lengths": seq_lengths, "resets": resets, "deterministic": deterministic, "rngs": rngs}
        ys: Array = layer(common.look_up(symbols, ids, seq_lengths), **options)
        return ys

    def last_from_tokens(
        self,
        symbols: Float[Array, "vocabulary d"],
        ids: Int[Array, "batch time"],
        *,
        seq_lengths: Any = None,
        resets: Any = None,
        deterministic: bool | None = None,
        rngs: Any = None,
    ) -> Float[Array, "batch h"]:
        """`last` of the inputs symbols[ids]; see `from_tokens`."""
        layer = cast(SequenceLayer, self)
        options = {"seq_lengths": seq_lengths, "resets": resets, "deterministic": deterministic, "rngs": rngs}
        return layer.last(common.look_up(symbols, ids, seq_lengths), **options)
