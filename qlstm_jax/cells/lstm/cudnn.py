"""The LSTM by NVIDIA's cuDNN, through `jax.experimental.rnn`: the whole sequence is one call, forward and backward.

Its equations are those of `cell`, gates in the same order, but for a second bias b', which is 0 here:

    [i, f, g, o] = split4(x_t W + b + h_{t-1} U + b')

Its weights are one vector: Wᵀ (4H, D), Uᵀ (4H, H), b (4H,), b' (4H,), each by rows.

What JAX gives of cuDNN is a call for float32, for known shapes, with a gradient for reverse mode and no rule for vmap
or for a derivative of the gradient. Under these the scan runs in its place: values and derivatives are the same.

cuDNN itself is asked for the size of its buffers while the call is traced, so even that needs an NVIDIA GPU: where JAX
has none, `refusal` says so first.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jax.experimental import rnn
from jaxtyping import Array, Float, Int

from qlstm_jax.cells import common

Params: TypeAlias = Any  # of the cell
Carry: TypeAlias = Any  # (c, h) of the cell
Outputs = tuple[Carry, Array]
# The same by a scan over tokens: (params, sequence, carry, plain) -> (carry, ys).
Scan = Callable[[Params, common.Sequence, Carry, bool], Outputs]

# Values of `jax_default_matmul_precision` under which a product of float32 may be computed with fewer digits. As for
# other products on a GPU, cuDNN then computes in TensorFloat-32. Under all others it computes in float32.
COARSE = (None, "default", "high", "bfloat16", "tensorfloat32", "TF32_TF32_F32")


def refusal(params: Params, sequence: common.Sequence, *, plain: bool) -> str | None:
    """Why cuDNN cannot run a call, or None if it can.

    Args:
        params: of the cell.
        sequence: the call's inputs.
        plain: whether the call must be differentiable in any mode.
    """
    if params.implementation == "auto":
        return "it is taken by name alone"
    if plain:
        return "plain is True, and cuDNN has a gradient for reverse mode alone"
    if sequence.resets is not None:
        return "resets are given, and cuDNN has none"
    if params.dtype != "float32":
        return f"dtype is {params.dtype!r}, and JAX has cuDNN's LSTM for float32 alone"
    if not all(isinstance(size, int) for size in sequence.xs.shape):
        return f"xs has the symbolic shape {sequence.xs.shape}, and cuDNN must know it"
    if not has_gpu():
        return "JAX sees no NVIDIA GPU"
    return None


def has_gpu() -> bool:
    """Whether JAX has an NVIDIA GPU here, with which come cuDNN and JAX's calls of it."""
    try:
        return bool(jax.devices("cuda"))
    except RuntimeError:  # there is no such backend
        return False


def flat_weights(params: Params) -> Float[Array, " weights"]:
    """W (D, 4H), U (H, 4H) and b (4H,) as cuDNN's vector of (D + H + 2) 4H numbers, float32; differentiable."""
    parts = params.input_kernel.T, params.recurrent_kernel.T, params.bias, jnp.zeros_like(params.bias)
    return jnp.concatenate([a.astype(jnp.float32).reshape(-1) for a in parts])


def unroll(scan: Scan, params: Params, sequence: common.Sequence, carry: Carry) -> Outputs:
    """A whole sequence, as `cell.unroll` runs it, on a GPU.

    Args:
        scan: the same by a scan over tokens.
        params: of the cell.
        sequence: without resets.
        carry: from which to continue, float32.

    Returns:
        (carry, ys (B, T, H)).
    """
    xs = sequence.xs.astype(jnp.float32)
    batch, steps, _ = xs.shape
    if not batch or not steps:
        return carry, jnp.zeros((batch, steps, carry.h.shape[1]), jnp.float32)
    lengths = sequence.seq_lengths
    # cuDNN wants a token in each row at least. A row without any gets one of zeros, and what comes of it is dropped.
    rows = jnp.full((batch,), steps, jnp.int32) if lengths is None else jnp.maximum(lengths, 1)
    operands = params, xs, carry, rows
    params, xs, carry, rows = common.varying_as(operands, operands)
    end, ys = _lstm(scan, _precision(), params, xs, carry, rows)
    if lengths is None:
        return end, ys
    return common.where(lengths > 0, end, carry), common.zero_padding(ys, sequence.valid)


