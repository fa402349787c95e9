"""Checks of the arguments of public functions: sizes, options, shapes, lengths and carries."""

from collections.abc import Iterable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from qlstm_jax.cells.common.masks import valid_mask, zero_padding

Carry = TypeVar("Carry")


def check_sizes(**sizes: Any) -> None:
    """Raises ValueError unless every given size is a positive integer."""
    for name, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} is {value!r}; expected a positive integer")


def check_time_scale(**options: Any) -> None:
    """Raises ValueError unless every given option is 0, for none, or an integer of 3 or more."""
    for name, value in options.items():
        if isinstance(value, bool) or not isinstance(value, int) or not (value == 0 or value >= 3):
            raise ValueError(
                f"{name} is {value!r}; expected the longest dependence in tokens, an integer of 3 or more, or 0 for "
                "biases that are equal in all units"
            )


def check_choice(name: str, value: Any, choices: Iterable[Any]) -> None:
    """Raises ValueError unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; expected one of {', '.join(map(repr, choices))}")


def check_step(x: Array, input_size: int) -> None:
    """Raises ValueError unless `x` is one time step (B, D) with D the cell's input size."""
    if x.ndim != 2 or x.shape[1] != input_size:
        raise ValueError(
            f"x has shape {x.shape}; expected (batch, {input_size}), one time step of a cell made with "
            f"input_size={input_size}. For a whole sequence (batch, time, {input_size}) call unroll."
        )


def check_carry(carry: Any, expected: Carry, made_by: str = "initial_carry") -> Carry:
    """`carry` as the named tuple that the cell has, from that or from a plain tuple of its parts.

    Args:
        carry: as given by the caller.
        expected: a carry of the cell for the same batch: arrays, or their shapes and dtypes.
        made_by: the function that makes one, for the message.

    Raises:
        ValueError: for a carry of another cell, batch or dtype.
    """
    kind = type(expected)
    if type(carry) is tuple and isinstance(expected, tuple) and len(carry) == len(expected):
        carry = kind(*carry)
    given, wanted = (jax.tree.map(_describe, c) for c in (carry, expected))
    if not isinstance(carry, kind) or given != wanted:
        raise ValueError(
            f"the carry is {given!r:.300}; expected {wanted!r:.300}, made by {made_by} or returned by an earlier call"
        )
    return carry


def _describe(a: Any) -> str:
    return f"{a.dtype}{list(a.shape)}" if hasattr(a, "shape") and hasattr(a, "dtype") else repr(a)


def check_sequence(
    xs: Float[Array, "batch time features"], seq_lengths: ArrayLike | None, input_size: int
) -> tuple[Float[Array, "batch time features"], Int[Array, " batch"] | None, Bool[Array, "batch time"] | None]:
    """Checks a sequence and its lengths, as given to `unroll`.

    Args:
        xs: (B, T, D).
        seq_lengths: None or (B,) integers in 0..T.
        input_size: D of the cell.

    Returns:
        (xs, seq_lengths, valid): padding of `xs` set to 0 (so that nothing that it held, NaN included, reaches value or
        gradient), lengths as int32 clipped to 0..T, and the (B, T) mask. The last two are None without lengths.

    Raises:
        ValueError: for another shape, lengths that are no integers, or concrete lengths outside 0..T.
    """
    if xs.ndim != 3 or xs.shape[2] != input_size:
        raise ValueError(
            f"xs has shape {xs.shape}; expected (batch, time, {input_size}) for a cell made with "
            f"input_size={input_size}. For one time step (batch, {input_size}) call step."
        )
    if seq_lengths is None:
        return xs, None, None
    batch, steps = xs.shape[:2]
    lengths = seq_lengths if isinstance(seq_lengths, jax.Array) else np.asarray(seq_lengths)
    if lengths.shape != (batch,) or not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise ValueError(
            f"seq_lengths is {lengths.dtype} of shape {lengths.shape}; expected integers of shape ({batch},), "
            "the number of valid positions in each row of xs"
        )
    if not isinstance(lengths, jax.core.Tracer) and batch:
        concrete = np.asarray(lengths)  # numpy: under jit, jax would trace even a constant
        low, high = concrete.min(), concrete.max()
        if low < 0 or high > steps:
            raise ValueError(
                f"seq_lengths run from {low} to {high}; expected 0..{steps}, as xs has {steps} positions a row. "
                "Pad xs, or clip the lengths."
            )
    clipped = jnp.clip(lengths.astype(jnp.int32), 0, steps)
    valid = valid_mask(clipped, steps)
    return zero_padding(xs, valid), clipped, valid
