"""Vectors in, one vector out: classes of a sequence, a number, or a forecast."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from qlstm_jax.cells import common
from qlstm_jax.models.checks import check_model
from qlstm_jax.models.pooling import POOLINGS, pooled_size, summary
from qlstm_jax.models.streams import PooledCarry, pooled_start, pooled_step
from qlstm_jax.nnx.arguments import keeps_arguments
from qlstm_jax.nnx.checks import check_dropout
from qlstm_jax.nnx.protocol import SequenceLayer


class Predictor(nnx.Module):
    """A sequence layer, pooling over time, a linear readout.

    Args:
        layer: a `SequenceLayer` that reads D features.
        output_size: K.
        pooling: "last" output, "mean" or "max" over the valid positions, or "mean_max", both side by side.
        dropout: rate before the readout.
        rngs: for the initial parameters.

    Raises:
        TypeError: for a layer or rngs that are none.
        ValueError: for a size, rate or pooling out of range.
    """

    @keeps_arguments
    def __init__(
        self,
        layer: SequenceLayer,
        output_size: int,
        *,
        pooling: str = "last",
        dropout: float = 0.0,
        rngs: nnx.Rngs,
    ) -> None:
        check_model(layer, rngs, rates={"dropout": dropout}, output_size=output_size)
        common.check_choice("pooling", pooling, POOLINGS)
        self.layer = layer
        self.pooling = pooling
        self.dropout = nnx.Dropout(dropout)
        self.head = nnx.Linear(pooled_size(layer, pooling), output_size, rngs=rngs)

    def __call__(
        self, xs: Float[ArrayLike, "batch time d"], *, seq_lengths: Any = None, rngs: nnx.Rngs | Array | None = None
    ) -> Float[Array, "batch k"]:
        """xs (B, T, D) and seq_lengths (B,), None for T each, to (B, K). A row of length 0 is pooled to zeros.

        Raises:
            TypeError, ValueError: as the layer does.
        """
        check_dropout(None, rngs, self.dropout)
        pooled = summary(self.layer, common.as_numbers("xs", xs), seq_lengths, self.pooling, rngs)
        outputs: Array = self.head(self.dropout(pooled.astype(jnp.float32), rngs=rngs))
        return outputs

    @property
    def has_carry(self) -> bool:
        """Whether it reads streams, as the layer says."""
        return self.layer.has_carry

    def initialize_carry(self, batch_size: int) -> PooledCarry:
        """The carry of `step` before the first token.

        Raises:
            ValueError: unless `has_carry`.
        """
        return pooled_start(self.layer, batch_size, self.pooling)

    def step(
        self, carry: PooledCarry, x: Float[ArrayLike, "batch d"], *, reset: ArrayLike | None = None
    ) -> tuple[PooledCarry, Float[Array, "batch k"]]:
        """One time step, x (B, D) to (carry, the outputs (B, K) of all steps so far), without dropout.

        Args:
            carry: from `initialize_carry`, or the step before.
            x: (B, D).
            reset: optional (B,) booleans, true where a new sequence begins with this step.

        Raises:
            ValueError: if the carry or the reset does not fit.
        """
        carry, pooled = pooled_step(self.layer, carry, jnp.asarray(x), self.pooling, reset)
        return carry, self.head(pooled.astype(jnp.float32))
