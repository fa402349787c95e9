"""Heads: the units of a row in N groups of K = H / N, and the product with a kernel that is block-diagonal over them.

A row (..., B, G·H) has its G gates side by side and within a gate the heads. By heads it is (..., N, B, G·K), as the
product of (N, B, K) with a kernel (N, K, G·K) is.
"""

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Shaped

from qlstm_jax.cells.common.products import accumulator, matmul


def check_heads(hidden_size: int, num_heads: int) -> None:
    """Raises ValueError unless the size, a positive integer, is a multiple of the number of heads, another."""
    if hidden_size % num_heads:
        raise ValueError(
            f"hidden_size is {hidden_size} and num_heads {num_heads}; expected a hidden_size that is a multiple of "
            "num_heads, as all heads are of one size"
        )


def rows_to_heads(a: Shaped[Array, "*batch width"], heads: int, size: int) -> Shaped[Array, "..."]:
    """(..., B, G·N·K), gates side by side and within a gate the heads, to (..., N, B, G·K)."""
    gates = a.shape[-1] // (heads * size)
    split = jnp.moveaxis(a.reshape(*a.shape[:-1], gates, heads, size), -2, -4)
    return split.reshape(*split.shape[:-2], gates * size)


def heads_to_rows(a: Shaped[Array, "*batch width"], size: int) -> Shaped[Array, "..."]:
    """The inverse: (..., N, B, G·K) to (..., B, G·N·K)."""
    merged = jnp.moveaxis(a.reshape(*a.shape[:-1], a.shape[-1] // size, size), -4, -2)
    return merged.reshape(*merged.shape[:-3], a.shape[-3] * a.shape[-1])


def recurrent_product(
    h: Float[Array, "batch hidden"], kernel: Float[Array, "... rows width"], dtype: DTypeLike
) -> Float[Array, "batch gates"]:
    """h U (B, G·H) of a kernel U (H, G·H) or by heads (N, K, G·K); operands and result as of `matmul`."""
    if kernel.ndim == 2:
        return matmul(h, kernel, dtype)
    split, wide = rows_to_heads(h, kernel.shape[0], kernel.shape[1]), accumulator(dtype)
    product = jnp.matmul(split.astype(dtype), kernel.astype(dtype), preferred_element_type=wide)
    return heads_to_rows(product, kernel.shape[1])
