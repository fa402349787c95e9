"""The plain recurrent network (Elman, 1990), in Flax's form (`SimpleCell`).

h_t = tanh(x_t W + h_{t-1} U + b)          W (D, H), U (H, H), b (H,)
y_t = h_t
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

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


def init(key, input_size: int, hidden_size: int, *, dtype="float32", param_dtype="float32") -> Params:
    """Draws parameters: W lecun normal, U orthogonal, b zero.

    Args:
        key: a PRNG key.
        input_size: D.
        hidden_size: H.
        dtype: of activations and products; gates and sums are float32 whatever it is.
        param_dtype: of the stored weights.

    Raises:
        ValueError: if a size is not a positive integer.
    """
    common.check_sizes(input_size=input_size, hidden_size=hidden_size)
    k_in, k_rec = jax.random.split(key)
    return Params(
        input_kernel=common.lecun_normal(k_in, (input_size, hidden_size), param_dtype),
        recurrent_kernel=common.orthogonal(k_rec, hidden_size, 1, param_dtype),
        bias=jnp.zeros((hidden_size,), param_dtype),
        dtype=jnp.dtype(dtype).name,
    )


def initial_carry(params: Params, batch_size: int) -> Carry:
    """The carry before the first token: h = 0."""
    return Carry(h=jnp.zeros((batch_size, params.bias.shape[0]), params.dtype))


def _project(params, x):
    return common.affine(x, params.input_kernel, params.bias, params.dtype)


def _recur(params, carry, z):
    h = jnp.tanh(z + common.matmul(carry.h, params.recurrent_kernel, params.dtype)).astype(params.dtype)
    return Carry(h=h), h


def step(params: Params, carry: Carry, x):
    """One token: x (B, D) to y (B, H), with the next carry first.

    Raises:
        ValueError: if x is not (B, D).
    """
    common.check_step(x, params.input_kernel.shape[0])
    return _recur(params, carry, _project(params, x))


def unroll(params: Params, xs, *, seq_lengths=None, carry: Carry | None = None):
    """A whole sequence: xs (B, T, D) to (carry, ys (B, T, H)), equal to folding `step`.

    The product with W is taken for all positions at once, outside the recurrence.

    Args:
        params: from `init`.
        xs: (B, T, D).
        seq_lengths: optional (B,) number of valid positions; outputs beyond are 0 and the carry is that after the last.
        carry: where to continue from; default `initial_carry`.

    Raises:
        ValueError: if a shape does not fit, or a length lies outside 0..T.
    """
    return common.unroll(params, xs, seq_lengths, carry, initial_carry=initial_carry, project=_project, recur=_recur)


last = common.last_by_unroll(unroll)
