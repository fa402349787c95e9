"""What several merges use: initial values, layer normalisation, distances of states."""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from qlstm_jax.cells import common
from qlstm_jax.cells.pr_lstm.merges.interface import State

LAYER_NORM_EPS = 1e-5
TINY = 1e-12


def draw(key: Key[Array, ""], shape: tuple[int, ...], dtype: DTypeLike) -> Float[Array, "..."]:
    """Truncated normal of scale 1 / sqrt(fan_in), not corrected for what the cut takes off the deviation."""
    scale: float = shape[-2] ** -0.5
    return (scale * jax.random.truncated_normal(key, -2.0, 2.0, shape)).astype(dtype)


def layer_norm(
    x: Float[Array, "*spans h"], scale: Float[Array, " h"], bias: Float[Array, " h"]
) -> Float[Array, "*spans h"]:
    """γ ⊙ (x − mean x) / sqrt(ε + var x) + β over the last axis, in float32 or wider, ε = 1e-5."""
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    normed = centred * jax.lax.rsqrt(LAYER_NORM_EPS + jnp.mean(centred**2, axis=-1, keepdims=True))
    return common.row(scale, x.ndim) * normed + common.row(bias, x.ndim)


def squared_distance(a: State, b: State) -> Float[Array, "*spans"]:
    """mean_H (h − h')² + mean_H (tanh c − tanh c')², without the second where there is no c."""
    distance = jnp.mean((a.h - b.h).astype(jnp.float32) ** 2, axis=-1)
    if a.c is not None and b.c is not None:
        distance = distance + jnp.mean((jnp.tanh(a.c) - jnp.tanh(b.c)) ** 2, axis=-1)
    return distance


def cosine_distance(a: State, b: State) -> Float[Array, "*spans"]:
    """1 − h · h' / (|h| |h'|), in float32 or wider; 1 where one of them is 0."""
    wide = common.accumulator(a.h.dtype)
    u, v = a.h.astype(wide), b.h.astype(wide)
    squares = jnp.sum(u**2, axis=-1) * jnp.sum(v**2, axis=-1)
    return 1 - jnp.sum(u * v, axis=-1) * jax.lax.rsqrt(jnp.maximum(squares, TINY))
