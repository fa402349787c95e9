"""Matrix products over all positions of a sequence at once.

On a CPU the axes of time and batch are merged first: XLA's product that sums over two axes takes up to twice as long
there as over one. Elsewhere it is as fast. A merged axis cannot be split over devices by its rows of the batch, so
where the compiler may have to, as it may unless there is one device or the program is written for one (in `shard_map`
and `pmap`), nothing is merged.
"""

import jax
import jax.numpy as jnp


def _merged(x):
    if x.ndim <= 2 or jax.default_backend() != "cpu":
        return x
    mesh = jax.sharding.get_abstract_mesh()
    mapped = not mesh.empty and set(mesh.manual_axes) == set(mesh.axis_names)
    return x.reshape(-1, x.shape[-1]) if mapped or jax.device_count() == 1 else x


def matmul(x, kernel, dtype):
    """x (..., D) times kernel (D, H), (..., H) in `dtype`."""
    return jnp.matmul(_merged(x), kernel, preferred_element_type=dtype).reshape(*x.shape[:-1], kernel.shape[-1])


def kernel_gradient(x, dz):
    """What reaches the kernel of x (..., D) times kernel by way of the product's gradient dz (..., H): (D, H)."""
    x, dz = _merged(x), _merged(dz)
    axes = tuple(range(x.ndim - 1))
    return jax.lax.dot_general(x, dz, ((axes, axes), ((), ())))
