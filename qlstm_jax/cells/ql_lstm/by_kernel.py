"""QL-LSTM over whole blocks by the kernel of `common.recurrence`, a launch for each block.

What does not depend on the block memory is done for all tokens at once: the product with W, and in the gradient those
that give dW, dx, dU, dP and dQ. As x W + (h + s) U is a sum, its gradient at each token is that of both products, and
    dU = Σ_t (h_{t-1} + s)ᵀ da_t;      likewise, with dv at each block,  dP = Σ_k p_kᵀ dv_k  and  dQ = Σ_k s_kᵀ dv_k.
Within the scan over blocks there remain the products with s, the launch, the sum of h and the write.

Arrays of units are as the kernel has them, (..., N, K, B); those of the memory are (B, H).
"""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from qlstm_jax.cells import common
from qlstm_jax.cells.common.recurrence.kernel import tokens
from qlstm_jax.cells.common.recurrence.kernel.frame import Frame
from qlstm_jax.cells.common.recurrence.kernel.gradient import h_before, kernel_gradient
from qlstm_jax.cells.common.recurrence.kernel.plan import kernel_layouts
from qlstm_jax.cells.common.recurrence.operands import Operands
from qlstm_jax.cells.ql_lstm.block import gate_weights, gates, read, write
from qlstm_jax.cells.ql_lstm.params import Carry, Params, Slow


class Kernels(NamedTuple):
    """The matrices within the scan over blocks, whose gradients are taken after it."""

    recurrent: Array  # U by unit (N, K, M, K)
    memory: Array  # P above Q (2H, H)


class Inputs(NamedTuple):
    """All else."""

    params: Params  # without the matrices
    z: Array  # x W (blocks, L, N, M, K, B)
    weights: Array | None  # of the gates (N, weights, K)
    bias: Array  # (N, M, K, 1)
    h: Array  # (N, K, B)
    states: Array | None  # c (N, 1, K, B)
    slow: Slow
    valid: Array | None  # (blocks, L, B), 0 or 1


def unroll(params: Params, carry: Carry, xs: Array, valid: Array | None) -> tuple[Carry, Array]:
    """Whole blocks of tokens.

    Args:
        params: of a cell with a block memory.
        carry: in which no row stands within a block.
        xs: (T, B, D), T a multiple of L.
        valid: None or (T, B) booleans, true on the first positions of each row.

    Returns:
        (carry, ys (T, B, H)).
    """
    slow = carry.slow
    if slow is None:
        raise ValueError("the carry has no memory; expected that of a cell with skip=True")
    operands = Operands(
        recurrent_kernel=params.recurrent_kernel,
        input_kernel=params.input_kernel,
        bias=None,
        recurrent_bias=None,
        weights=gate_weights(params),
        h=carry.h,
        state=carry.c,
        xs=xs,
        valid=valid,
        resets=None,
    )
    frame = Frame(partial(gates, params.sharing), 0, operands)
    plan = dataclasses.replace(frame.plan(), steps=params.block_size)
    program = tokens.Program(plan, frame.by_unit_gates(), *frame.by_unit_linear_part())
    z = frame.tokens(common.matmul(xs, params.input_kernel, params.dtype))
    blocks = xs.shape[0] // params.block_size
    bias = jnp.zeros((frame.heads, frame.columns, frame.size))
    if params.gate_scale is None:
        bias = frame.row(params.gate_bias.reshape(-1))
    memory = params.memory_weights
    kernels = Kernels(frame.kernel(), jnp.concatenate([memory.summary_kernel, memory.memory_kernel]))
    mask = frame.mask(valid)
    without: Any = dict.fromkeys(("recurrent_kernel", "summary_kernel", "memory_kernel"))
    inputs = Inputs(
        params=dataclasses.replace(params, **without),
        z=z.reshape(blocks, params.block_size, *z.shape[1:]),
        weights=frame.weights(),
        bias=bias[..., None],
        h=frame.carry(carry.h),
        states=frame.states(carry.c),
        slow=slow,
        valid=None if mask is None else mask.reshape(blocks, params.block_size, -1),
    )
    (h, states, slow), hs, memories = _run(program, kernels, inputs)
    reads = jax.vmap(partial(read, params))(memories)
    ys = frame.tokens_back(hs.reshape(xs.shape[0], *hs.shape[2:])[:, :, None])
    ys = (ys.astype(reads.dtype) + jnp.repeat(reads, params.block_size, axis=0)).astype(params.dtype)
    if valid is not None:
        ys = jnp.where(valid[:, :, None], ys, jnp.zeros((), ys.dtype))
    h = frame.carry_back(h).astype(carry.h.dtype)
    return Carry(frame.states_back(states), h, *slow), ys


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _run(program: tokens.Program, kernels: Kernels, inputs: Inputs) -> Any:
    """((h, states, slow), hs (blocks, L, N, K, B), m before each block (blocks, B, H))."""
    return _scan(program, kernels, inputs, None)[0]


