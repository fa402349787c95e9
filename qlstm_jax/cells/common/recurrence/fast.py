"""The recurrence as a scan over tokens with a gradient of its own, for reverse mode."""

import functools
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from qlstm_jax.cells.common.axes import varying_as
from qlstm_jax.cells.common.products import accumulator, kernel_gradient, matmul
from qlstm_jax.cells.common.recurrence.chunks import chunk_length, in_chunks, unroll
from qlstm_jax.cells.common.recurrence.operands import Gates, Layout, Operands, State, mask_outputs, restart, where
from qlstm_jax.cells.common.recurrence.plain import run_token


class Kept(NamedTuple):
    """What the gradient needs of each token: (T, B, ...), or with heads (T, N, B, ...)."""

    h: Array  # after the token, valid or not
    inputs: tuple[Any, Any] | None = None  # the pre-activations and the state that `gates` got
    pull: Callable[..., Any] | None = None  # in their place, the linear part of `gates` there


def _linear_part_is_small(gates: Gates[State], weights: Any, a: Any, state: Any) -> bool:
    """Whether the linear part of `gates` is no larger than what it is computed from. Weights need the latter.

    Without jit a scan is a loop, which cannot stack linear parts.
    """
    if jax.tree.leaves(weights) or getattr(jax.config, "jax_disable_jit"):  # noqa: B009 - it has no types
        return False
    pull = jax.eval_shape(lambda a, state: jax.vjp(partial(gates, weights), a, state)[1], a, state)
    sizes = [sum(x.size for x in jax.tree.leaves(tree)) for tree in (pull, (a, state))]
    return bool(sizes[0] <= sizes[1])


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def run(gates: Gates[State], separate: int, operands: Operands) -> tuple[Any, Array]:
    """(carry, ys) of the operands."""
    results: tuple[Any, Array] = _forward(gates, separate, operands, keep=False)[0]
    return results


def _fast_forward(gates: Gates[State], separate: int, operands: Operands) -> tuple[Any, Any]:
    results, kept = _forward(gates, separate, operands, keep=True)
    return results, (operands, kept)


def _forward(gates: Gates[State], separate: int, operands: Operands, *, keep: bool) -> tuple[Any, Kept]:
    """((carry, ys), what the gradient needs).

    The scan carries the pre-activations of the coming token, so that inputs come a token early; after the last one
    the first comes again, and what is made of it is not used.
    """
    layout = Layout(operands, separate)

    def early(a: Array | None) -> Array | None:
        return None if a is None else jnp.concatenate([a[1:], a[:1]])

    def token(carry: Any, inputs: Any) -> tuple[Any, Kept]:
        h, state, a = carry
        z, ok, reset, next_reset = inputs
        start, pull = restart(reset, state), None
        if keep and _linear_part_is_small(gates, operands.weights, a, start):
            new, pull = jax.vjp(partial(gates, operands.weights), a, start)
            h, state = where(ok, (new[0].astype(h.dtype), new[1]), (h, state))
        else:
            h, state = run_token(gates, operands.weights, a, ok, (h, state), start)
        next_a = layout.preactivations(z, restart(next_reset, h))
        return (h, state, next_a), Kept(h, (a, start) if keep and pull is None else None, pull)

    def chunk(carry: Any, inputs: Any, _: None) -> tuple[Any, Kept]:
        xs, *masks = inputs
        return jax.lax.scan(token, carry, (layout.project(xs), *masks), unroll=unroll())

    valid, resets = layout.valid, layout.resets
    h, state = layout.split_heads((operands.h, operands.state))
    first_z = tuple(z[0] for z in layout.project(operands.xs[:1]))
    a = layout.preactivations(first_z, restart(None if resets is None else resets[0], h))
    inputs = early(operands.xs), valid, resets, early(resets)
    (h, state, _), kept = in_chunks(chunk, (h, state, a), inputs, chunk_length(operands.xs))
    ys = mask_outputs(operands.valid, layout.merge_heads(kept.h))
    return (layout.merge_heads((h, state)), ys), kept


