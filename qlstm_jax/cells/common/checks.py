"""Checks of the arrays among the arguments of public functions: inputs, ids, lengths, resets and carries.

Shapes and dtypes are always checked, values where they are known: not those of tracers.
"""

from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from qlstm_jax.cells.common.masks import valid_mask, where, zero_padding
from qlstm_jax.cells.common.options import kind

Carry = TypeVar("Carry")


def check_numbers(name: str, a: Any) -> None:
    """Raises TypeError unless `a` is an array of numbers that a cell can take: real ones or integers."""
    if not _is_array(a):
        raise TypeError(f"{name} is {kind(a)}; expected an array, such as from jax.numpy.asarray")
    if not any(jnp.issubdtype(a.dtype, numbers) for numbers in (jnp.floating, jnp.integer)):
        raise TypeError(f"{name} is {kind(a)}; expected real numbers, such as from {name}.astype('float32')")


def as_numbers(name: str, a: Any) -> Array:
    """`a`, an array or what makes one, as an array of real numbers.

    Raises:
        TypeError: if it is none.
    """
    array = as_array(name, a, "an array of real numbers")
    check_numbers(name, array)
    return jnp.asarray(array)


def as_array(name: str, a: Any, expected: str) -> Array | np.ndarray:
    """`a` as an array: itself, or what numpy makes of numbers and lists of them.

    Raises:
        TypeError: if it is nothing of the kind.
    """
    if isinstance(a, jax.Array):
        return a
    if hasattr(a, "__jax_array__"):
        return jnp.asarray(a)
    try:
        array = None if a is None else np.asarray(a)
    except (TypeError, ValueError):
        array = None
    if array is None or array.dtype.kind not in "biufcV":
        raise TypeError(f"{name} is {kind(a)}; expected {expected}")
    return array


def is_concrete(a: Any) -> bool:
    """Whether the values of an array are known here, so that they can be checked: not those of a tracer."""
    return not isinstance(a, jax.core.Tracer) and getattr(a, "is_fully_addressable", True)


def _is_array(a: Any) -> bool:
    """Whether `a` is an array of JAX or numpy, or an object that JAX reads as one, such as a variable of Flax."""
    return isinstance(a, jax.Array | np.ndarray | np.generic) or hasattr(a, "__jax_array__")


def look_up(symbols: Any, ids: Any, seq_lengths: Any) -> Float[Array, "batch time d"]:
    """The inputs symbols[ids] of symbols (V, D) and ids (B, T), each in 0..V−1 but beyond `seq_lengths`.

    Raises:
        TypeError: if an argument is no array of numbers.
        ValueError: for another shape, or ids or lengths out of range where they are known.
    """
    check_symbols(symbols)
    taken: Array = jnp.asarray(symbols)[check_ids("ids", ids, symbols.shape[0], seq_lengths=seq_lengths)]
    return taken


def check_symbols(symbols: Any, features: int | None = None) -> None:
    """Raises TypeError unless `symbols` are real numbers, ValueError unless (V, D), D being `features` or any."""
    check_numbers("symbols", symbols)
    if symbols.ndim != 2 or not symbols.shape[0] or features not in (None, symbols.shape[1]):
        last = "features" if features is None else features
        raise ValueError(f"symbols has shape {symbols.shape}; expected (vocabulary, {last}), the input of each symbol")


def check_ids(
    name: str, ids: Any, size: int, axes: tuple[str, ...] = ("batch", "time"), *, seq_lengths: Any = None
) -> Int[Array, "..."]:
    """Ids of tokens as an array.

    Args:
        name: of the argument, for the message.
        ids: as given by the caller.
        size: V; ids are 0..V−1.
        axes: names of their axes.
        seq_lengths: None, or for ids (B, T) as for `check_lengths`; what lies beyond is not checked.

    Raises:
        TypeError: if they are no array of integers.
        ValueError: for another rank, or ids outside 0..V−1 where they are known.
    """
    shape = f"({', '.join(axes)}{',' if len(axes) == 1 else ''})"
    array = as_array(name, ids, f"an array of integers of shape {shape}")
    if array.ndim != len(axes) or not jnp.issubdtype(array.dtype, jnp.integer):
        raise ValueError(f"{name} is {array.dtype} of shape {array.shape}; expected integers of shape {shape}")
    lengths = None if seq_lengths is None else _lengths(seq_lengths, *array.shape)
    if is_concrete(array) and is_concrete(lengths) and array.size:
        values = np.asarray(array)
        if lengths is not None:
            values = values[np.arange(values.shape[1]) < lengths[:, None]]
        if values.size and (values.min() < 0 or values.max() >= size):
            raise ValueError(
                f"{name} run from {values.min()} to {values.max()}; expected 0..{size - 1}, as there are {size} tokens"
            )
    return jnp.asarray(array)


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
    array = as_array(name, mask, f"booleans of shape {shape}")
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
    cls = type(expected)
    if type(carry) is tuple and isinstance(expected, tuple) and len(carry) == len(expected):
        carry = cls(*carry)
    given, wanted = _describe(carry), _describe(expected)
    if not isinstance(carry, cls) or given != wanted:
        raise ValueError(f"the carry is {given:.300}; expected {wanted:.300}, made by {made_by} or returned by a call")
    return carry


def _describe(carry: Any) -> str:
    """A carry with the dtype and shape of each array."""
    if isinstance(carry, tuple) and hasattr(carry, "_fields"):
        fields = zip(carry._fields, carry, strict=True)
        return f"{type(carry).__name__}({', '.join(f'{name}={_describe(a)}' for name, a in fields)})"
    if isinstance(carry, tuple):
        return f"({', '.join(map(_describe, carry))})"
    is_array = _is_array(carry) or isinstance(carry, jax.ShapeDtypeStruct)
    return f"{carry.dtype}{list(carry.shape)}" if is_array else kind(carry)


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
            "program for one length (--length=N), to which others are padded, or `step`; the batch may be symbolic."
        )


def check_lengths(seq_lengths: ArrayLike, batch: int, steps: int) -> Int[Array, " batch"]:
    """Lengths as int32, clipped to 0..T where their values are not known yet.

    Raises:
        TypeError: if they are no array of numbers.
        ValueError: unless they are (B,) integers, in 0..T where they are concrete.
    """
    return jnp.clip(_lengths(seq_lengths, batch, steps).astype(jnp.int32), 0, steps)


def _lengths(seq_lengths: ArrayLike, batch: int, steps: int) -> Array | np.ndarray:
    """`check_lengths` of lengths as they are, in numpy where they are known: under jit, jax traces even a constant."""
    lengths = as_array("seq_lengths", seq_lengths, f"integers of shape ({batch},)")
    if lengths.shape != (batch,) or not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise ValueError(
            f"seq_lengths is {lengths.dtype} of shape {lengths.shape}; expected integers of shape ({batch},), "
            "the number of valid positions in each row of xs"
        )
    if not is_concrete(lengths):
        return lengths
    known = np.asarray(lengths)
    if known.size and (known.min() < 0 or known.max() > steps):
        raise ValueError(
            f"seq_lengths run from {known.min()} to {known.max()}; expected 0..{steps}, as xs has {steps} positions a "
            "row. Pad xs, or clip the lengths."
        )
    return known