def _run_forward(program: tokens.Program, kernels: Kernels, inputs: Inputs) -> Any:
    dv = jnp.zeros((inputs.z.shape[0], *inputs.slow.memory.shape), inputs.slow.memory.dtype)
    kernels = jax.lax.stop_gradient(kernels)
    outputs, pull, summaries = jax.vjp(partial(_scan, program, kernels), inputs, dv, has_aux=True)
    _, hs, memories = outputs
    return outputs, (pull, kernels, inputs.params, inputs.h, hs, memories, summaries)


def _run_backward(program: tokens.Program, residuals: Any, cotangents: Any) -> Any:
    pull, kernels, params, h, hs, memories, summaries = residuals
    gradients, dv = pull(cotangents)
    dtype, length = program.plan.dtype, program.plan.steps
    reads = jax.vmap(partial(read, params))(memories)
    before = h_before(h.astype(dtype), hs.reshape(-1, *hs.shape[2:]), None)
    before = before.reshape(hs.shape) + jax.vmap(partial(_by_unit, program))(reads)[:, None]
    dz = gradients.z.reshape(-1, *gradients.z.shape[2:]).astype(jnp.bfloat16)
    d_recurrent = kernel_gradient(before.astype(dtype).reshape(-1, *hs.shape[2:]), dz)
    factor = jnp.concatenate([summaries / length, reads], axis=-1).astype(dtype)
    d_memory = jnp.einsum("kbf,kbh->fh", factor, dv.astype(dtype), preferred_element_type=jnp.float32)
    d_kernels = Kernels(d_recurrent, d_memory)
    return jax.tree.map(lambda d, like: d.astype(like.dtype), d_kernels, kernels), gradients


_run.defvjp(_run_forward, _run_backward)


def _scan(program: tokens.Program, kernels: Kernels, inputs: Inputs, dv: Array | None) -> tuple[Any, Array]:
    """(outputs, the sum of h over each block); `dv` is 0 and added to v of each block, for the gradient there."""
    dtype, length = program.plan.dtype, program.plan.steps
    layouts = kernel_layouts(kernels.recurrent, dtype)
    recurrent, memory_kernel = kernels.recurrent.astype(dtype), kernels.memory.astype(dtype)
    # Of these the gradient keeps what they are given, and not what they compute on the way.
    read_again, write_again = (jax.checkpoint(f, prevent_cse=False) for f in (read, write))

    def block(carry: Any, each: Any) -> Any:
        h, states, slow = carry
        z, valid, dv = each
        s = read_again(inputs.params, slow.memory)
        by_unit = _by_unit(program, s.astype(dtype))
        bias = jnp.einsum("nkmj,nkb->nmjb", recurrent, by_unit, preferred_element_type=s.dtype) + inputs.bias
        hs, h, states = tokens.run(program, layouts, tokens.Arrays(z, bias, inputs.weights, h, states, valid))
        counted = hs if valid is None else jnp.where(valid[:, None, None] > 0, hs, jnp.zeros((), hs.dtype))
        summary = slow.summary + _by_row(jnp.sum(counted, axis=0, dtype=s.dtype), s.shape)
        factor = jnp.concatenate([summary / length, s], axis=-1).astype(dtype)
        v = jnp.matmul(factor, memory_kernel, preferred_element_type=s.dtype)
        written = write_again(inputs.params, slow.memory, v if dv is None else v + dv)
        new = Slow(written, jnp.zeros_like(summary), jnp.zeros_like(slow.position))
        if valid is not None:
            position = slow.position + jnp.sum(valid, axis=0)[: s.shape[0]].astype(jnp.int32)
            new = common.where(jnp.equal(position, length), new, Slow(slow.memory, summary, position))
        return (h, states, new), (hs, slow.memory, summary)

    carry = inputs.h, inputs.states, inputs.slow
    carry, (hs, memories, summaries) = jax.lax.scan(block, carry, (inputs.z, inputs.valid, dv))
    return (carry, hs, memories), jax.lax.stop_gradient(summaries)


def _by_unit(program: tokens.Program, a: Array) -> Array:
    """(B, H) to (N, K, B), B padded."""
    plan = program.plan
    return jnp.pad(a.T, [(0, 0), (0, plan.batch - a.shape[0])]).reshape(plan.heads, plan.size, plan.batch)


def _by_row(a: Array, shape: tuple[int, ...]) -> Array:
    """(N, K, B), B padded, to (B, H)."""
    return a.reshape(shape[1], -1)[:, : shape[0]].T
