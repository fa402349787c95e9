"""A tape in, a tape out: the model of the formal languages (arXiv 2207.02098)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from qlstm_jax.cells import common
from qlstm_jax.models.checks import check_model
from qlstm_jax.models.streams import layer_step
from qlstm_jax.nnx.arguments import keeps_arguments
from qlstm_jax.nnx.checks import check_dropout
from qlstm_jax.nnx.protocol import SequenceLayer


class Transducer(nnx.Module):
    """A sequence layer over a framed tape, then a linear readout at the requested positions.

        y_t = readout(h_t) W + b          readout relu as in arXiv 2605.17108, or none

    Args:
        layer: a `SequenceLayer`.
        output_size: K, symbols of the output.
        readout: "relu" or "none".
        dropout: rate before the last linear map.
        rngs: for the initial parameters.

    Raises:
        TypeError: for a layer or rngs that are none.
        ValueError: for a size, rate or readout out of range.
    """

    @keeps_arguments
    def __init__(
        self,
        layer: SequenceLayer,
        output_size: int,
        *,
        readout: str = "relu",
        dropout: float = 0.0,
        rngs: nnx.Rngs,
    ) -> None:
        check_model(layer, rngs, rates={"dropout": dropout}, output_size=output_size)
        common.check_choice("readout", readout, ("relu", "none"))
        self.layer = layer
        self.readout = readout
        self.dropout = nnx.Dropout(dropout)
        self.head = nnx.Linear(layer.output_size, output_size, rngs=rngs)

    def __call__(
        self,
        xs: Float[ArrayLike, "batch time d"],
        *,
        seq_lengths: Any = None,
        resets: Any = None,
        rngs: nnx.Rngs | Array | None = None,
    ) -> Float[Array, "batch time k"]:
        """xs (B, T, D) to logits (B, T, K); resets (B, T) are true where a new sequence begins."""
        xs = common.as_numbers("xs", xs)
        return self._read(self.layer(xs, seq_lengths=seq_lengths, resets=resets, rngs=rngs), rngs)

    def last(
        self, xs: Float[ArrayLike, "batch time d"], *, seq_lengths: Any = None, rngs: nnx.Rngs | Array | None = None
    ) -> Float[Array, "batch k"]:
        """xs (B, T, D) to the logits (B, K) of each row's last valid position."""
        xs = common.as_numbers("xs", xs)
        return self._read(self.layer.last(xs, seq_lengths=seq_lengths, rngs=rngs), rngs)

    def from_tokens(
        self,
        symbols: Float[Array, "vocabulary d"],
        ids: Int[Array, "batch time"],
        *,
        seq_lengths: Any = None,
        rngs: nnx.Rngs | Array | None = None,
    ) -> Float[Array, "batch time k"]:
        """A call on the inputs symbols[ids], as the layer's `from_tokens`."""
        return self._read(self.layer.from_tokens(symbols, ids, seq_lengths=seq_lengths, rngs=rngs), rngs)

    def last_from_tokens(
        self,
        symbols: Float[Array, "vocabulary d"],
        ids: Int[Array, "batch time"],
        *,
        seq_lengths: Any = None,
        rngs: nnx.Rngs | Array | None = None,
    ) -> Float[Array, "batch k"]:
        """`last` of the inputs symbols[ids], as the layer's `last_from_tokens`."""
        return self._read(
            self.layer.last_from_tokens(symbols, ids, seq_lengths=seq_lengths, rngs=rngs),
            rngs,
        )

    @property
    def has_carry(self) -> bool:
        """Whether it reads streams, as the layer says."""
        return self.layer.has_carry

    def initialize_carry(self, batch_size: int) -> Any:
        """The layer's carry before the first position; raises ValueError unless `has_carry`."""
        return self.layer.initialize_carry(batch_size)

    def step(
        self, carry: Any, x: Float[ArrayLike, "batch d"], *, reset: ArrayLike | None = None
    ) -> tuple[Any, Float[Array, "batch k"]]:
        """One position of the tape, x (B, D) to (carry, logits (B, K)), without dropout.

        Args:
            carry: from `initialize_carry`, or the step before.
            x: (B, D).
            reset: optional (B,) booleans, true where a new tape begins with this position.

        Raises:
            ValueError: as a call.
        """
        carry, y = layer_step(self.layer, carry, jnp.asarray(x), reset)
        y = jax.nn.relu(y) if self.readout == "relu" else y
        return carry, self.head(y.astype(self.head.kernel.dtype))

    def _read(self, h: Float[Array, "*rows h"], rngs: nnx.Rngs | Array | None) -> Float[Array, "*rows k"]:
        check_dropout(None, rngs, self.dropout)
        h = jax.nn.relu(h) if self.readout == "relu" else h
        logits: Array = self.head(self.dropout(h.astype(self.head.kernel.dtype), rngs=rngs))
        return logits
