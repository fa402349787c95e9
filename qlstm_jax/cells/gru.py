"""The gated recurrent unit (Cho et al., 2014), in Flax's form (`GRUCell`), gate order r, z, n.

[a^r, a^z, a^n] = split3(x_t W + b)            W (D, 3H), b (3H,)
[u^r, u^z, u^n] = split3(h_{t-1} U)            U (H, 3H)
r = σ(a^r + u^r);  z = σ(a^z + u^z)
n = tanh(a^n + r ⊙ (u^n + b_n))                b_n (H,): the reset gate acts on the recurrent term with its bias
h_t = (1 − z) ⊙ n + z ⊙ h_{t-1}
y_t = h_t
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, Key

from qlstm_jax.cells import common


@common.params_dataclass
class Params:
    """Weights of the cell, gates side by side in the order r, z, n."""

    input_kernel: jax.Array  # W (D, 3H)
    recurrent_kernel: jax.Array  # U (H, 3H)
    bias: jax.Array  # b (3H,)
    recurrent_bias: jax.Array  # b_n (H,)
    dtype: str = common.static(default="float32")
    implementation: str = common.static(default="auto")


class Carry(NamedTuple):
    """What passes from step to step."""

    h: jax.Array  # (B, H), float32 or wider: it is a running sum


def init(
    key: Key[Array, ""],
    input_size: int,
    hidden_size: int,
    *,
    chrono: int = 0,
    implementation: str = "auto",
    dtype: DTypeLike = "float32",
    param_dtype: DTypeLike = "float32",
) -> Params:
    """Draws parameters: W lecun normal, each gate's U orthogonal, biases zero.

    Args:
        key: a PRNG key.
        input_size: D.
        hidden_size: H.
        chrono: the longest dependence in tokens, for chrono initialisation: z's biases are drawn by
            `common.chrono_bias`. 0: as above.
        implementation: what runs whole sequences: "scan", "kernel" (on a Hopper GPU, bfloat16 or float16, H 64 or 128),
            or "auto", the scan.
        dtype: of outputs and products; gates, sums and the carried h are float32 whatever it is.
        param_dtype: of the stored weights.

    Raises:
        TypeError: if `key` is no PRNG key.
        ValueError: for a dtype of no real numbers, a size that is not a positive integer, or chrono neither 0 nor an
            integer from 3 on, or another implementation.
    """
    common.check_init(key, dtype, param_dtype, input_size=input_size, hidden_size=hidden_size)
    common.check_time_scale(chrono=chrono)
    common.check_implementation(implementation, "kernel")
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
        implementation=implementation,
    )


def initial_carry(params: Params, batch_size: int) -> Carry:
    """The carry before the first token: h = 0."""
    common.check_params(params, Params)
    common.check_batch_size(batch_size)
    shape = (batch_size, params.recurrent_kernel.shape[0])
    return Carry(h=jnp.zeros(shape, common.accumulator(params.dtype)))


def _gates(_: Any, a: tuple[Array, Array, Array], h: Array) -> tuple[Array, Array]:
    r_and_z, a_n, u_n = a
    r, z = jnp.split(jax.nn.sigmoid(r_and_z), 2, axis=-1)
    n = jnp.tanh(a_n + r * u_n)
    h = (1 - z) * n + z * h
    return h, h


def _run(
    params: Params, carry: Carry, xs: Array, valid: Array | None, resets: Array | None, way: common.Way
) -> tuple[Carry, Array]:
    """Time-major: xs (T, B, D) to ys (T, B, H)."""
    (_, h), ys = common.recurrence_time_major(
        _gates,
        xs,
        (carry.h.astype(params.dtype), carry.h),
        recurrent_kernel=params.recurrent_kernel,
        input_kernel=params.input_kernel,
        bias=params.bias,
        recurrent_bias=params.recurrent_bias,
        separate=params.recurrent_bias.shape[0],
        valid=valid,
        resets=resets,
        way=way,
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
    carry, ys = _run(params, carry, x[None], None, None, "plain")
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
        ValueError: if a shape or the carry does not fit, a length lies outside 0..T, or the params name an
            implementation that cannot run this call.
    """
    common.check_params(params, Params)
    common.check_flags(plain=plain)
    sequence = common.check_sequence(xs, seq_lengths, params.input_kernel.shape[0], resets)
    carry = common.unroll_carry(carry, initial_carry(params, xs.shape[0]))
    valid, reset = common.time_major((sequence.valid, sequence.resets))
    refusal = partial(common.kernel_refusal, params, xs.shape, separate=params.recurrent_bias.shape[0], plain=plain)
    way = common.way_of(common.choose(params.implementation, f"gru, xs {xs.shape}", kernel=refusal), plain)
    carry, ys = _run(params, carry, common.time_major(sequence.xs), valid, reset, way)
    return carry, common.time_major(ys)


last = common.last_by_unroll(unroll)
