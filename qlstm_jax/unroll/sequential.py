"""A recurrence run one step after another with `lax.scan`: the reference that every other way must equal."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def where(condition, new, old):
    """`new` in the rows where `condition` (B,) holds, `old` in the others, for pytrees of (B, ...) arrays."""

    def choose(n, o):
        return jnp.where(condition.reshape(condition.shape + (1,) * (n.ndim - condition.ndim)), n, o)

    return jax.tree.map(choose, new, old)


def valid_mask(lengths, steps: int):
    """(B, T) booleans: whether position t lies within a row's length."""
    return jnp.arange(steps, dtype=jnp.int32)[None, :] < lengths[:, None]


def time_major(tree):
    """(B, T, ...) to (T, B, ...); its own inverse."""
    return jax.tree.map(lambda a: jnp.swapaxes(a, 0, 1), tree)


def scan(step: Callable, carry, inputs, *, valid=None):
    """Folds `step(carry, x) -> (carry, y)` over the time axis of `inputs`.

    Args:
        step: maps a carry and one time step of `inputs`, a pytree of (B, ...), to the next carry and an output.
        carry: pytree of (B, ...) arrays.
        inputs: pytree of (B, T, ...) arrays.
        valid: optional (B, T) booleans. Where false, the carry passes through unchanged and the output is 0.

    Returns:
        (outputs, carry), the outputs a pytree of (B, T, ...).
    """
    valid = None if valid is None else valid.T
    ys, carry = scan_time_major(step, carry, time_major(inputs), valid=valid)
    return time_major(ys), carry


def scan_time_major(step: Callable, carry, inputs, *, valid=None):
    """`scan` over inputs (T, B, ...) and valid (T, B), to outputs (T, B, ...): what `lax.scan` wants, no copies."""

    def body(carry, x_and_valid):
        x, ok = x_and_valid
        new, y = step(carry, x)
        if ok is not None:
            new = where(ok, new, carry)
            y = where(ok, y, jax.tree.map(jnp.zeros_like, y))
        return new, y

    carry, ys = jax.lax.scan(body, carry, (inputs, valid))
    return ys, carry


def reverse(xs, lengths=None):
    """Reverses the valid part of each row of (B, T, ...) in time and leaves the padding where it is.

    Its own inverse. A cell unrolled over `reverse(xs, lengths)` reads each sequence from its last valid token to its
    first, which is the backward half of a bidirectional layer.
    """
    if lengths is None:
        return jnp.flip(xs, axis=1)
    t = jnp.arange(xs.shape[1], dtype=jnp.int32)[None, :]
    index = jnp.where(t < lengths[:, None], lengths[:, None] - 1 - t, t)
    return jnp.take_along_axis(xs, index.reshape(index.shape + (1,) * (xs.ndim - 2)), axis=1)
