"""The recurrence through the kernels, with a gradient.

The kernels do what is sequential. Products with W, and those that give dU, dW and dx, are taken here for all tokens at
once. In the gradient da is rounded to bfloat16 as an operand of products, whatever 16-bit dtype activations have.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from qlstm_jax.cells.common.products import matmul
from qlstm_jax.cells.common.recurrence.kernel import backward, forward
from qlstm_jax.cells.common.recurrence.kernel.frame import Frame
from qlstm_jax.cells.common.recurrence.kernel.plan import kernel_layouts
from qlstm_jax.cells.common.recurrence.kernel.support import unsupported


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def run(gates: Callable[..., Any], separate: int, operands: Any) -> tuple[Any, Array]:
    """(carry, ys) of `recurrence`'s operands.

    Raises:
        NotImplementedError: from `unsupported`, or if `gates` is not made of operations that a kernel has.
    """
    results: tuple[Any, Array] = _forward(gates, separate, operands, keep=False)[0]
    return results


def _forward(gates: Callable[..., Any], separate: int, operands: Any, *, keep: bool) -> Any:
    reason = unsupported(operands.recurrent_kernel, operands.h.dtype, separate)
    if reason is not None:
        raise NotImplementedError(f"the kernel cannot run this recurrence: {reason}; or choose another way")
    frame = Frame(gates, separate, operands)
    xs, bias, recurrent_bias = operands.xs, operands.bias, operands.recurrent_bias
    if operands.input_kernel is not None:
        xs = matmul(xs, operands.input_kernel, frame.dtype)
    inputs = forward.Inputs(
        kernel=kernel_layouts(frame.kernel(), frame.dtype)[0],
        z=frame.tokens(xs),
        bias=jnp.zeros((frame.heads, frame.columns, frame.size), jnp.float32) if bias is None else frame.row(bias),
        recurrent_bias=None if recurrent_bias is None else frame.row(recurrent_bias),
        weights=frame.weights(),
        h=frame.carry(operands.h),
        states=frame.states(operands.state),
        valid=frame.mask(operands.valid),
        resets=frame.mask(operands.resets),
    )
    outputs = forward.forward(frame.plan(), frame.by_unit_gates(), inputs, keep=keep)
    ys = frame.tokens_back(outputs.hs[:, :, None])
    if operands.valid is not None:
        ys = jnp.where(operands.valid[:, :, None], ys, jnp.zeros((), ys.dtype))
    carry = frame.carry_back(outputs.h).astype(frame.dtype), frame.states_back(outputs.states)
    return (carry, ys), (inputs, outputs)


def _run_forward(gates: Callable[..., Any], separate: int, operands: Any) -> tuple[Any, Any]:
    results, (inputs, outputs) = _forward(gates, separate, operands, keep=True)
    return results, (operands, inputs._replace(kernel=None, z=None), outputs)


def _run_backward(gates: Callable[..., Any], separate: int, residuals: Any, cotangents: Any) -> tuple[Any]:
    operands, inputs, outputs = residuals
    (dh, dstate), dys = cotangents
    frame = Frame(gates, separate, operands)
    if operands.valid is not None:
        dys = jnp.where(operands.valid[:, :, None], dys, jnp.zeros((), dys.dtype))
    given = backward.Inputs(
        kernel=kernel_layouts(frame.kernel(), frame.dtype)[1],
        weights=inputs.weights,
        a=outputs.kept_a,
        states=outputs.kept_states,
        valid=inputs.valid,
        resets=inputs.resets,
        dhs=frame.tokens(dys)[:, :, 0],
        dh=frame.carry(dh),
        dstates=frame.states(dstate),
    )
    results = backward.backward(frame.plan(), *frame.by_unit_linear_part(), given)
    before = h_before(inputs.h.astype(frame.dtype), outputs.hs, inputs.resets)
    dweights = None if results.dweights is None else jnp.sum(results.dweights, axis=-1)
    gradients = _products(frame, before, results.da)._replace(
        weights=frame.weights_back(dweights), h=frame.carry_back(results.dh), state=frame.states_back(results.dstates)
    )
    return (jax.tree.map(lambda d, x: d.astype(x.dtype), gradients, operands._replace(valid=None, resets=None)),)


run.defvjp(_run_forward, _run_backward)


def h_before(h: Array, hs: Array, resets: Array | None) -> Array:
    """What each token's product with U had (T, N, K, B), from h (N, K, B) before the first one and hs after each."""
    before = jnp.concatenate([h[None], hs[:-1]])
    if resets is None:
        return before
    return jnp.where(resets[:, None, None, :] > 0, jnp.zeros((), before.dtype), before)


def kernel_gradient(before: Array, da: Array) -> Array:
    """dU (N, K, M, K) from `h_before` (T, N, K, B) and the gradients of pre-activations (T, N, M, K, B)."""
    dtype = jnp.promote_types(before.dtype, da.dtype)
    operands = before.astype(dtype), da.astype(dtype)
    return jnp.einsum("tnkb,tnmjb->nkmj", *operands, preferred_element_type=jnp.float32)


def _products(frame: Frame, before: Array, da: Array) -> Any:
    """The gradients that are products over all tokens, or sums: of U, W, biases and xs."""
    operands, columns, wide = frame.operands, frame.columns, jnp.float32
    dz, du = da[:, :, :columns], da
    if frame.separate:
        du = jnp.concatenate([da[:, :, : columns - frame.separate], da[:, :, columns:]], axis=2)
    d_bias = d_recurrent_bias = d_input = None
    if operands.bias is not None:
        d_bias = frame.row_back(jnp.sum(dz.astype(wide), axis=(0, 4) if operands.bias.ndim == 1 else 0))
    if operands.recurrent_bias is not None:
        d_recurrent_bias = frame.row_back(jnp.sum(da[:, :, columns:].astype(wide), axis=(0, 4)))
    d_xs = frame.tokens_back(dz)
    if operands.input_kernel is not None:
        dtype = jnp.promote_types(operands.xs.dtype, da.dtype)
        d_xs, xs = d_xs.astype(dtype), operands.xs.astype(dtype)
        d_input = jnp.einsum("tbd,tbg->dg", xs, d_xs, preferred_element_type=wide)
        d_xs = matmul(d_xs, operands.input_kernel.T, dtype)
    return operands._replace(
        recurrent_kernel=kernel_gradient(before, du).reshape(operands.recurrent_kernel.shape),
        input_kernel=d_input,
        bias=d_bias,
        recurrent_bias=d_recurrent_bias,
        xs=d_xs,
        valid=None,
        resets=None,
    )
