"""The gated recurrent unit (Cho et al., 2014), in Flax's form (`GRUCell`), gate order r, z, n.

[a^r, a^z, a^n] = split3(x_t W + b)            W (D, 3H), b (3H,)
[u^r, u^z, u^n] = split3(h_{t-1} U)            U (H, 3H)
r = σ(a^r + u^r);  z = σ(a^z + u^z)
n = tanh(a^n + r ⊙ (u^n + b_n))                b_n (H,): the reset gate acts on the recurrent term with its bias
h_t = (1 − z) ⊙ n + z ⊙ h_{t-1}
y_t = h_t
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from qlstm_jax.cells import common


@common.params_dataclass
class Params:
    """Weights of the cell, gates side by side in the order r, z, n."""

    input_kernel: jax.Array  # W (D, 3H)
    recurrent_kernel: jax.Array  # U (H, 3H)
    bias: jax.Array  # b (3H,)
    recurrent_bias: jax.Array  # b_n (H,)
    dtype: str = common.static(default="float32")


class Carry(NamedTuple):
    """What passes from step to step."""

    h: jax.Array  # (B, H), float32 or wider: it is a running sum


def init(key, input_size: int, hidden_size: int, *, chrono: int = 0, dtype="float32", param_dtype="float32") -> Params:
    """Draws parameters: W lecun normal, each gate's U orthogonal, biases zero.

    Args:
        key: a PRNG key.
        input_size: D.
        hidden_size: H.
        chrono: the longest dependence in tokens, for chrono initialisation: z's biases are drawn by
            `common.chrono_bias`. 0: as above.
        dtype: of outputs and products; gates, sums and the carried h are float32 whatever it is.
        param_dtype: of the stored weights.

    Raises:
        ValueError: if a size is not a positive integer, or chrono neither 0 nor an integer from 3 on.
    """
    common.check_sizes(input_size=input_size, hidden_size=hidden_size)
    k_in, k_rec = jax.random.split(key)
    bias = jnp.zeros((3, hidden_size), param_dtype)
    if chrono:
        bias = bias.at[1].set(common.chrono_bias(jax.random.fold_in(key, 2), hidden_size, chrono, param_dtype))
    return Params(
        input_kernel=common.lecun_normal(k_in, (input_size, 3 * hidden_size), param_dtype),
        recurrent_kernel=common.orthogonal(k_rec, hidden_size, 3, param_dtype),
        bias=bias.reshape(-1),
        recurrent_bias=jnp.zeros((hidden_size,), param_dtype),
        dtype=jnp.dtype(dtype).name,
    )


def initial_carry(params: Params, batch_size: int) -> Carry:
    """The carry before the first token: h = 0."""
    shape = (batch_size, params.recurrent_kernel.shape[0])
    return Carry(h=jnp.zeros(shape, common.accumulator(params.dtype)))


def _project(params, x):
    return common.affine(x, params.input_kernel, params.bias, params.dtype)


def _recur(params, carry, a):
    a_r, a_z, a_n = jnp.split(a, 3, axis=-1)
    u_r, u_z, u_n = jnp.split(common.matmul(carry.h, params.recurrent_kernel, params.dtype), 3, axis=-1)
    r, z = jax.nn.sigmoid(a_r + u_r), jax.nn.sigmoid(a_z + u_z)
    n = jnp.tanh(a_n + r * (u_n + common.row(params.recurrent_bias, 2)))
    h = (1 - z) * n + z * carry.h
    return Carry(h=h), h.astype(params.dtype)


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
