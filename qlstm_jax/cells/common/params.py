"""The params of a cell: one frozen dataclass whose arrays are leaves of a pytree and whose options are part of its structure."""

import dataclasses
from typing import Any, TypeVar, dataclass_transform

import jax

T = TypeVar("T")


def static(*, default: Any = dataclasses.MISSING) -> Any:
    """A dataclass field that is part of the treedef (an option) instead of an array leaf."""
    return dataclasses.field(default=default, metadata={"static": True})


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(static,))
def params_dataclass(cls: type[T]) -> type[T]:
    """Makes `cls` a frozen, keyword-only dataclass that is a pytree: arrays are leaves, `static()` fields are not.

    So `params` alone says everything about a cell: `jax.grad`, optimisers and checkpoints see the arrays, while
    the options, hashable, are part of what `jax.jit` specialises on.
    """
    return jax.tree_util.register_dataclass(dataclasses.dataclass(frozen=True, kw_only=True)(cls))
