"""The sLSTM from its gates' pre-activations on; the formulas stand in `qlstm_jax.cells.slstm`.

For a cell inside a block, which makes pre-activations in its own way (i and f from a convolution, z and o without),
`recur`, `unroll_preactivations` and `zero_carry` do all that comes after "x_t W + b".
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float

from qlstm_jax.cells import common

FORGET_GATES = ("sigmoid", "exponential")


class Carry(NamedTuple):
    """What passes from step to step, in the official order; but for y, float32 or wider."""

    y: Array  # (B, H)
    c: Array  # (B, H), the cell state
    n: Array  # (B, H), the normaliser, 0 before the first token
    m: Array  # (B, H), the stabiliser: c and n are exp(-m) times their true values


def zero_carry(batch_size: int, hidden_size: int, dtype: DTypeLike = "float32") -> Carry:
    """y = c = n = m = 0, y in `dtype`."""
    shape = (batch_size, hidden_size)
    c, n, m = (jnp.zeros(shape, common.accumulator(dtype)) for _ in range(3))
    return Carry(jnp.zeros(shape, dtype), c, n, m)


State = tuple[Array, Array, Array]  # c, n, m


def _gates(forget_gate: str, _: Any, preactivations: Array, state: State) -> tuple[Array, State]:
    """Pre-activations (..., 4K) and (c, n, m) before a token to (y, (c, n, m)) after it, all float32 or wider."""
    i, f, z, o = jnp.split(preactivations, 4, axis=-1)
    c, n, m = state
    log_f = (jax.nn.log_sigmoid(f) if forget_gate == "sigmoid" else f) + m
    # With log f at most i, m is i. And f', which multiplies c = n = 0 there, stays at 1 or below: no inf · 0.
    log_f = jnp.where(n == 0, jnp.minimum(log_f, i), log_f)
    m = jnp.maximum(i, log_f)
    write, keep = jnp.exp(i - m), jnp.exp(log_f - m)
    c = keep * c + write * jnp.tanh(z)
    n = keep * n + write
    return jax.nn.sigmoid(o) * (c / n), (c, n, m)


def recur(
    recurrent_kernel: Float[Array, "heads size width"],
    carry: Carry,
    z: Float[Array, "batch gates"],
    *,
    forget_gate: str = "sigmoid",
    dtype: DTypeLike = "float32",
) -> tuple[Carry, Float[Array, "batch hidden"]]:
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
    carry, ys = run(recurrent_kernel, z[:, None], carry, forget_gate=forget_gate, dtype=dtype, way="plain")
    return carry, ys[:, 0]


def run(
    recurrent_kernel: Float[Array, "heads size width"],
    inputs: Float[Array, "batch time features"],
    carry: Carry,
    *,
    forget_gate: str,
    dtype: DTypeLike,
    way: common.Way,
    **options: Any,
) -> tuple[Carry, Float[Array, "batch time hidden"]]:
    """`common.recurrence` of this cell: `inputs` are pre-activations, or with an input kernel among `options` x."""
    start = carry.y.astype(dtype), (carry.c, carry.n, carry.m)
    gates = partial(_gates, forget_gate)
    (y, state), ys = common.recurrence(gates, inputs, start, recurrent_kernel=recurrent_kernel, way=way, **options)
    return Carry(y, *state), ys


def unroll_preactivations(
    recurrent_kernel: Float[Array, "heads size width"],
    z: Float[Array, "batch time gates"],
    *,
    seq_lengths: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    carry: Carry | None = None,
    forget_gate: str = "sigmoid",
    dtype: DTypeLike = "float32",
    plain: bool = False,
) -> tuple[Carry, Float[Array, "batch time hidden"]]:
    """A whole sequence from its pre-activations, equal to folding `recur`.

    Args:
        recurrent_kernel: R (N, K, 4K).
        z: (B, T, 4H), the gates' pre-activations but for y_{t-1} R, bias included.
        seq_lengths: optional (B,) number of valid positions; outputs beyond are 0 and the carry is that after the last.
        resets: optional (B, T) booleans, true where a new sequence begins.
        carry: where to continue from; default `zero_carry`.
        forget_gate: as in `init`.
        dtype: of y and of the product with R.
        plain: as for `unroll`.

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
    z, _, valid, resets = common.check_sequence(z, seq_lengths, width, resets)
    carry = common.unroll_carry(carry, zero_carry(z.shape[0], width // 4, dtype))
    masks = {"valid": valid, "resets": resets}
    return run(
        recurrent_kernel, z, carry, forget_gate=forget_gate, dtype=dtype, way="plain" if plain else "fast", **masks
    )
