"""A module's dropout: where it takes its keys from, and how a call applies it."""

from collections.abc import Callable

import jax
from flax import nnx
from jaxtyping import Array

from qlstm_jax.nnx import checks


def dropout_stream(rngs: nnx.Rngs) -> nnx.Rngs | None:
    """The streams that an `nnx.Dropout` draws from where a call gives no keys: `rngs` with a "dropout" or "default".

    None where it has neither: the dropout then takes its keys from each call, and the module holds no state.
    """
    return rngs if {"dropout", "default"} & set(rngs) else None


def applied(
    dropout: nnx.Dropout | None, deterministic: bool | None, rngs: nnx.Rngs | Array | None
) -> Callable[[Array], Array]:
    """A function that drops by `dropout` as the arguments of a module's call say; for None it changes nothing.

    A key becomes streams first: used as it is, it would give every place that drops in the module the same mask.

    Raises:
        TypeError: if rngs is nothing to draw with.
        ValueError: if deterministic is no flag, or the dropout has nothing to draw with.
    """
    checks.check_dropout(deterministic, rngs, dropout)
    if dropout is None:
        return lambda a: a
    streams = nnx.Rngs(rngs) if isinstance(rngs, jax.Array) else rngs
    return lambda a: dropout(a, deterministic=deterministic, rngs=streams)