def _fast_backward(gates: Gates[State], separate: int, residuals: Any, cotangents: Any) -> tuple[Operands]:
    operands, kept = residuals
    layout, weights, wide = Layout(operands, separate), operands.weights, accumulator(operands.h.dtype)
    back = jnp.swapaxes(layout.kernel.astype(wide), -1, -2)  # Uᵀ, once and not at each token
    weighted = bool(jax.tree.leaves(weights))

    def token(carry: Any, inputs: Any) -> tuple[Any, Any]:
        pull, dy, ok, reset = inputs
        given = carry[0] + dy.astype(wide), carry[1]
        given = where(ok, given, jax.tree.map(jnp.zeros_like, given))
        da, dstate = pull(given)
        dh = jnp.matmul(jnp.concatenate([da[0], da[2]], axis=-1) if separate else da, back)
        return where(ok, restart(reset, (dh, dstate)), carry), (da, given if weighted else None)

    def chunk(carry: Any, inputs: Any, before: Array) -> tuple[Any, Array]:
        """Adds a chunk to the sums, from h before its first token."""
        carry, sums = carry
        xs, kept, dys, valid, resets = inputs
        pulls = kept.pull
        if pulls is None:
            pulls = jax.vmap(lambda a, state: jax.vjp(partial(gates, weights), a, state)[1])(*kept.inputs)
        carry, (da, given) = jax.lax.scan(token, carry, (pulls, dys, valid, resets), reverse=True, unroll=unroll())
        h = restart(resets, jnp.concatenate([before[None], kept.h[:-1]]))
        dz: tuple[Array, ...] = (da[0], da[1]) if separate else (da,)
        du: tuple[Array, ...] = (da[0], da[2]) if separate else (da,)
        dz = layout.merge_heads(dz)
        new = (
            _kernel_gradients(xs if layout.input_kernels else None, h, dz, du),
            None if operands.bias is None else _bias_gradient(operands.bias, dz),
            None if operands.recurrent_bias is None else jnp.sum(du[1], axis=(0, 1)),
            _weights_gradient(gates, weights, kept.inputs, given) if weighted else None,
        )
        if layout.input_kernels is None:
            dxs = jnp.concatenate(dz, axis=-1)
        else:
            parts = (matmul(d, kernel.T, wide) for d, kernel in zip(dz, layout.input_kernels, strict=True))
            dxs = functools.reduce(jnp.add, parts)
        return (carry, jax.tree.map(jnp.add, sums, new)), dxs.astype(operands.xs.dtype)

    kernels = tuple(None if a is None else jnp.zeros(a.shape, wide) for a in operands[:2])
    bias = None if operands.bias is None else jnp.zeros(operands.bias.shape, wide)
    recurrent = None if operands.recurrent_bias is None else jnp.zeros(operands.recurrent_bias.shape, wide)
    sums = kernels, bias, recurrent, jax.tree.map(jnp.zeros_like, weights) if weighted else None
    sums = varying_as(sums, operands)
    dh, dstate = layout.split_heads(cotangents[0])
    dys = layout.split_heads(mask_outputs(operands.valid, cotangents[1]))
    length = chunk_length(operands.xs)
    chunks = -(-operands.xs.shape[0] // length)
    first = layout.split_heads(operands.h)[None]
    before = jnp.concatenate([first, kept.h[length - 1 : (chunks - 1) * length : length]])
    inputs = operands.xs, kept, dys, layout.valid, layout.resets
    start = (dh.astype(wide), dstate), sums
    (carry, sums), dxs = in_chunks(chunk, start, inputs, length, each=before, reverse=True)
    dh, dstate = layout.merge_heads(carry)
    (d_recurrent, d_input), d_bias, d_recurrent_bias, d_weights = sums
    d_weights = d_weights if weighted else weights
    gradients = Operands(d_recurrent, d_input, d_bias, d_recurrent_bias, d_weights, dh, dstate, dxs, None, None)
    return (jax.tree.map(lambda d, a: d.astype(a.dtype), gradients, operands._replace(valid=None, resets=None)),)


run.defvjp(_fast_forward, _fast_backward)


def _kernel_gradients(xs: Array | None, h: Array, dz: tuple[Array, ...], du: tuple[Array, ...]) -> tuple[Any, Any]:
    """(dU, dW) of a chunk, wide, from h before each token; without xs, no dW.

    Columns that are the gradient of both are multiplied once, by x and h side by side: one large product is faster.
    """
    h = h.astype(du[0].dtype)
    if h.ndim == 4:
        d_recurrent = jnp.einsum("tnbk,tnbj->nkj", h, du[0])
        return d_recurrent, None if xs is None else kernel_gradient(xs.astype(h.dtype), dz[0])
    if xs is None:
        return jnp.concatenate([kernel_gradient(h, d) for d in du], axis=1), None
    xs = xs.astype(h.dtype)
    both = kernel_gradient(jnp.concatenate([xs, h], axis=-1), dz[0])
    d_input, d_recurrent = both[: xs.shape[-1]], both[xs.shape[-1] :]
    if len(dz) > 1:
        d_input = jnp.concatenate([d_input, kernel_gradient(xs, dz[1])], axis=1)
        d_recurrent = jnp.concatenate([d_recurrent, kernel_gradient(h, du[1])], axis=1)
    return d_recurrent, d_input


def _bias_gradient(bias: Array, dz: tuple[Array, ...]) -> Array:
    return jnp.concatenate([jnp.sum(d, axis=(0, 1) if bias.ndim == 1 else 0) for d in dz], axis=-1)


def _weights_gradient(gates: Gates[State], weights: Any, inputs: Any, given: Any) -> Any:
    """That of the weights, from the gradients of all (h, state) of a chunk."""

    def run(weights: Any) -> Any:
        return jax.vmap(partial(gates, weights))(*inputs)

    return jax.vjp(run, weights)[1](given)[0]
