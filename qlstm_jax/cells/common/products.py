"""Matrix products in the right precision, over all positions of a sequence at once.

On a CPU the axes of time and batch are merged first: XLA's product that sums over two axes takes up to twice as long
there as over one. Elsewhere it is as fast. A merged axis cannot be split over devices by its rows of the batch, so
where the compiler may have to, as it may unless there is one device or the program is written for one (in `shard_map`
and `pmap`), nothing is merged.
"""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Shaped

from qlstm_jax.cells.common.axes import is_one_device_program


def accumulator(dtype: DTypeLike) -> jnp.dtype:
    """The precision of gates and sums for activations of `dtype`: float32, or wider if the activations are."""
    return jnp.dtype(dtype if jnp.dtype(dtype) == jnp.float64 else jnp.float32)


def matmul(x: Float[Array, "*rows d"], kernel: Float[Array, "d h"], dtype: DTypeLike) -> Float[Array, "*rows h"]:
    """`x @ kernel` with both operands in `dtype`, accumulated and returned in float32 or wider."""
    product = jnp.matmul(_merged(x.astype(dtype)), kernel.astype(dtype), preferred_element_type=accumulator(dtype))
    return product.reshape(*x.shape[:-1], kernel.shape[-1])


def affine(
    x: Float[Array, "*rows d"], kernel: Float[Array, "d h"], bias: Float[Array, " h"], dtype: DTypeLike
) -> Float[Array, "*rows h"]:
    """`x @ kernel + bias`, accumulated and returned in float32 or wider."""
    return matmul(x, kernel, dtype) + row(bias, x.ndim)


def row(vector: Shaped[Array, " h"], ndim: int) -> Shaped[Array, "... h"]:
    """(H,) as (1, ..., 1, H) with `ndim` axes: broadcasting written out."""
    return vector.reshape((1,) * (ndim - 1) + vector.shape)


def kernel_gradient(x: Float[Array, "*rows d"], dz: Float[Array, "*rows h"]) -> Float[Array, "d h"]:
    """The gradient of the kernel of `x @ kernel`, from dz, the gradient of that product."""
    x, dz = _merged(x), _merged(dz)
    axes = tuple(range(x.ndim - 1))
    return jax.lax.dot_general(x, dz, ((axes, axes), ((), ())))


def _merged(x: Array) -> Array:
    if x.ndim <= 2 or jax.default_backend() != "cpu":
        return x
    return x.reshape(-1, x.shape[-1]) if is_one_device_program() else x
