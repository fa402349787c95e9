"""The minGRU (Feng et al. 2024, arXiv 2410.01201, section 3.1): a GRU whose gate does not see the state.

[a_t, b_t] = split2(x_t W + β)                    W (D, 2H), β (2H,)
z_t = σ(a_t)
h̃_t = g(b_t),  g(b) = b + 1/2 where b ≥ 0, else σ(b)          positive, so that its logarithm exists (appendix B)
h_t = (1 − z_t) ⊙ h_{t−1} + z_t ⊙ h̃_t
y_t = h_t

Nothing but a gated sum passes from token to token, so `unroll` computes all of them at once by an associative scan of
logarithms, in log2(T) parallel levels (`common.gated_sum`).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, Key

from qlstm_jax.cells import common


@common.params_dataclass
class Params:
    """Weights of the cell: first those of the gate, then those of the candidate."""

    input_kernel: Array  # W (D, 2H)
    bias: Array  # β (2H,)
    dtype: str = common.static(default="float32")


class Carry(NamedTuple):
    """The state between two tokens."""

    h: Array  # (B, H), float32 or wider: it is a running sum


def init(
    key: Key[Array, ""],
    input_size: int,
    hidden_size: int,
    *,
    dtype: DTypeLike = "float32",
    param_dtype: DTypeLike = "float32",
) -> Params:
    """Draws parameters: W lecun normal, β zero.

    Args:
        key: a PRNG key.
        input_size: D.
        hidden_size: H.
        dtype: of outputs and products; gates, sums and the carried h are float32 whatever it is.
        param_dtype: of the stored weights.

    Raises:
        TypeError: if `key` is no PRNG key.
        ValueError: for a dtype of no real numbers, a size that is not a positive integer.
    """
    common.check_init(key, dtype, param_dtype, input_size=input_size, hidden_size=hidden_size)
    return Params(
        input_kernel=common.lecun_normal(key, (input_size, 2 * hidden_size), param_dtype),
        bias=jnp.zeros((2 * hidden_size,), param_dtype),
        dtype=jnp.dtype(dtype).name,
    )


def initial_carry(params: Params, batch_size: int) -> Carry:
    """The carry before the first token: h = 0."""
    common.check_params(params, Params)
    common.check_batch_size(batch_size)
    shape = (batch_size, params.bias.shape[0] // 2)
    return Carry(h=jnp.zeros(shape, common.accumulator(params.dtype)))


def _gates(params: Params, x: Array) -> tuple[Array, Array]:
    """The logarithms of 1 − z and of z ⊙ h̃."""
    a, b = jnp.split(common.affine(x, params.input_kernel, params.bias, params.dtype), 2, axis=-1)
    return -jax.nn.softplus(a), -jax.nn.softplus(-a) + common.log_positive(b)


@common.on_any_mesh("x")
def step(
    params: Params, carry: Carry, x: Float[Array, "batch d"], *, reset: ArrayLike | None = None
) -> tuple[Carry, Float[Array, "batch hidden"]]:
    """One token.

    Args:
        params: from `init`.
        carry: from `initial_carry`, or the step before.
        x: (B, D).
        reset: optional (B,) booleans, true where a new sequence begins: the carry before this token is dropped.

    Raises:
        TypeError: if x is not an array of real numbers, or the params are another cell's.
        ValueError: if the shape of x, the carry or the reset does not fit.
    """
    common.check_params(params, Params)
    common.check_step(x, params.input_kernel.shape[0])
    carry = common.step_carry(carry, initial_carry(params, x.shape[0]), reset)
    keep, add = _gates(params, x)
    h = jnp.exp(keep) * carry.h + jnp.exp(add)
    return Carry(h=h), h.astype(params.dtype)


@common.on_any_mesh("xs")
def unroll(
    params: Params,
    xs: Float[Array, "batch time d"],
    *,
    seq_lengths: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    carry: Carry | None = None,
) -> tuple[Carry, Float[Array, "batch time hidden"]]:
    """A whole sequence, equal to folding `step`, in log2(T) parallel levels.

    Args:
        params: from `init`.
        xs: (B, T, D).
        seq_lengths: optional (B,) number of valid positions; outputs beyond are 0 and the carry is that after the last.
        resets: optional (B, T) booleans, true where a new sequence begins: nothing of before reaches value or gradient.
        carry: where to continue from; default `initial_carry`.

    Raises:
        TypeError: if xs is not an array of real numbers, or the params are another cell's.
        ValueError: if a shape or the carry does not fit, or a length lies outside 0..T.
    """
    common.check_params(params, Params)
    sequence = common.check_sequence(xs, seq_lengths, params.input_kernel.shape[0], resets)
    carry = common.unroll_carry(carry, initial_carry(params, xs.shape[0]))
    h, ys = common.gated_sum(*_gates(params, sequence.xs), carry.h, sequence.valid, sequence.resets)
    return Carry(h=h), ys.astype(params.dtype)


last = common.last_by_unroll(unroll)
