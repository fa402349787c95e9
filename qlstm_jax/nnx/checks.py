"""Checks of the arguments that only NNX modules have: streams of keys, dropout, metadata."""

from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx

from qlstm_jax.cells import common


def has_stream(rngs: nnx.Rngs, name: str) -> bool:
    """Whether `rngs` can draw from a stream of this name: it has it, or one for all names."""
    return bool({name, "default"} & set(rngs))


def check_rngs(rngs: Any, stream: str = "params") -> None:
    """Raises TypeError unless `rngs` is an `nnx.Rngs`, ValueError if it lacks a stream."""
    if not isinstance(rngs, nnx.Rngs):
        raise TypeError(f"rngs is {common.shown(rngs)}; expected an nnx.Rngs, such as nnx.Rngs(0)")
    if not has_stream(rngs, stream):
        raise ValueError(
            f"rngs has the streams {', '.join(rngs) or 'of no name'}; expected one named {stream!r}, such as in "
            f"nnx.Rngs(0) or nnx.Rngs({stream}=0)"
        )


def check_source(rngs: Any, stream: str, *, unused: bool = False) -> None:
    """Checks what a call draws from: None, a key, a stream, or an `nnx.Rngs` that has `stream` unless it is unused.

    Raises:
        TypeError: if it is nothing of the kind.
        ValueError: for an `nnx.Rngs` without the stream.
    """
    if isinstance(rngs, jax.Array):
        common.check_key(rngs, "rngs")
    elif rngs is not None and not isinstance(rngs, nnx.RngStream) and not (unused and isinstance(rngs, nnx.Rngs)):
        check_rngs(rngs, stream)


def check_dropout(deterministic: Any, rngs: Any, *dropouts: nnx.Dropout | None) -> None:
    """Checks what a call says of its dropout.

    Args:
        deterministic: as given to the call: None for what `train()` and `eval()` have set.
        rngs: as given to the call.
        dropouts: those of the module.

    Raises:
        TypeError: if rngs is nothing to draw with.
        ValueError: if deterministic is no flag, or something drops and has nothing to draw with.
    """
    if deterministic is not None:
        common.check_flags(deterministic=deterministic)
    drops = [d for d in dropouts if d is not None and d.rate and not (deterministic or _is_off(deterministic, d))]
    check_source(rngs, "dropout", unused=not drops)
    if rngs is None and any(d.rngs is None for d in drops):
        raise ValueError(
            "rngs is None, and dropout has nothing to draw with; expected an nnx.Rngs or a key, or the module's eval()"
        )


def _is_off(deterministic: bool | None, dropout: nnx.Dropout) -> bool:
    return deterministic is None and bool(dropout.deterministic)


def check_metadata(**metadata: Any) -> None:
    """Raises TypeError unless each is a mapping."""
    for name, value in metadata.items():
        if not isinstance(value, Mapping):
            raise TypeError(f"{name} is {common.shown(value)}; expected a mapping, such as of sharding")
