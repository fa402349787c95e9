"""The LSTM (Hochreiter and Schmidhuber, 1997), in Flax's form (`OptimizedLSTMCell`), gate order i, f, g, o.

[i, f, g, o] = split4(x_t W + h_{t-1} U + b)          W (D, 4H), U (H, 4H), b (4H,)
c_t = σ(f) ⊙ c_{t-1} + σ(i) ⊙ tanh(g)
h_t = σ(o) ⊙ tanh(c_t)
y_t = h_t
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, Key

from qlstm_jax.cells import common
from qlstm_jax.cells.lstm import cudnn


@common.params_dataclass
class Params:
    """Weights of the cell, gates side by side in the order i, f, g, o."""

    input_kernel: jax.Array  # W (D, 4H)
    recurrent_kernel: jax.Array  # U (H, 4H)
    bias: jax.Array  # b (4H,)
    dtype: str = common.static(default="float32")
    implementation: str = common.static(default="auto")


class Carry(NamedTuple):
    """What passes from step to step, in Flax's order."""

    c: jax.Array  # (B, H), float32 or wider
    h: jax.Array  # (B, H)


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
    """Draws parameters: W lecun normal, each gate's U orthogonal, b zero but 1 for the forget gate.

    The forget bias of 1 (Jozefowicz et al., 2015) is the one departure from Flax's defaults.

    Args:
        key: a PRNG key.
        input_size: D.
        hidden_size: H.
        chrono: the longest dependence in tokens, for chrono initialisation: the forget gates' biases are drawn by
            `common.chrono_bias` and the input gates' are their negatives. 0: as above.
        implementation: what runs whole sequences: "scan", "cudnn" (on an NVIDIA GPU, float32, no resets), "kernel"
            (on a Hopper GPU, bfloat16 or float16, H 64 or 128), or "auto", which is the scan, faster than cuDNN
            wherever both were timed.
        dtype: of activations and products; gates, sums and c are float32 whatever it is.
        param_dtype: of the stored weights.

    Raises:
        TypeError: if `key` is no PRNG key.
        ValueError: for a dtype of no real numbers, a size that is not a positive integer, chrono neither 0 nor an
            integer from 3 on, or another implementation.
    """
    common.check_init(key, dtype, param_dtype, input_size=input_size, hidden_size=hidden_size)
    common.check_time_scale(chrono=chrono)
    common.check_implementation(implementation, "cudnn", "kernel")
    k_in, k_rec = jax.random.split(key)
    bias = jnp.zeros((4, hidden_size), param_dtype).at[1].set(1)
    if chrono:
        keep = common.chrono_bias(jax.random.fold_in(key, 2), hidden_size, chrono, param_dtype)
        bias = bias.at[0].set(-keep).at[1].set(keep)
    return Params(
        input_kernel=common.lecun_normal(k_in, (input_size, 4 * hidden_size), param_dtype),
        recurrent_kernel=common.orthogonal(k_rec, hidden_size, 4, param_dtype),
        bias=bias.reshape(-1),
        dtype=jnp.dtype(dtype).name,
        implementation=implementation,
    )


def initial_carry(params: Params, batch_size: int) -> Carry:
    """The carry before the first token: c = h = 0."""
    common.check_params(params, Params)
    common.check_batch_size(batch_size)
    shape = (batch_size, params.recurrent_kernel.shape[0])
    return Carry(c=jnp.zeros(shape, common.accumulator(params.dtype)), h=jnp.zeros(shape, params.dtype))


def _gates(_: Any, a: Array, c: Array) -> tuple[Array, Array]:
    i, f, g, o = jnp.split(a, 4, axis=-1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def _run(
    params: Params, carry: Carry, xs: Array, valid: Array | None, resets: Array | None, way: common.Way
) -> tuple[Carry, Array]:
    """Time-major: xs (T, B, D) to ys (T, B, H)."""
    (h, c), ys = common.recurrence_time_major(
        _gates,
        xs,
        (carry.h, carry.c),
        recurrent_kernel=params.recurrent_kernel,
        input_kernel=params.input_kernel,
        bias=params.bias,
        valid=valid,
        resets=resets,
        way=way,
    )
    return Carry(c=c, h=h), ys


def _by_recurrence(way: common.Way, params: Params, sequence: common.Sequence, carry: Carry) -> tuple[Carry, Array]:
    """Batch-major: (carry, ys (B, T, H))."""
    xs, valid, resets = common.time_major((sequence.xs, sequence.valid, sequence.resets))
    carry, ys = _run(params, carry, xs, valid, resets, way)
    return carry, common.time_major(ys)


def _scan(params: Params, sequence: common.Sequence, carry: Carry, plain: bool) -> tuple[Carry, Array]:
    return _by_recurrence(common.way_of("scan", plain), params, sequence, carry)


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
    refusals = {
        "cudnn": partial(cudnn.refusal, params, sequence, plain=plain),
        "kernel": partial(common.kernel_refusal, params, xs.shape, plain=plain),
    }
    chosen = common.choose(params.implementation, f"lstm, xs {xs.shape}", **refusals)
    if chosen == "cudnn":
        return cudnn.unroll(_scan, params, sequence, carry)
    return _by_recurrence(common.way_of(chosen, plain), params, sequence, carry)


last = common.last_by_unroll(unroll)
