"""A recurrence with a slow state that changes only at the ends of blocks of L tokens: a scan within a scan."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from qlstm_jax.cells.common import shift_left, shift_right, time_major


def unroll(block: Callable, carry, xs, *, seq_lengths, valid, block_size: int, position=None):
    """A whole sequence, block by block, from the start of a stream or from anywhere in it.

    Args:
        block: as for `scan_time_major`.
        carry: where to begin, a pytree of (B, ...) arrays.
        xs: (B, T, D).
        seq_lengths, valid: as `cells.common.check_sequence` returns them.
        block_size: L.
        position: None at the start of a stream; else (B,), the place of each row in its block, 0..L-1. Rows are moved
            to the right by it, which aligns their blocks; where T < L, tokens are taken one at a time instead.

    Returns:
        (carry, ys), the outputs (B, T, ...).
    """
    steps = xs.shape[1]
    moved = position is not None and steps >= block_size
    if moved:
        xs, valid = shift_right(xs, seq_lengths, position, steps + block_size - 1)
    elif position is not None:
        block_size = 1
    valid = None if valid is None else valid.T
    carry, ys = scan_time_major(block, carry, time_major(xs), valid=valid, block_size=block_size)
    ys = time_major(ys)
    return carry, shift_left(ys, position, steps) if moved else ys


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
        (carry, outputs), the outputs a pytree of (T, B, ...).
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
    return carry, outputs