def _precision() -> jax.lax.Precision:
    coarse = getattr(jax.config, "jax_default_matmul_precision") in COARSE  # noqa: B009 - it has no types
    return jax.lax.Precision.HIGH if coarse else jax.lax.Precision.HIGHEST


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _lstm(
    scan: Scan, precision: jax.lax.Precision, params: Params, xs: Array, carry: Carry, lengths: Int[Array, " batch"]
) -> Outputs:
    """(carry, ys) of rows of 1..T tokens."""
    return _lstm_forward(scan, precision, params, xs, carry, lengths)[0]


def _lstm_forward(scan: Scan, precision: jax.lax.Precision, *operands: Any) -> tuple[Outputs, Any]:
    def by_scan(*operands: Any) -> tuple[Outputs, Array]:
        reserve = jax.eval_shape(partial(_forward, precision), *operands)[1]
        return _by_scan(scan, True, *operands), jnp.zeros(reserve.shape, reserve.dtype)

    outputs, reserve = _with_rules(partial(_forward, precision), by_scan)(*operands)
    return outputs, (operands, outputs[1], reserve)


def _lstm_backward(scan: Scan, precision: jax.lax.Precision, residuals: Any, cotangents: Outputs) -> Any:
    def by_scan(operands: Any, _ys: Array, _reserve: Array, cotangents: Outputs) -> Any:
        params, xs, carry, lengths = operands
        run = partial(_by_scan, scan, False, lengths=lengths)
        return jax.vjp(run, params, xs, carry)[1](cotangents)

    gradients = _with_rules(partial(_backward, precision), by_scan)(*residuals, cotangents)
    return *gradients, None


_lstm.defvjp(_lstm_forward, _lstm_backward)


def _with_rules(function: Callable[..., Any], by_scan: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, but `by_scan`, of the same values, under vmap and for its derivative."""
    mappable = custom_vmap(function)

    @mappable.def_vmap
    def mapped(size: int, batched: Any, *operands: Any) -> tuple[Any, Any]:
        axes = jax.tree.map(lambda is_batched: 0 if is_batched else None, batched)
        outputs = jax.vmap(by_scan, in_axes=tuple(axes), axis_size=size)(*operands)
        return outputs, jax.tree.map(lambda _: True, outputs)

    run = jax.custom_jvp(mappable)

    @run.defjvp
    def derivative(primals: Any, tangents: Any) -> tuple[Any, Any]:
        return run(*primals), jax.jvp(by_scan, primals, tangents)[1]

    return run


def _by_scan(scan: Scan, plain: bool, params: Params, xs: Array, carry: Carry, lengths: Array) -> Outputs:
    valid = common.valid_mask(lengths, xs.shape[1])
    return scan(params, common.Sequence(common.zero_padding(xs, valid), lengths, valid, None), carry, plain)


def _forward(
    precision: jax.lax.Precision, params: Params, xs: Array, carry: Carry, lengths: Array
) -> tuple[Outputs, Array]:
    """((carry, ys), what cuDNN keeps for its gradient)."""
    outputs, (*_, reserve) = rnn.lstm_fwd(
        xs,
        carry.h[None],
        carry.c[None],
        flat_weights(params),
        lengths,
        input_size=xs.shape[2],
        hidden_size=carry.h.shape[1],
        num_layers=1,
        dropout=False,
        bidirectional=False,
        precision=precision,
    )
    (ys, h, c), reserve = common.varying_as((outputs, reserve), xs)
    return (type(carry)(c=c[0], h=h[0]), ys), reserve


def _backward(
    precision: jax.lax.Precision, operands: Any, ys: Array, reserve: Array, cotangents: Outputs
) -> tuple[Params, Array, Carry]:
    """Gradients of params, xs and carry."""
    params, xs, carry, lengths = operands
    d_carry, dys = cotangents
    weights, unflatten = jax.vjp(flat_weights, params)
    sizes = xs.shape[2], carry.h.shape[1]
    residuals = xs, carry.h[None], carry.c[None], weights, lengths, ys, reserve
    given = dys, d_carry.h[None], d_carry.c[None]
    dxs, dh, dc, d_weights, _ = common.varying_as(
        rnn.lstm_bwd(*sizes, 1, False, False, precision, residuals, given), xs
    )
    return unflatten(d_weights)[0], dxs, type(carry)(c=dc[0], h=dh[0])
