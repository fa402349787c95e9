"""Whether the kernel can run a recurrence. It imports no Pallas."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

SHARED_BYTES = 227 * 1024  # of a multiprocessor of Hopper, as much as one block may use
ROWS = 64  # hidden units of a warpgroup: the least that the instruction for products takes
TILE = 8  # sequences of a block: likewise


def unsupported(kernel: jax.ShapeDtypeStruct | Array, dtype: Any, separate: int = 0) -> str | None:
    """Why the kernel cannot run a recurrence with this U and activations of `dtype`, or None if it can."""
    heads, size, columns = shape_of(kernel)
    if jnp.dtype(dtype) not in (jnp.bfloat16, jnp.float16):
        return f"activations are {jnp.dtype(dtype).name}; expected bfloat16 or float16, as products are of 16 bit"
    if size % ROWS or size > 8 * ROWS:
        return f"a head has {size} units; expected a multiple of {ROWS}, at most {8 * ROWS}"
    if separate % (heads * size):
        return f"separate is {separate}; expected a multiple of the {size} units"
    need = 2 * columns * size * (size + 2 * TILE) + 1024
    if need > SHARED_BYTES:
        return (
            f"a head of {size} units and {columns} maps needs {need:,} bytes of shared memory and there are "
            f"{SHARED_BYTES:,}; expected smaller heads"
        )
    return None


def shape_of(kernel: Any) -> tuple[int, int, int]:
    """(N, K, M) of U (H, M·H) or (N, K, M·K)."""
    heads = kernel.shape[0] if len(kernel.shape) == 3 else 1
    size = kernel.shape[-2]
    return heads, size, kernel.shape[-1] // size
