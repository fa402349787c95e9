"""A recurrence run one step after another with `lax.scan`: the reference that every other way must equal."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree

from qlstm_jax.cells.common.axes import varying_as
from qlstm_jax.cells.common.masks import time_major, where

Carry = TypeVar("Carry")
Step = Callable[[Carry, Any], tuple[Carry, Any]]


def scan(
    step: Step[Carry], carry: Carry, inputs: PyTree, *, valid: Bool[Array, "batch time"] | None = None
) -> tuple[Carry, PyTree]:
    """Folds `step(carry, x) -> (carry, y)` over the time axis of `inputs`.

    Args:
        step: maps a carry and one time step of `inputs`, a pytree of (B, ...), to the next carry and an output.
        carry: pytree of (B, ...) arrays.
        inputs: pytree of (B, T, ...) arrays.
        valid: optional (B, T) booleans. Where false, the carry passes through unchanged and the output is 0.

    Returns:
        (carry, outputs), the outputs a pytree of (B, T, ...).
    """
    carry, ys = scan_time_major(step, carry, time_major(inputs), valid=None if valid is None else valid.T)
    return carry, time_major(ys)


def scan_time_major(
    step: Step[Carry], carry: Carry, inputs: PyTree, *, valid: Bool[Array, "time batch"] | None = None
) -> tuple[Carry, PyTree]:
    """`scan` over inputs (T, B, ...) and valid (T, B), to outputs (T, B, ...): as `lax.scan` has them, no copies."""

    def body(carry: Carry, x_and_valid: tuple[Any, Any]) -> tuple[Carry, Any]:
        x, ok = x_and_valid
        new, y = step(carry, x)
        if ok is not None:
            new = where(ok, new, carry)
            y = where(ok, y, jax.tree.map(jnp.zeros_like, y))
        return new, y

    carry = varying_as(carry, (carry, inputs, valid))
    return jax.lax.scan(body, carry, (inputs, valid))
