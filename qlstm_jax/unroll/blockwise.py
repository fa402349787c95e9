"""A recurrence with a slow state that changes only at the ends of blocks of L tokens: a scan within a scan."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from qlstm_jax.unroll.sequential import time_major


def unroll(block: Callable, carry, xs, *, lengths, valid, block_size: int, position=None):
    """A whole sequence, block by block, from the start of a stream or from anywhere in it.

    Args:
        block: as for `scan_time_major`.
        carry: where to begin, a pytree of (B, ...) arrays.
        xs: (B, T, D).
        lengths, valid: as `cells.base.prepare` returns them.
        block_size: L.
        position: None at the start of a stream; else (B,), the place of each row in its block, 0..L-1. Rows are moved
            to the right by it, which aligns their blocks; where T < L, tokens are taken one at a time instead.

    Returns:
        (ys, carry), the outputs (B, T, ...).
    """
    steps = xs.shape[1]
    moved = position is not None and steps >= block_size
    if moved:
        xs, valid = delay(xs, lengths, position, steps + block_size - 1)
    elif position is not None:
        block_size = 1
    valid = None if valid is None else valid.T
    ys, carry = scan_time_major(block, carry, time_major(xs), valid=valid, block_size=block_size)
    ys = time_major(ys)
    return undelay(ys, position, steps) if moved else ys, carry


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
