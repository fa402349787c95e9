"""Whether the kernel can run a recurrence, and whether there is a device for it. It imports no Pallas."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

SHARED_BYTES = 227 * 1024  # of a multiprocessor of Hopper, as much as one block may use
ROWS = 64  # hidden units of a warpgroup: the least that the instruction for products takes
TILE = 8  # sequences of a block: likewise
GROUPS = 8  # warpgroups of a block, at most


def unsupported(kernel: Any, dtype: DTypeLike, separate: int = 0) -> str | None:
    """Why the kernel cannot run a recurrence with this U and activations of `dtype`, or None if it can."""
    heads, size, columns = shape_of(kernel)
    if jax.__version_info__ < (0, 11):
        return f"JAX is {jax.__version__}, and the kernel is written for 0.11"
    if jnp.dtype(dtype) not in (jnp.bfloat16, jnp.float16):
        return f"dtype is {jnp.dtype(dtype).name!r}, and the kernel has products of bfloat16 and float16 alone"
    if size % ROWS or size > GROUPS * ROWS:
        return f"a head has {size} units, and the kernel takes multiples of {ROWS} up to {GROUPS * ROWS}"
    if separate % (heads * size):
        return f"separate is {separate}, and the kernel takes whole gates of {heads * size} columns"
    need = 2 * columns * size * (size + 2 * TILE)  # U, and da of all columns twice, in 16 bit
    if need > SHARED_BYTES:
        maps = "1 map" if columns == 1 else f"{columns} maps"
        return (
            f"{maps} of a head of {size} units take {need:,} bytes, and a multiprocessor has {SHARED_BYTES:,} of "
            "shared memory; more and smaller heads fit"
        )
    return None


def shape_of(kernel: Any) -> tuple[int, int, int]:
    """(N, K, M) of U (H, M·H) or (N, K, M·K)."""
    heads = kernel.shape[0] if len(kernel.shape) == 3 else 1
    return heads, kernel.shape[-2], kernel.shape[-1] // kernel.shape[-2]


def refusal(params: Any, shape: tuple[Any, ...], *, separate: int = 0, plain: bool) -> str | None:
    """Why the kernel cannot run a cell's call here, or None if it can.

    Args:
        params: of the cell, with U, dtype and implementation.
        shape: of xs.
        separate: as for `recurrence`.
        plain: whether the call must be differentiable in any mode.
    """
    if params.implementation == "auto":
        return "it is taken by name alone"
    if plain:
        return "plain is True, and the kernel has a gradient for reverse mode alone"
    if not all(isinstance(size, int) for size in shape):
        return f"xs has the symbolic shape {shape}, and the kernel must know it"
    return unsupported(params.recurrent_kernel, params.dtype, separate) or _no_device()


def _no_device() -> str | None:
    try:
        capability = str(jax.devices("cuda")[0].compute_capability)
    except RuntimeError:  # there is no such backend
        return "JAX sees no NVIDIA GPU"
    if capability != "9.0":
        return f"the GPU has compute capability {capability}, and the kernel is for 9.0 (Hopper)"
    return None
