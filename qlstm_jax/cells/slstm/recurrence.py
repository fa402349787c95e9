"""The sLSTM from its gates' pre-activations on; the formulas stand in `qlstm_jax.cells.slstm`.

For a cell inside a block, which makes pre-activations in its own way (i and f from a convolution, z and o without),
`recur`, `unroll_preactivations` and `zero_carry` do all that comes after "x_t W + b".
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from qlstm_jax.cells import common
from qlstm_jax.cells.slstm import kernel

FORGET_GATES = ("sigmoid", "exponential")


class Carry(NamedTuple):
    """What passes from step to step, in the official order; but for y, float32 or wider."""

    y: jax.Array  # (B, H)
    c: jax.Array  # (B, H), the cell state
    n: jax.Array  # (B, H), the normaliser, 0 before the first token
    m: jax.Array  # (B, H), the stabiliser: c and n are exp(-m) times their true values


def zero_carry(batch_size: int, hidden_size: int, dtype="float32") -> Carry:
    """y = c = n = m = 0, y in `dtype`."""
    shape = (batch_size, hidden_size)
    state = (jnp.zeros(shape, common.accumulator(dtype)) for _ in range(3))
    return Carry(jnp.zeros(shape, dtype), *state)


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
    wide = common.accumulator(dtype)
    # Heads first: jax 0.12 on a CPU has no product of bfloat16 to float32 whose batch axis is not the first.
    y = carry.y.reshape(-1, heads, size).astype(dtype).swapaxes(0, 1)
    sums = jnp.matmul(y, recurrent_kernel.astype(dtype), preferred_element_type=wide).swapaxes(0, 1)
    sums = sums.reshape(-1, heads, 4, size).swapaxes(1, 2).reshape(z.shape)
    y, *state = _gates(forget_gate, jnp.split(z.astype(wide) + sums, 4, axis=-1), carry[1:])
    carry = Carry(y.astype(dtype), *state)
    return carry, carry.y


def run(recurrent_kernel, z, valid, carry, forget_gate, dtype):
    """`unroll_preactivations` of checked arguments: `valid` (B, T) or None in place of seq_lengths."""
    heads, size, _ = recurrent_kernel.shape
    carry = zero_carry(z.shape[0], heads * size, dtype) if carry is None else carry
    z = z.astype(common.accumulator(dtype))
    carry, ys = kernel.scan(partial(_gates, forget_gate), recurrent_kernel, tuple(carry), z, valid)
    return Carry(*carry), ys


def unroll_preactivations(
    recurrent_kernel, z, *, seq_lengths=None, carry: Carry | None = None, forget_gate: str = "sigmoid", dtype="float32"
):
    """A whole sequence from its pre-activations, equal to folding `recur`.

    Args:
        recurrent_kernel: R (N, K, 4K).
        z: (B, T, 4H), the gates' pre-activations but for y_{t-1} R, bias included.
        seq_lengths: optional (B,) number of valid positions; outputs beyond are 0 and the carry is that after the last.
        carry: where to continue from; default `zero_carry`.
        forget_gate: as in `init`.
        dtype: of y and of the product with R.

    Returns:
        (carry, ys (B, T, H)).

    Raises:
        ValueError: if a shape does not fit, a length lies outside 0..T, or the forget gate is unknown.
    """
    common.check_choice("forget_gate", forget_gate, FORGET_GATES)
    width = recurrent_kernel.shape[0] * recurrent_kernel.shape[2]
    if z.ndim != 3 or z.shape[2] != width:
        raise ValueError(
            f"z has shape {z.shape}; expected (batch, time, {width}), four gates side by side for a recurrent kernel "
            f"of shape {recurrent_kernel.shape}"
        )
    z, _, valid = common.check_sequence(z, seq_lengths, width)
    return run(recurrent_kernel, z, valid, carry, forget_gate, dtype)
