"""Checks of arguments that are no arrays: sizes, numbers, flags, choices, dtypes, keys, params."""

import math
import numbers
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export


def is_integer(value: Any) -> bool:
    """Whether `value` is a Python or numpy integer and no boolean."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether `value` is a finite real Python or numpy number and no boolean."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return False
    return isinstance(value, numbers.Integral) or math.isfinite(value)


def check_sizes(**sizes: Any) -> None:
    """Raises ValueError unless every given size is a positive integer."""
    for name, value in sizes.items():
        if not is_integer(value) or value < 1:
            raise ValueError(f"{name} is {shown(value)}; expected a positive integer")


def check_counts(**counts: Any) -> None:
    """Raises ValueError unless every given count is an integer, 0 or more."""
    for name, value in counts.items():
        if not is_integer(value) or value < 0:
            raise ValueError(f"{name} is {shown(value)}; expected an integer, 0 or more")


def check_batch_size(batch_size: Any, name: str = "batch_size") -> None:
    """Raises ValueError unless `batch_size` is an integer, 0 or more, or a dimension that `jax.export` leaves open."""
    if not export.is_symbolic_dim(batch_size):
        check_counts(**{name: batch_size})


def check_finite(**values: Any) -> None:
    """Raises ValueError unless every given value is a finite real number."""
    for name, value in values.items():
        if not is_number(value):
            raise ValueError(f"{name} is {shown(value)}; expected a finite number")


def check_above_zero(**values: Any) -> None:
    """Raises ValueError unless every given value is a finite number above 0."""
    for name, value in values.items():
        if not is_number(value) or value <= 0:
            raise ValueError(f"{name} is {shown(value)}; expected a number above 0")


def check_rates(**rates: Any) -> None:
    """Raises ValueError unless every given value is a rate that a dropout can have."""
    for name, value in rates.items():
        if not is_number(value) or not 0 <= value < 1:
            raise ValueError(f"{name} is {shown(value)}; expected a rate from 0 to below 1")


def check_flags(**flags: Any) -> None:
    """Raises ValueError unless every given value is True or False: what is taken for either may mean the other."""
    for name, value in flags.items():
        if not isinstance(value, bool | np.bool_):
            raise ValueError(f"{name} is {shown(value)}; expected True or False")


def check_time_scale(**options: Any) -> None:
    """Raises ValueError unless every given option is 0, for none, or an integer of 3 or more."""
    for name, value in options.items():
        if not is_integer(value) or not (value == 0 or value >= 3):
            raise ValueError(
                f"{name} is {shown(value)}; expected the longest dependence in tokens, an integer of 3 or more, or 0 "
                "for biases that are equal in all units"
            )


def check_choice(name: str, value: Any, choices: Iterable[Any]) -> None:
    """Raises ValueError unless `value` is one of `choices`."""
    choices = tuple(choices)
    if not any(isinstance(value, type(choice)) and value == choice for choice in choices):
        raise ValueError(f"{name} is {shown(value)}; expected one of {', '.join(map(repr, choices))}")


def check_dtypes(**dtypes: Any) -> None:
    """Raises ValueError unless every given value names a dtype of real floating-point numbers of 16 bits or more."""
    for name, value in dtypes.items():
        try:
            dtype = None if value is None else jnp.dtype(value)
        except TypeError:
            dtype = None
        if dtype is None or not jnp.issubdtype(dtype, jnp.floating) or dtype.itemsize < 2:
            raise ValueError(f"{name} is {shown(value)}; expected float32, bfloat16, float16 or float64")


def check_key(key: Any, name: str = "key") -> None:
    """Raises TypeError unless `key` is one PRNG key, of `jax.random.key` or the older `jax.random.PRNGKey`."""
    if isinstance(key, jax.Array | np.ndarray):
        if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.shape == ():
            return
        if key.dtype == jnp.uint32 and key.shape == jax.eval_shape(jax.random.PRNGKey, 0).shape:
            return
    raise TypeError(f"{name} is {kind(key)}; expected one PRNG key, such as jax.random.key(0)")


def check_init(key: Any, dtype: Any, param_dtype: Any, **sizes: Any) -> None:
    """Checks the arguments that the `init` of every cell has: `check_key`, `check_dtypes`, `check_sizes`."""
    check_key(key)
    check_dtypes(dtype=dtype, param_dtype=param_dtype)
    check_sizes(**sizes)


def check_params(params: Any, expected: type[Any]) -> None:
    """Raises TypeError unless `params` is of the class `expected`, the `Params` of a cell."""
    if not isinstance(params, expected):
        raise TypeError(
            f"params is {kind(params)}; expected {expected.__module__}.{expected.__name__}, made by that cell's init"
        )


def kind(value: Any) -> str:
    """What a value is, for messages: an array by dtype and shape, None by itself, others by their class."""
    if value is None:
        return "None"
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"an array of {value.dtype} and shape {value.shape}"
    return f"a {type(value).__module__}.{type(value).__name__}".replace("a builtins.", "a ")


def shown(value: Any) -> str:
    """A value for messages, in one short line."""
    if isinstance(value, jax.Array):
        return kind(value)  # printing one would wait for the device, or show a tracer's insides
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."
