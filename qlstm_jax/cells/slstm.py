"""The sLSTM of xLSTM (arXiv 2405.04517, section 2.2 and appendix A.1): exponential gates, a normaliser, heads.

[i, f, z, o] = split4(x_t W + y_{t-1} R + b)      W (D, 4H), b (4H,); R block-diagonal: N heads of K = H / N
log f  = log σ(f) + m_{t-1}                       or f + m_{t-1} with forget_gate="exponential"
m_t    = max(i, log f), but i where n_{t-1} = 0   element by element
i' = exp(i - m_t);  f' = exp(log f - m_t)
c_t    = f' ⊙ c_{t-1} + i' ⊙ tanh(z)
n_t    = f' ⊙ n_{t-1} + i'
y_t    = σ(o) ⊙ c_t / n_t

The stabiliser m cancels in y and keeps both exponentials at 1 or below. Where n is 0, as in a carry of zeros, nothing
has been seen and m = 0 stands for nothing: max alone would make 0 / 0 of an i below about -103.

A row of 4H pre-activations holds the gates side by side in the order i, f, z, o, and within a gate its heads.

For a cell inside a block, which makes pre-activations in its own way (i and f from a convolution, z and o without),
`recur`, `unroll_preactivations` and `zero_carry` do all that comes after "x_t W + b".
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from qlstm_jax.cells import base
from qlstm_jax.kernels import slstm as kernels

FORGET_GATES = ("sigmoid", "exponential")


@base.params_dataclass
class Params:
    """Weights of the cell, gates side by side in the order i, f, z, o."""

    input_kernel: jax.Array  # W (D, 4H)
    recurrent_kernel: jax.Array  # R (N, K, 4K), each head's block: its y to its four gates side by side
    bias: jax.Array  # b (4H,)
    forget_gate: str = base.static(default="sigmoid")
    dtype: str = base.static(default="float32")

    @property
    def num_heads(self) -> int:
        """N."""
        return self.recurrent_kernel.shape[0]


class Carry(NamedTuple):
    """What passes from step to step, in the official order; but for y, float32 or wider."""

    y: jax.Array  # (B, H)
    c: jax.Array  # (B, H), the cell state
    n: jax.Array  # (B, H), the normaliser, 0 before the first token
    m: jax.Array  # (B, H), the stabiliser: c and n are exp(-m) times their true values


def powerlaw_forget_bias(head_size: int, rho: float):
    """The official forget bias `powerlaw_blockdependent` of one head: from 5 down to -7, rates of all kinds.

    b_d = 5 - 12 (d / (K - 1))^(0.3 + 1.3 ρ), d = 0..K-1; a head of one unit has 5.

    Args:
        head_size: K.
        rho: ρ, the place of the block in its stack, from 0 for the first to 1 for the last.

    Returns:
        (K,) float32.

    Raises:
        ValueError: if head_size is no positive integer, or rho outside 0..1.
    """
    base.check_sizes(head_size=head_size)
    if not 0 <= rho <= 1:
        raise ValueError(f"the place of the block is {rho!r}; expected a number from 0 (first) to 1 (last)")
    place = jnp.arange(head_size, dtype=jnp.float32) / max(head_size - 1, 1)
    return 5 - 12 * place ** (0.3 + 1.3 * rho)


def init(
    key,
    input_size: int,
    hidden_size: int,
    *,
    num_heads: int = 1,
    forget_gate: str = "sigmoid",
    block_position: float = 0.0,
    dtype="float32",
    param_dtype="float32",
) -> Params:
    """Draws parameters: W lecun normal, R zero as in the official code, b zero but `powerlaw_forget_bias` for f.

    Args:
        key: a PRNG key.
        input_size: D.
        hidden_size: H.
        num_heads: N, a divisor of H. y_{t-1} reaches the gates of its own head alone.
        forget_gate: "sigmoid", or "exponential", which the paper has and the official code lacks.
        block_position: ρ of the forget bias.
        dtype: of activations and products; gates, sums, c, n and m are float32 whatever it is.
        param_dtype: of the stored weights.

    Raises:
        ValueError: for a size that is no positive integer, heads that do not divide H, an unknown forget gate, or a
            block position outside 0..1.
    """
    base.check_sizes(input_size=input_size, hidden_size=hidden_size, num_heads=num_heads)
    base.check_choice("forget_gate", forget_gate, FORGET_GATES)
    if hidden_size % num_heads:
        raise ValueError(
            f"hidden_size is {hidden_size} and num_heads {num_heads}; expected a hidden_size that is a multiple of "
            "num_heads, as all heads are of one size"
        )
    size = hidden_size // num_heads
    forget_bias = jnp.tile(powerlaw_forget_bias(size, block_position), num_heads)
    return Params(
        input_kernel=base.lecun_normal(key, (input_size, 4 * hidden_size), param_dtype),
        recurrent_kernel=jnp.zeros((num_heads, size, 4 * size), param_dtype),
        bias=jnp.zeros((4, hidden_size), param_dtype).at[1].set(forget_bias.astype(param_dtype)).reshape(-1),
        forget_gate=forget_gate,
        dtype=jnp.dtype(dtype).name,
    )


def zero_carry(batch_size: int, hidden_size: int, dtype="float32") -> Carry:
    """y = c = n = m = 0, y in `dtype`."""
    shape = (batch_size, hidden_size)
    state = (jnp.zeros(shape, base.accumulator(dtype)) for _ in range(3))
    return Carry(jnp.zeros(shape, dtype), *state)


def initial_carry(params: Params, batch_size: int) -> Carry:
    """The carry before the first token: all zero. Setting rows of a carry to zero starts them anew."""
    return zero_carry(batch_size, params.bias.shape[0] // 4, params.dtype)


def _gates(forget_gate, preactivations, state):
    """(i, f, z, o), (c, n, m) -> (y, c, n, m), element by element, all float32 or wider."""
    i, f, z, o = preactivations
    c, n, m = state
    log_f = (jax.nn.log_sigmoid(f) if forget_gate == "sigmoid" else f) + m
    # With log f at most i, m is i. And f', which multiplies c = n = 0 there, stays at 1 or below: no inf · 0.
    log_f = jnp.where(n == 0, jnp.minimum(log_f, i), log_f)
    m = jnp.maximum(i, log_f)
    write, keep = jnp.exp(i - m), jnp.exp(log_f - m)
    c = keep * c + write * jnp.tanh(z)
    n = keep * n + write
    return jax.nn.sigmoid(o) * (c / n), c, n, m


def recur(recurrent_kernel, carry: Carry, z, *, forget_gate: str = "sigmoid", dtype="float32"):
    """One token from its pre-activations.

    Args:
        recurrent_kernel: R (N, K, 4K).
        carry: of the token before.
        z: (B, 4H), the gates' pre-activations but for y_{t-1} R, bias included.
        forget_gate: as in `init`.
        dtype: of y and of the product with R.

    Returns:
        (carry, y (B, H)).
    """
    heads, size, _ = recurrent_kernel.shape
    wide = base.accumulator(dtype)
    y = carry.y.reshape(-1, heads, size).astype(dtype)
    sums = jnp.einsum("bnk,nkj->bnj", y, recurrent_kernel.astype(dtype), preferred_element_type=wide)
    sums = sums.reshape(-1, heads, 4, size).swapaxes(1, 2).reshape(z.shape)
    y, *state = _gates(forget_gate, jnp.split(z.astype(wide) + sums, 4, axis=-1), carry[1:])
    carry = Carry(y.astype(dtype), *state)
    return carry, carry.y


def step(params: Params, carry: Carry, x):
    """One token: x (B, D) to y (B, H), with the next carry first.

    Raises:
        ValueError: if x is not (B, D).
    """
    base.check_step(x, params.input_kernel.shape[0])
    z = base.affine(x, params.input_kernel, params.bias, params.dtype)
    return recur(params.recurrent_kernel, carry, z, forget_gate=params.forget_gate, dtype=params.dtype)


def _unroll(recurrent_kernel, z, valid, carry, forget_gate, dtype):
    heads, size, _ = recurrent_kernel.shape
    carry = zero_carry(z.shape[0], heads * size, dtype) if carry is None else carry
    z = z.astype(base.accumulator(dtype))
    ys, carry = kernels.scan(partial(_gates, forget_gate), recurrent_kernel, tuple(carry), z, valid)
    return ys, Carry(*carry)


def unroll_preactivations(
    recurrent_kernel, z, *, lengths=None, carry: Carry | None = None, forget_gate: str = "sigmoid", dtype="float32"
):
    """A whole sequence from its pre-activations, equal to folding `recur`.

    Args:
        recurrent_kernel: R (N, K, 4K).
        z: (B, T, 4H), the gates' pre-activations but for y_{t-1} R, bias included.
        lengths: optional (B,) number of valid positions; outputs beyond are 0 and the carry is that after the last.
        carry: where to continue from; default `zero_carry`.
        forget_gate: as in `init`.
        dtype: of y and of the product with R.

    Returns:
        (ys (B, T, H), carry).

    Raises:
        ValueError: if a shape does not fit, a length lies outside 0..T, or the forget gate is unknown.
    """
    base.check_choice("forget_gate", forget_gate, FORGET_GATES)
    width = recurrent_kernel.shape[0] * recurrent_kernel.shape[2]
    if z.ndim != 3 or z.shape[2] != width:
        raise ValueError(
            f"z has shape {z.shape}; expected (batch, time, {width}), four gates side by side for a recurrent kernel "
            f"of shape {recurrent_kernel.shape}"
        )
    z, _, valid = base.prepare(z, lengths, width)
    return _unroll(recurrent_kernel, z, valid, carry, forget_gate, dtype)


def unroll(params: Params, xs, *, lengths=None, carry: Carry | None = None):
    """A whole sequence: xs (B, T, D) to (ys (B, T, H), carry), equal to folding `step`.

    The product with W is taken for all positions at once, outside the recurrence; `kernels.slstm` runs the rest, and
    has a gradient of its own, so that only reverse-mode differentiation (`jax.grad`, `jax.vjp`) goes through.

    Args:
        params: from `init`.
        xs: (B, T, D).
        lengths: optional (B,) number of valid positions; outputs beyond are 0 and the carry is that after the last.
        carry: where to continue from; default `initial_carry`.

    Raises:
        ValueError: if a shape does not fit, or a length lies outside 0..T.
    """
    xs, _, valid = base.prepare(xs, lengths, params.input_kernel.shape[0])
    z = base.affine(xs, params.input_kernel, params.bias, params.dtype)
    return _unroll(params.recurrent_kernel, z, valid, carry, params.forget_gate, params.dtype)
