"""Gates as functions of one hidden unit, for a kernel that holds each gate's pre-activations in an array of its own.

A cell's `gates` splits a row of pre-activations (B, G) and works element by element. Traced for one sequence and one
unit, its operations are scalar; carried out on arrays instead, they compute the same for as many sequences and units
as these have, in any layout, and no row is ever split or joined. So is the linear part of `gates`, from `jax.vjp`.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core
from jaxtyping import Array

Parts = tuple[Array, ...]  # a row of one unit: an array for each of its columns


def _logistic(x: Array) -> Array:
    """In two operations of a GPU's special function unit: 1 / y is the square of 1 / √y. Exact to 1e-6."""
    return lax.square(lax.rsqrt(1 + lax.exp(-x)))


def _integer_pow(x: Array, *, y: int) -> Array:
    return lax.integer_pow(x, y) if y >= 0 else 1 / lax.integer_pow(x, -y)


# Operations that Mosaic GPU lacks, or has in a slower form. An error of 1e-7 in a gate is that of its pre-activations.
REPLACED: dict[str, Callable[..., Array]] = {
    "add_any": lax.add,
    "convert_element_type": lambda x, *, new_dtype, **_: x.astype(new_dtype),
    "copy": lambda x: x,
    "integer_pow": _integer_pow,
    "log1p": lambda x, **_: lax.log(1 + x),
    "logistic": lambda x, **_: _logistic(x),
    "tanh": lambda x, **_: 2 * _logistic(2 * x) - 1,
}
# Operations on each element alone, carried out as they are.
ELEMENTWISE = frozenset(
    re.findall(
        r"\w+",
        "abs add and clamp div eq exp exp2 ge gt le log lt max min mul ne neg not one_minus_square or rsqrt select_n "
        "sign sqrt square sub",
    )
)
# Operations that change no more than the shape of one unit's row, with or without repeating it.
SHAPES = frozenset(("broadcast_in_dim", "expand_dims", "reshape", "squeeze", "transpose"))


def by_unit(function: Callable[..., Any], *examples: Any) -> Callable[..., list[Parts]]:
    """`function` of pytrees of rows of one unit, every axis but the last being 1, as a function of arrays.

    Args:
        function: traced with arguments like `examples`, pytrees of `jax.ShapeDtypeStruct`.

    Returns:
        a function of Parts for each leaf of the arguments, to Parts for each leaf of the result; all arrays are of one
        shape.

    Raises:
        NotImplementedError: if `function` does more than split, join and work on each element alone.
    """
    closed = jax.make_jaxpr(function)(*examples)

    def run(*leaves: Parts) -> list[Parts]:
        return _run(closed.jaxpr, closed.consts, leaves)

    return run


def _run(jaxpr: Any, consts: Sequence[Any], leaves: Sequence[Parts]) -> list[Parts]:
    values: dict[Any, Parts] = {}

    def read(atom: Any) -> Parts:
        literal: Any = atom if isinstance(atom, core.Literal) else None
        return values[atom] if literal is None else (jnp.asarray(literal.val, literal.aval.dtype),)

    for variable, const in zip(jaxpr.constvars, consts, strict=True):
        values[variable] = tuple(jnp.ravel(jnp.asarray(const)))
    values.update(zip(jaxpr.invars, leaves, strict=True))
    for equation in jaxpr.eqns:
        outputs = _apply(equation, [read(a) for a in equation.invars])
        values.update(zip(equation.outvars, outputs, strict=True))
    return [read(a) for a in jaxpr.outvars]


def _apply(equation: Any, inputs: list[Parts]) -> list[Parts]:
    name, params, width = equation.primitive.name, equation.params, _width(equation.outvars[0].aval)
    inner = params.get("jaxpr", params.get("call_jaxpr"))
    if inner is not None:
        return _run(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), inputs)
    if name in SHAPES:
        return [inputs[0] if len(inputs[0]) == width else inputs[0] * width]
    if name == "slice":
        return [inputs[0][params["start_indices"][-1] : params["limit_indices"][-1]]]
    if name == "split":
        ends = [sum(params["sizes"][: i + 1]) for i in range(len(params["sizes"]))]
        return [inputs[0][end - size : end] for end, size in zip(ends, params["sizes"], strict=True)]
    if name == "concatenate":
        return [sum(inputs, ())]
    if name == "pad" and all(low >= 0 and high >= 0 and not inside for low, high, inside in params["padding_config"]):
        low, high, _ = params["padding_config"][-1]
        fill = (jnp.broadcast_to(inputs[1][0], inputs[0][0].shape),)
        return [fill * low + inputs[0] + fill * high]
    if name == "reduce_sum" and _width(equation.invars[0].aval) == width:
        return inputs
    if name not in REPLACED and name not in ELEMENTWISE:
        raise NotImplementedError(f"the gates use the operation {name}; expected one of each element alone")
    run = REPLACED.get(name, equation.primitive.bind)
    return [tuple(run(*_alike(a[i % len(a)] for a in inputs), **params) for i in range(width))]


def _width(aval: Any) -> int:
    return int(aval.shape[-1]) if aval.shape else 1


def _alike(arrays: Any) -> list[Array]:
    """Scalars among arrays, repeated to their shape."""
    arrays = list(arrays)
    shape = max((a.shape for a in arrays), key=len)
    return [a if a.shape == shape else jnp.broadcast_to(a, shape) for a in arrays]
