"""The params of a cell: a frozen dataclass, a pytree with its arrays as leaves and its options in the structure."""

import dataclasses
from collections.abc import Iterable
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

    Annotate the arrays with their shapes; a size of the same name is the same in all fields:

        @params_dataclass
        class Params:
            input_kernel: Float[Array, "d h"]
            bias: Float[Array, " h"]
            dtype: str = static(default="float32")

    With jaxtyping's import hook, a call of the class checks the arrays. Unflattening a pytree does not call it, as JAX
    puts other leaves in there than arrays: None, `ShapeDtypeStruct`s, shardings, gradients, plain objects.
    """
    cls = dataclasses.dataclass(frozen=True, kw_only=True)(cls)
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    arrays = tuple(f.name for f in fields if not f.metadata.get("static"))
    options = tuple(f.name for f in fields if f.metadata.get("static"))
    keys = tuple(map(jax.tree_util.GetAttrKey, arrays))

    def values(params: T, names: tuple[str, ...]) -> tuple[Any, ...]:
        return tuple(getattr(params, name) for name in names)

    def unflatten(structure: tuple[Any, ...], leaves: Iterable[Any]) -> T:
        params = object.__new__(cls)
        for name, value in zip(arrays + options, (*leaves, *structure), strict=True):
            object.__setattr__(params, name, value)
        return params

    jax.tree_util.register_pytree_with_keys(
        cls,
        lambda params: (tuple(zip(keys, values(params, arrays), strict=True)), values(params, options)),
        unflatten,
        lambda params: (values(params, arrays), values(params, options)),
    )
    return cls
