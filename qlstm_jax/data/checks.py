"""Checks that several sources of data share."""

import math
import numbers
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from qlstm_jax.data.rows import DataError


def is_integer(value: object) -> bool:
    """Returns whether `value` is a Python or numpy integer and no boolean."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Returns whether `value` is a finite real Python or numpy number and no boolean."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return False
    return isinstance(value, numbers.Integral) or math.isfinite(value)


def shown(value: object) -> str:
    """Formats a value for messages in one short line, an array by its dtype and shape."""
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"an array of {value.dtype} and shape {value.shape}"
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def at_least(name: str, value: object, minimum: int) -> None:
    """Raises ValueError unless `value` is a Python int of at least `minimum`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ValueError(f"{name} is {shown(value)}; expected a Python int of at least {minimum}")


def count(name: str, value: Any, minimum: int = 0, why: str = "") -> None:
    """Raises DataError unless `value` is an integer of at least `minimum`; `why` ends the message."""
    if not is_integer(value) or value < minimum:
        raise DataError(f"{name} is {shown(value)}; give an integer of at least {minimum}{why}")


def flag(name: str, value: object) -> None:
    """Raises DataError unless `value` is True or False."""
    if not isinstance(value, bool | np.bool_):
        raise DataError(f"{name} is {shown(value)}; give True or False")


def check_key(key: Any) -> None:
    """Raises TypeError unless `key` is one PRNG key, of `jax.random.key` or the older `jax.random.PRNGKey`."""
    if isinstance(key, jax.Array | np.ndarray):
        if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.shape == ():
            return
        if key.dtype == jnp.uint32 and key.shape == jax.eval_shape(jax.random.PRNGKey, 0).shape:
            return
    raise TypeError(f"key is {shown(key)}; expected one PRNG key, such as jax.random.key(0)")


def as_array(name: str, value: Any, expected: str) -> Array | np.ndarray:
    """Returns `value` as an array of numbers: unchanged, or converted by numpy from numbers and lists of them.

    Raises:
        ValueError: if it is nothing of the kind.
    """
    if isinstance(value, jax.Array):
        return value
    try:
        array = None if value is None else np.asarray(value)
    except (TypeError, ValueError):
        array = None
    if array is None or array.dtype.kind not in "biufcV":
        raise ValueError(f"{name} is {shown(value)}; expected {expected}")
    return array


def integers(name: str, values: Any, *, ndim: int = 1, minimum: int = 0) -> np.ndarray:
    """Returns `values` as a numpy array of integers of at least `minimum` with `ndim` axes; an empty one is allowed.

    Raises:
        DataError: if they are nothing of the kind.
    """
    try:
        array = as_array(name, values, "")
    except ValueError:
        array = np.zeros((), object)
    if array.ndim != ndim or (array.size and not np.issubdtype(array.dtype, np.integer)):
        raise DataError(f"{name} is {shown(values)}; give an array of integers with {ndim} axes")
    known = np.asarray(array) if array.size else np.zeros(array.shape, np.int64)
    signed = not np.issubdtype(known.dtype, np.unsignedinteger) or minimum > 0  # the scan is long for a corpus
    if signed and known.size and known.min() < minimum:
        raise DataError(f"{name} has {known.min()}; give integers of at least {minimum}")
    return known


def token_arrays(name: str, sequences: Any) -> None:
    """Raises DataError unless these are sequences of token ids: (length,) integers of at least 0 each."""
    if not isinstance(sequences, Sequence | np.ndarray) or isinstance(sequences, str | bytes):
        raise DataError(f"{name} is {shown(sequences)}; give a list of arrays of token ids")
    for number, ids in enumerate(sequences):
        integers(f"{name}[{number}]", ids)


def strings(name: str, texts: Any) -> Iterator[str]:
    """Yields `texts` one by one, each checked to be a string of UTF-8.

    Raises:
        DataError: at the first that is none, or if there are no texts.
    """
    if isinstance(texts, str):
        raise DataError(f"{name} is one string; give a list of strings")
    if isinstance(texts, bytes) or not isinstance(texts, Iterable):
        raise DataError(f"{name} is {shown(texts)}; give a list of strings")
    return (string(f"{name}[{number}]", text) for number, text in enumerate(texts))


def string(name: str, text: Any) -> str:
    """Returns `text`; raises DataError unless it is a string that can be written as UTF-8."""
    if not isinstance(text, str):
        raise DataError(f"{name} is {shown(text)}; give a string")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{name} holds a half of a letter at {error.start}, which is no UTF-8; leave it out") from error
    return text


def check_shares(validation: float, test: float, *, section: str = "") -> None:
    """Raises DataError unless a validation and a test part, each more than nothing, leave something to train on.

    `section` is put before both names in the message, "lm." for a config's keys.
    """
    both = is_number(validation) and is_number(test)
    if not (both and validation > 0 and test > 0 and validation + test < 1):
        raise DataError(
            f"{section}validation is {shown(validation)} and {section}test {shown(test)}; give shares above 0 that "
            "together are below 1"
        )
