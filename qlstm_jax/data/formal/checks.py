"""Checks of a task's arguments."""

import numbers

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Int, Integer


def positive(name: str, value: object) -> None:
    """Raises TypeError unless `value` is a Python int, ValueError unless it is at least 1."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} is {value!r}; expected a Python int, since it fixes the shapes of the batch")
    if value < 1:
        raise ValueError(f"{name} is {value}; expected at least 1")


def within(name: str, values: Array, low: int, high: int, meaning: str) -> None:
    """Raises ValueError if concrete `values` leave low..high; traced values pass."""
    if isinstance(values, jax.core.Tracer) or not values.size:
        return
    # In numpy, since inside jit an operation of jnp is traced even on a concrete array.
    concrete = np.asarray(values)
    lowest, highest = concrete.min(), concrete.max()
    if lowest < low or highest > high:
        raise ValueError(f"{name} runs from {lowest} to {highest}; expected {low}..{high}, {meaning}")


def as_ids(ids: ArrayLike, name: str, input_size: int) -> Integer[Array, "batch n"]:
    """Checks the shape and dtype of symbols (B, n) and returns them as an array."""
    ids = jnp.asarray(ids)
    if ids.ndim != 2 or not jnp.issubdtype(ids.dtype, jnp.integer) or ids.shape[1] < 1:
        raise ValueError(
            f"ids is {ids.dtype} of shape {ids.shape}; expected integers of shape (batch, n) with n >= 1, "
            f"the symbols 0..{input_size - 1} of {name} (not one-hot vectors)"
        )
    return ids


def as_lengths(length: int | ArrayLike, batch_size: int, max_length: int | None) -> tuple[Int[Array, " batch"], int]:
    """Checks a nominal length and returns (lengths (B,) int32, width)."""
    if isinstance(length, numbers.Integral):
        positive("length", length)
        if max_length is not None and length > max_length:
            raise ValueError(f"length is {length}, above max_length={max_length}; raise max_length or lower length")
        return jnp.full(batch_size, int(length), jnp.int32), int(length if max_length is None else max_length)
    length = jnp.asarray(length)
    if not jnp.issubdtype(length.dtype, jnp.integer):
        raise TypeError(f"length has dtype {length.dtype}; expected an int or an array of integers")
    if length.shape not in ((), (batch_size,)):
        raise ValueError(f"length has shape {length.shape}; expected () or ({batch_size},), one for each row")
    if max_length is None:
        raise ValueError(
            "length is an array but max_length is missing; pass max_length=<the longest length>, a "
            "Python int, so that the width of the batch is known when it is compiled"
        )
    within("length", length, 1, max_length, "the lengths up to max_length")
    lengths = jnp.clip(length, 1, max_length).astype(jnp.int32)
    return jnp.broadcast_to(lengths, (batch_size,)), int(max_length)


def row_lengths(lengths: ArrayLike, batch: int, width: int) -> Int[Array, " batch"]:
    """Checks the lengths of padded rows and returns them as (B,) int32."""
    lengths = jnp.asarray(lengths)
    if lengths.shape != (batch,) or not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise ValueError(
            f"lengths is {lengths.dtype} of shape {lengths.shape}; expected integers of shape ({batch},), "
            "the number of symbols in each row of ids"
        )
    within("lengths", lengths, 1, width, "the number of symbols in each row of ids")
    return lengths.astype(jnp.int32)
