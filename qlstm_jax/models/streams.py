"""Streams: a model reads one token a row and says after each what a call on all so far would say.

    carry = model.initialize_carry(batch_size)
    carry, outputs = model.step(carry, token)

Without dropout; for models whose layer has a carry. Where a row's `reset` is true, its stream begins anew before the
token.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from qlstm_jax.cells import common
from qlstm_jax.nnx.protocol import SequenceLayer


class PooledCarry(NamedTuple):
    """What a stream of pooled outputs keeps: None where the pooling does not need it."""

    layer: Any  # the layer's carry
    total: Any  # (B, H), the sum of the outputs
    highest: Any  # (B, H), the maximum of the outputs
    count: Any  # (B,), the tokens read


def layer_step(
    layer: SequenceLayer, carry: Any, x: Float[Array, "batch d"], reset: ArrayLike | None
) -> tuple[Any, Float[Array, "batch h"]]:
    """One token of a sequence layer, x (B, D) to (carry, y (B, H)).

    Raises:
        ValueError: if x, the carry or the reset does not fit, or of a layer without a carry.
    """
    resets = None if reset is None else jnp.asarray(reset)[:, None]
    carry, ys = layer(x[:, None], initial_carry=carry, resets=resets, return_carry=True, deterministic=True)
    return carry, ys[:, 0]


def pooled_start(layer: SequenceLayer, batch_size: int, pooling: str) -> PooledCarry:
    """The carry of `pooled_step` before the first token."""
    shape = (batch_size, layer.output_size)
    return PooledCarry(
        layer=layer.initialize_carry(batch_size),
        total=jnp.zeros(shape, jnp.float32) if pooling in ("mean", "mean_max") else None,
        highest=jnp.full(shape, -jnp.inf, jnp.float32) if pooling in ("max", "mean_max") else None,
        count=jnp.zeros(batch_size, jnp.int32) if pooling in ("mean", "mean_max") else None,
    )


def pooled_step(
    layer: SequenceLayer, carry: PooledCarry, x: Float[Array, "batch d"], pooling: str, reset: ArrayLike | None
) -> tuple[PooledCarry, Float[Array, "batch features"]]:
    """One token, x (B, D), to (carry, the summary of all tokens so far as `pooling.summary` gives it)."""
    inner, y = layer_step(layer, carry.layer, x, reset)
    y = y if pooling == "last" else y.astype(jnp.float32)
    if reset is not None:
        start = pooled_start(layer, x.shape[0], pooling)._replace(layer=None)
        carry = common.where(jnp.asarray(reset), start, carry._replace(layer=None))
    total, highest, count, parts = None, None, None, []
    if carry.total is not None:
        total, count = carry.total + y, carry.count + 1
        parts.append(total / count[:, None])
    if carry.highest is not None:
        highest = jnp.maximum(carry.highest, y)
        parts.append(highest)
    summary = jnp.concatenate(parts, axis=-1) if parts else y
    return PooledCarry(layer=inner, total=total, highest=highest, count=count), summary
