"""Gates as functions of one hidden unit, for a kernel that holds each gate's pre-activations in an array of its own.

A cell's `gates` splits a row of pre-activations (B, G) and works element by element. Traced for one sequence and one
unit, its operations are scalar; carried out on arrays instead, they compute the same for as many sequences and units
as these have, in any layout, and no row is ever split or joined. So is the linear part of `gates`, from `jax.vjp`.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core
from jaxtyping import Array

Parts = tuple[Array, ...]  # a row of one unit: an array for each of its columns

# Primitives that act on each element alone.
ELEMENTWISE = frozenset(
    "abs add add_any and clamp convert_element_type copy div eq exp exp2 ge gt integer_pow le log log1p logistic lt max min mul "
    "ne neg not one_minus_square or pow rsqrt select_n sign sqrt square sub tanh".split()
)
# Those that change no more than the shape of one unit's row, with or without repeating it.
SHAPES = frozenset("broadcast_in_dim expand_dims reshape squeeze transpose".split())



def _logistic(x: Array) -> Array:
    """Of two instructions of the special function unit, with approximate math: 1 / y is the square of 1 / √y."""
    return lax.square(lax.rsqrt(1 + lax.exp(-x)))


# For `replace`: exact to 1e-6 of 1, and by the hardware's tanh, exact to 5e-4.
FAST = {"logistic": _logistic, "tanh": lambda x: 2 * _logistic(2 * x) - 1}
COARSE = {"logistic": lambda x: 0.5 + 0.5 * lax.tanh(0.5 * x)}


def by_unit(
    function: Callable[..., Any], *examples: Any, replace: Mapping[str, Callable[..., Array]] = MappingProxyType({})
) -> tuple[Callable[..., list[Parts]], Any]:
    """(run, shapes) of `function` of pytrees of rows of one unit: every axis but the last is 1.

    Args:
        function: traced with arguments like `examples`, pytrees of `jax.ShapeDtypeStruct`.

    Returns:
        run: takes Parts for each leaf of the arguments, to Parts for each leaf of the result. Arrays are of one shape.
        shapes: the result of `function`, a pytree of `jax.ShapeDtypeStruct`.

    Raises:
        NotImplementedError: if `function` does more than split, join and work on each element alone.
    """
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(*examples)

    def run(*leaves: Parts) -> list[Parts]:
        return _run(closed.jaxpr, closed.consts, leaves, replace)

    return run, shapes


def _run(jaxpr: Any, consts: Sequence[Any], leaves: Sequence[Parts], replace: Any) -> list[Parts]:
    values: dict[Any, Parts] = {}

    def read(atom: Any) -> Parts:
        return (jnp.asarray(atom.val, atom.aval.dtype),) if isinstance(atom, core.Literal) else values[atom]

    for variable, const in zip(jaxpr.constvars, consts, strict=True):
        values[variable] = tuple(jnp.ravel(jnp.asarray(const)))
    values.update(zip(jaxpr.invars, leaves, strict=True))
    for equation in jaxpr.eqns:
        outputs = _apply(equation, [read(a) for a in equation.invars], replace)
        values.update(zip(equation.outvars, outputs, strict=True))
    return [read(a) for a in jaxpr.outvars]


def _apply(equation: Any, inputs: list[Parts], replace: Any) -> list[Parts]:
    name, params, width = equation.primitive.name, equation.params, _width(equation.outvars[0].aval)
    inner = params.get("jaxpr", params.get("call_jaxpr"))
    if inner is not None:
        consts = getattr(inner, "consts", ())
        return _run(getattr(inner, "jaxpr", inner), consts, inputs, replace)
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
    if name not in ELEMENTWISE:
        raise NotImplementedError(f"the gates use the operation {name}; expected one of each element alone")
    return [tuple(_element(equation, [a[i if len(a) > 1 else 0] for a in inputs], replace) for i in range(width))]


def _width(aval: Any) -> int:
    return int(aval.shape[-1]) if aval.shape else 1


def _element(equation: Any, inputs: list[Array], replace: Any) -> Array:
    name = equation.primitive.name
    shape = max((a.shape for a in inputs), key=len)
    inputs = [a if a.shape == shape else jnp.broadcast_to(a, shape) for a in inputs]
    if name in replace:
        replaced: Array = replace[name](*inputs)
        return replaced
    if name == "add_any":
        return inputs[0] + inputs[1]
    if name == "log1p":  # absent from Mosaic GPU; within a gate of float32 an error of 1e-7 is that of the sum
        return lax.log(inputs[0] + 1)
    if name == "logistic":
        return 1 / (1 + lax.exp(-inputs[0]))
    if name == "copy":
        return inputs[0]
    if name == "integer_pow" and equation.params["y"] < 0:
        return 1 / lax.integer_pow(inputs[0], -equation.params["y"])
    if name == "convert_element_type":
        return inputs[0].astype(equation.params["new_dtype"])
    result: Array = equation.primitive.bind(*inputs, **equation.params)
    return result
