"""A recurrence with a slow state that changes only at the ends of blocks of L tokens: a scan within a scan."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def scan_time_major(block: Callable, carry, inputs, *, valid, block_size: int):
    """Folds `block(carry, inputs, valid) -> (carry, outputs)` over the blocks of a sequence.

    Args:
        block: takes (L, B, ...) of `inputs` and (L, B) of `valid`; the last call gets fewer than L where L does not
            divide T.
        carry: pytree of (B, ...) arrays.
        inputs: pytree of (T, B, ...) arrays.
        valid: None or (T, B) booleans.
        block_size: L.

    Returns:
        (outputs, carry), the outputs a pytree of (T, B, ...).
    """
    whole = inputs, valid
    steps = jax.tree.leaves(inputs)[0].shape[0]
    full = steps - steps % block_size
    blocks = jax.tree.map(lambda a: a[:full].reshape(-1, block_size, *a.shape[1:]), whole)
    carry, outputs = jax.lax.scan(lambda c, b: block(c, *b), carry, blocks)
    outputs = jax.tree.map(lambda a: a.reshape(full, *a.shape[2:]), outputs)
    if full < steps:
        carry, rest = block(carry, *jax.tree.map(lambda a: a[full:], whole))
        outputs = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), outputs, rest)
    return outputs, carry


def delay(xs, lengths, shift, steps: int):
    """Each row of a sequence moved to the right, so that blocks which began before it are aligned across the batch.

    Args:
        xs: (B, T, ...).
        lengths: None or (B,), the valid positions of each row.
        shift: (B,) int32, by how many positions each row moves.
        steps: positions of the result, T + max(shift) or more.

    Returns:
        (moved, valid): (B, steps, ...), arbitrary where not `valid` (B, steps).
    """
    index = jnp.arange(steps, dtype=jnp.int32)[None, :] - shift[:, None]
    lengths = xs.shape[1] if lengths is None else lengths[:, None]
    return _gather(xs, index), (index >= 0) & (index < lengths)


def undelay(ys, shift, steps: int):
    """The inverse of `delay`: positions shift .. shift + steps − 1 of each row."""
    return _gather(ys, jnp.arange(steps, dtype=jnp.int32)[None, :] + shift[:, None])


def _gather(xs, index):
    index = jnp.clip(index, 0, xs.shape[1] - 1)
    return jnp.take_along_axis(xs, index.reshape(index.shape + (1,) * (xs.ndim - 2)), axis=1)
