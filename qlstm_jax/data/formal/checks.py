"""Checks of a task's arguments."""

import numbers
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Int

from qlstm_jax.data.checks import as_array, shown


def positive(name: str, value: object) -> None:
    """Raises TypeError unless `value` is a Python int, ValueError unless it is at least 1."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} is {value!r}; expected a Python int, since it fixes the shapes of the batch")
    if value < 1:
        raise ValueError(f"{name} is {value}; expected at least 1")


def within(name: str, values: Array | np.ndarray, low: int, high: int, meaning: str) -> None:
    """Raises ValueError if concrete `values` leave low..high; traced values pass."""
    if isinstance(values, jax.core.Tracer) or not values.size:
        return
    # In numpy, since inside jit an operation of jnp is traced even on a concrete array.
    concrete = np.asarray(values)
    lowest, highest = concrete.min(), concrete.max()
    if lowest < low or highest > high:
        raise ValueError(f"{name} runs from {lowest} to {highest}; expected {low}..{high}, {meaning}")


def within_rows(name: str, ids: Array | np.ndarray, lengths: Array | np.ndarray, high: int, meaning: str) -> None:
    """Checks `within` 0..high ids (B, N) before each row's length, where both are known."""
    if not isinstance(ids, jax.core.Tracer) and not isinstance(lengths, jax.core.Tracer):
        valid = np.arange(ids.shape[1])[None] < np.asarray(lengths)[:, None]
        within(name, np.asarray(ids)[valid], 0, high, meaning)


def as_ids(ids: ArrayLike, name: str, input_size: int) -> Array | np.ndarray:
    """Checks the shape and dtype of symbols (B, n) and returns them as an array, in numpy if it was none of jax."""
    ids = as_array("ids", ids, f"integers of shape (batch, n), the symbols of {name}")
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
    length = as_array("length", length, "an int or an array of integers")
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


def row_lengths(lengths: ArrayLike, batch: int, width: int) -> Array | np.ndarray:
    """Checks the lengths of padded rows and returns them as (B,) int32."""
    lengths = as_array("lengths", lengths, f"integers of shape ({batch},)")
    if lengths.shape != (batch,) or not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise ValueError(
            f"lengths is {lengths.dtype} of shape {lengths.shape}; expected integers of shape ({batch},), "
            "the number of symbols in each row of ids"
        )
    within("lengths", lengths, 1, width, "the number of symbols in each row of ids")
    return lengths.astype(jnp.int32)


def check_batch(batch: Any, kind: type[Any], input_size: int, output_size: int, name: str) -> None:
    """Checks that a batch is one of this task, by its class, shapes and where they are known its symbols.

    Raises:
        TypeError: if it is no batch.
        ValueError: if its arrays do not fit each other, or hold symbols that the task does not have.
    """
    if not isinstance(batch, kind):
        raise TypeError(f"batch is {shown(batch)}; expected a Batch, such as from the sample of {name}")
    ids, targets = batch.ids, batch.targets
    rows = getattr(ids, "shape", (None,))[:1]
    expected = {"ids": (ids, 2), "targets": (targets, 2), "mask": (batch.mask, 2)}
    expected |= {"lengths": (batch.lengths, 1), "target_lengths": (batch.target_lengths, 1)}
    for field, (array, ndim) in expected.items():
        if getattr(array, "ndim", None) != ndim or array.shape[:1] != rows:
            raise ValueError(
                f"{field} of the batch is {shown(array)}; expected {ndim} axes, the first of {rows[0]} rows"
            )
        if field != "mask" and not jnp.issubdtype(array.dtype, jnp.integer):
            raise ValueError(f"{field} of the batch is {shown(array)}; expected integers")
    within("ids of the batch", ids, 0, input_size - 1, f"the symbols of {name}")
    within("targets of the batch", targets, 0, output_size - 1, f"the output symbols of {name}")
    within("lengths of the batch", batch.lengths, 1, ids.shape[1], "the number of symbols in each row of ids")
    within(
        "target_lengths of the batch", batch.target_lengths, 1, targets.shape[1], "the number of targets in each row"
    )
