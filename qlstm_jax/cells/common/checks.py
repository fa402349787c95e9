"""Checks of the arguments of public functions: sizes, options, shapes, lengths and carries."""

from collections.abc import Iterable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from qlstm_jax.cells.common.masks import valid_mask, where, zero_padding

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


def check_numbers(name: str, a: Any) -> None:
    """Raises TypeError unless `a` is an array of numbers that a cell can take: booleans, integers or real ones."""
    if not hasattr(a, "dtype") or not hasattr(a, "ndim"):
        raise TypeError(f"{name} is {_kind(a)}; expected an array, such as from jax.numpy.asarray")
    if not any(jnp.issubdtype(a.dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_)):
        raise TypeError(f"{name} is an array of {a.dtype}; expected real numbers")


def check_step(x: Array, input_size: int) -> None:
    """Checks one time step, as given to `step`.

    Raises:
        TypeError: if `x` is not an array of real numbers.
        ValueError: unless its shape is (B, D), with D the cell's input size.
    """
    check_numbers("x", x)
    if x.ndim != 2 or x.shape[1] != input_size:
        raise ValueError(
            f"x has shape {x.shape}; expected (batch, {input_size}), one time step of a cell made with "
            f"input_size={input_size}. For a whole sequence (batch, time, {input_size}) call unroll."
        )


def step_carry(carry: Any, initial: Carry, reset: ArrayLike | None) -> Carry:
    """The carry from which a step continues: `carry`, or where `reset` the initial one.

    Args:
        carry: as given to `step`.
        initial: the cell's initial carry for the same batch.
        reset: None, or (B,) booleans.

    Raises:
        ValueError: for a carry of another cell, batch or dtype, or a reset of another shape or dtype.
    """
    given: Carry = check_carry(carry, initial)
    if reset is None:
        return given
    batch = jax.tree.leaves(initial)[0].shape[:1]
    chosen: Carry = where(_check_mask("reset", reset, batch), initial, given)
    return chosen


def unroll_carry(carry: Any, initial: Carry) -> Carry:
    """The carry from which `unroll` continues: `carry`, checked, or None for the initial one."""
    return initial if carry is None else check_carry(carry, initial)


def _check_mask(name: str, mask: ArrayLike, shape: tuple[int, ...]) -> Bool[Array, "..."]:
    array = mask if isinstance(mask, jax.Array) else np.asarray(mask)
    if array.shape != shape or array.dtype != bool:
        raise ValueError(f"{name} is {array.dtype} of shape {array.shape}; expected booleans of shape {shape}")
    return jnp.asarray(array)


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


def _kind(a: Any) -> str:
    return "None" if a is None else f"a {type(a).__name__}"


def _describe(a: Any) -> str:
    return f"{a.dtype}{list(a.shape)}" if hasattr(a, "shape") and hasattr(a, "dtype") else repr(a)


class Sequence(NamedTuple):
    """A batch of sequences, as `check_sequence` returns it."""

    xs: Float[Array, "batch time features"]  # 0 in padding
    seq_lengths: Int[Array, " batch"] | None  # int32 in 0..T
    valid: Bool[Array, "batch time"] | None
    resets: Bool[Array, "batch time"] | None  # false in padding


def check_sequence(
    xs: Float[Array, "batch time features"],
    seq_lengths: ArrayLike | None,
    input_size: int,
    resets: ArrayLike | None = None,
) -> Sequence:
    """Checks a sequence, its lengths and its resets, as given to `unroll`.

    Padding of `xs` is set to 0, so that nothing that it held, NaN included, reaches value or gradient.

    Args:
        xs: (B, T, D).
        seq_lengths: None or (B,) integers in 0..T.
        input_size: D of the cell.
        resets: None or (B, T) booleans.

    Raises:
        TypeError: if xs is not an array of real numbers.
        ValueError: for another shape, lengths that are no integers or resets that are no booleans, or concrete lengths
            outside 0..T.
    """
    check_numbers("xs", xs)
    if xs.ndim != 3 or xs.shape[2] != input_size:
        raise ValueError(
            f"xs has shape {xs.shape}; expected (batch, time, {input_size}) for a cell made with "
            f"input_size={input_size}. For one time step (batch, {input_size}) call step."
        )
    batch, steps = xs.shape[:2]
    if resets is not None:
        resets = _check_mask("resets", resets, (batch, steps))
    if seq_lengths is None:
        return Sequence(xs, None, None, resets)
    lengths = check_lengths(seq_lengths, batch, steps)
    valid = valid_mask(lengths, steps)
    return Sequence(zero_padding(xs, valid), lengths, valid, None if resets is None else resets & valid)


def check_known_length(steps: Any) -> None:
    """Raises ValueError for a symbolic number of tokens, where the program depends on it."""
    if not isinstance(steps, int):
        raise ValueError(
            f"the number of tokens is the symbolic {steps}; expected a number: a tree's levels depend on it. Export a "
            "program for each length, or `step`; the batch may be symbolic."
        )


def check_lengths(seq_lengths: ArrayLike, batch: int, steps: int) -> Int[Array, " batch"]:
    """Lengths as int32, clipped to 0..T where their values are not known yet.

    Raises:
        ValueError: unless they are (B,) integers, in 0..T where they are concrete.
    """
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
    return jnp.clip(lengths.astype(jnp.int32), 0, steps)
