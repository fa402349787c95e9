"""The plain recurrent network (Elman, 1990), in Flax's form (`SimpleCell`).

h_t = tanh(x_t W + h_{t-1} U + b)          W (D, H), U (H, H), b (H,)
y_t = h_t
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, Key

from qlstm_jax.cells import common


@common.params_dataclass
class Params:
    """Weights of the cell."""

    input_kernel: jax.Array  # W (D, H)
    recurrent_kernel: jax.Array  # U (H, H)
    bias: jax.Array  # b (H,)
    dtype: str = common.static(default="float32")


class Carry(NamedTuple):
    """What passes from step to step."""

    h: jax.Array  # (B, H)


def init(
    key: Key[Array, ""],
    input_size: int,
    hidden_size: int,
    *,
    dtype: DTypeLike = "float32",
    param_dtype: DTypeLike = "float32",
) -> Params:
    """Draws parameters: W lecun normal, U orthogonal, b zero.

    Args:
        key: a PRNG key.
        input_size: D.
        hidden_size: H.
        dtype: of activations and products; gates and sums are float32 whatever it is.
        param_dtype: of the stored weights.

    Raises:
        TypeError: if `key` is no PRNG key.
        ValueError: for a dtype of no real numbers, a size that is not a positive integer.
    """
    common.check_init(key, dtype, param_dtype, input_size=input_size, hidden_size=hidden_size)
    k_in, k_rec = jax.random.split(key)
    return Params(
        input_kernel=common.lecun_normal(k_in, (input_size, hidden_size), param_dtype),
        recurrent_kernel=common.orthogonal(k_rec, hidden_size, 1, param_dtype),
        bias=jnp.zeros((hidden_size,), param_dtype),
        dtype=jnp.dtype(dtype).name,
    )


def initial_carry(params: Params, batch_size: int) -> Carry:
    """The carry before the first token: h = 0."""
    common.check_params(params, Params)
    common.check_batch_size(batch_size)
    return Carry(h=jnp.zeros((batch_size, params.bias.shape[0]), params.dtype))


def _gates(_: Any, a: Array, state: tuple[()]) -> tuple[Array, tuple[()]]:
    return jnp.tanh(a), state


def _run(
    params: Params, carry: Carry, xs: Array, valid: Array | None, resets: Array | None, plain: bool
) -> tuple[Carry, Array]:
    """Time-major: xs (T, B, D) to ys (T, B, H)."""
    (h, _), ys = common.recurrence_time_major(
        _gates,
        xs,
        (carry.h, ()),
        recurrent_kernel=params.recurrent_kernel,
        input_kernel=params.input_kernel,
        bias=params.bias,
        valid=valid,
        resets=resets,
        way="plain" if plain else "fast",
    )
    return Carry(h=h), ys


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
    carry, ys = _run(params, carry, x[None], None, None, plain=True)
    return carry, ys[0]


@common.on_any_mesh("xs")
def unroll(
    params: Params,
    xs: Float[Array, "batch time d"],
    *,
    seq_lengths: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    carry: Carry | None = None,
    plain: bool = False,
) -> tuple[Carry, Float[Array, "batch time hidden"]]:
    """A whole sequence, equal to folding `step`.

    The products with W are taken for many positions at once, and the gradient is `common.recurrence`'s own.

    Args:
        params: from `init`.
        xs: (B, T, D).
        seq_lengths: optional (B,) number of valid positions; outputs beyond are 0 and the carry is that after the last.
        resets: optional (B, T) booleans, true where a new sequence begins: nothing of before reaches value or gradient.
        carry: where to continue from; default `initial_carry`.
        plain: whether JAX itself differentiates the scan over tokens: slower, but in any mode. The default is for
            reverse mode.

    Raises:
        TypeError: if xs is not an array of real numbers, or the params are another cell's.
        ValueError: if a shape or the carry does not fit, or a length lies outside 0..T.
    """
    common.check_params(params, Params)
    common.check_flags(plain=plain)
    sequence = common.check_sequence(xs, seq_lengths, params.input_kernel.shape[0], resets)
    carry = common.unroll_carry(carry, initial_carry(params, xs.shape[0]))
    valid, reset = common.time_major((sequence.valid, sequence.resets))
    carry, ys = _run(params, carry, common.time_major(sequence.xs), valid, reset, plain)
    return carry, common.time_major(ys)


last = common.last_by_unroll(unroll)
