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

`recurrence.py` computes all that comes after "x_t W + b", for this cell and for one inside a block.
"""

from functools import partial

import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, Key

from qlstm_jax.cells import common
from qlstm_jax.cells.slstm.recurrence import FORGET_GATES, Carry, run, zero_carry


@common.params_dataclass
class Params:
    """Weights of the cell, gates side by side in the order i, f, z, o."""

    input_kernel: Array  # W (D, 4H)
    recurrent_kernel: Array  # R (N, K, 4K), each head's block: its y to its four gates side by side
    bias: Array  # b (4H,)
    forget_gate: str = common.static(default="sigmoid")
    dtype: str = common.static(default="float32")
    implementation: str = common.static(default="auto")

    @property
    def num_heads(self) -> int:
        """N."""
        return self.recurrent_kernel.shape[0]


def powerlaw_forget_bias(head_size: int, rho: float) -> Float[Array, " size"]:
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
    common.check_sizes(head_size=head_size)
    if not common.is_number(rho) or not 0 <= rho <= 1:
        raise ValueError(f"the place of the block is {common.shown(rho)}; expected a number from 0 (first) to 1 (last)")
    place = jnp.arange(head_size, dtype=jnp.float32) / max(head_size - 1, 1)
    return 5 - 12 * place ** (0.3 + 1.3 * rho)


def init(
    key: Key[Array, ""],
    input_size: int,
    hidden_size: int,
    *,
    num_heads: int = 1,
    forget_gate: str = "sigmoid",
    block_position: float = 0.0,
    implementation: str = "auto",
    dtype: DTypeLike = "float32",
    param_dtype: DTypeLike = "float32",
) -> Params:
    """Draws parameters: W lecun normal, R zero as in the official code, b zero but `powerlaw_forget_bias` for f.

    Args:
        key: a PRNG key.
        input_size: D.
        hidden_size: H.
        num_heads: N, a divisor of H. y_{t-1} reaches the gates of its own head alone.
        forget_gate: "sigmoid", or "exponential", which the paper has and the official code lacks.
        block_position: ρ of the forget bias.
        implementation: what runs whole sequences: "scan", "kernel" (on a Hopper GPU, bfloat16 or float16, heads of
            64 or 128 units), or "auto", as yet the scan, as the kernel has no second derivative.
        dtype: of activations and products; gates, sums, c, n and m are float32 whatever it is.
        param_dtype: of the stored weights.

    Raises:
        TypeError: if `key` is no PRNG key.
        ValueError: for a dtype of no real numbers, a size that is no positive integer, heads that do not divide H, an
            unknown forget gate, a block position outside 0..1, or another implementation.
    """
    common.check_init(key, dtype, param_dtype, input_size=input_size, hidden_size=hidden_size, num_heads=num_heads)
    common.check_choice("forget_gate", forget_gate, FORGET_GATES)
    common.check_heads(hidden_size, num_heads)
    common.check_implementation(implementation, "kernel")
    size = hidden_size // num_heads
    forget_bias = jnp.tile(powerlaw_forget_bias(size, block_position), num_heads)
    return Params(
        input_kernel=common.lecun_normal(key, (input_size, 4 * hidden_size), param_dtype),
        recurrent_kernel=jnp.zeros((num_heads, size, 4 * size), param_dtype),
        bias=jnp.zeros((4, hidden_size), param_dtype).at[1].set(forget_bias.astype(param_dtype)).reshape(-1),
        forget_gate=forget_gate,
        dtype=jnp.dtype(dtype).name,
        implementation=implementation,
    )


def initial_carry(params: Params, batch_size: int) -> Carry:
    """The carry before the first token: all zero. Setting rows of a carry to zero starts them anew."""
    common.check_params(params, Params)
    common.check_batch_size(batch_size)
    return zero_carry(batch_size, params.bias.shape[0] // 4, params.dtype)


def _run(
    params: Params, xs: Array, carry: Carry, valid: Array | None, resets: Array | None, way: common.Way
) -> tuple[Carry, Array]:
    return run(
        params.recurrent_kernel,
        xs,
        carry,
        forget_gate=params.forget_gate,
        dtype=params.dtype,
        way=way,
        input_kernel=params.input_kernel,
        bias=params.bias,
        valid=valid,
        resets=resets,
    )


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
    carry, ys = _run(params, x[:, None], carry, None, None, "plain")
    return carry, ys[:, 0]


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
    refusal = partial(common.kernel_refusal, params, xs.shape, plain=plain)
    chosen = common.choose(params.implementation, f"slstm, xs {xs.shape}", kernel=refusal)
    return _run(params, sequence.xs, carry, sequence.valid, sequence.resets, common.way_of(chosen, plain))


last = common.last_by_unroll(unroll)
