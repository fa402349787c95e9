"""Initial values of parameters that several cells use."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key


def lecun_normal(key: Key[Array, ""], shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Float[Array, "..."]:
    """Truncated normal of variance 1 / fan_in, as Flax's default for input kernels."""
    return jax.nn.initializers.lecun_normal()(key, shape, dtype)


def orthogonal(
    key: Key[Array, ""], hidden_size: int, blocks: int, dtype: DTypeLike = jnp.float32
) -> Float[Array, "hidden width"]:
    """(H, blocks·H): one random orthogonal matrix for each gate, side by side; drawn in float32, whatever the dtype."""
    draw = partial(jax.nn.initializers.orthogonal(), shape=(hidden_size, hidden_size))
    return jnp.concatenate([draw(k) for k in jax.random.split(key, blocks)], axis=1).astype(dtype)


def orthogonal_heads(
    key: Key[Array, ""], num_heads: int, size: int, blocks: int, dtype: DTypeLike = jnp.float32
) -> Float[Array, "heads size width"]:
    """(N, K, blocks·K): `orthogonal` for each head of K units."""
    draw = partial(orthogonal, hidden_size=size, blocks=blocks, dtype=dtype)
    return jax.vmap(draw)(jax.random.split(key, num_heads))


def chrono_bias(
    key: Key[Array, ""], hidden_size: int, max_dependence: int, dtype: DTypeLike = jnp.float32
) -> Float[Array, " hidden"]:
    """Biases log u, u uniform on [1, max_dependence − 1], of gates that keep: such a unit forgets in about u tokens.

    Chrono initialisation (Tallec and Ollivier 2018, arXiv 1804.11188): units of all time scales up to `max_dependence`
    tokens, which are 3 or more. The bias of a gate that lets in starts at the negative.
    """
    return jnp.log(jax.random.uniform(key, (hidden_size,), minval=1, maxval=max_dependence - 1)).astype(dtype)
