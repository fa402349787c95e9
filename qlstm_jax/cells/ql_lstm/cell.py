"""QL-LSTM (arXiv 2512.06582): one affine map shared by all gates, and an additive memory written once a block.

No page open to us gives the paper's formulas: its public text fixes the two mechanisms and their effects. What that
leaves open is marked [ours].

PSUG (parameter-shared unified gating), at each token, j in i, f, g, o:

    u_t   = x_t W + (h_{t-1} + s_k) U               W (D, H), U (H, H): the only token-level matrices
    z^j   = α_j ⊙ u_t + β_j                         α, β (4, H)                                     [ours]
    c_t   = σ(z^f) ⊙ c_{t-1} + σ(z^i) ⊙ tanh(z^g)
    h_t   = σ(z^o) ⊙ tanh(c_t)
    y_t   = h_t + s_k

HGR-ASC (hierarchical gated recurrence with additive skip connections), over blocks of L tokens, k blocks completed:

    p_k     = mean of h over block k                the block's summary
    v       = p_k P + s_k Q                         P, Q (H, H)                                     [ours]
    m_{k+1} = m_k + σ(a_i ⊙ v + b_i) ⊙ tanh(a_g ⊙ v + b_g)      forget-free: ∂m_{k+1}/∂m_k = I + …
    s_k     = γ ⊙ m_k / sqrt(ε + mean_h(m_k²))      m_0 = 0, so s_0 = 0; ε = 1                      [ours]

Blocks are counted from the start of a stream; one that is not complete writes nothing. The division bounds the use
of the memory whatever its length and leaves a small memory small. Parameters at D = H: 4H² + 13H, an LSTM's 8H² + 4H.

`sharing` says how many maps W, U there are: "full", one; "gates", one for i, f, o and one for g; "none", four, the
standard LSTM, whose α is 1 and no parameter. `skip=False` leaves out HGR-ASC (s = 0).

`num_heads` = N > 1 makes each map U block-diagonal: N heads of K = H / N units, each reached by its own h and s alone.
Heads meet in P and Q. U has H² / N parameters then, all (3 + 1/N) H² + 13H. [ours]

`block.py` computes these formulas over a block's tokens, this file is what a user calls.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, Key

from qlstm_jax.cells import common
from qlstm_jax.cells.ql_lstm import blockwise
from qlstm_jax.cells.ql_lstm.block import block
from qlstm_jax.cells.ql_lstm.params import SHARING, Carry, Params


def init(
    key: Key[Array, ""],
    input_size: int,
    hidden_size: int,
    *,
    sharing: str = "full",
    num_heads: int = 1,
    block_size: int = 32,
    skip: bool = True,
    epsilon: float = 1.0,
    forget_bias: float = 1.0,
    chrono: int = 0,
    remat: bool = False,
    implementation: str = "auto",
    dtype: DTypeLike = "float32",
    param_dtype: DTypeLike = "float32",
) -> Params:
    """Draws parameters: W, P lecun normal; U, Q orthogonal; rows of α and a 1 ± 0.5 at random; γ = 1, other biases 0.

    Were the rows of α equal, all gates would start equal and separate slowly.

    Args:
        key: a PRNG key.
        input_size: D.
        hidden_size: H.
        sharing: "full", "gates" or "none".
        num_heads: N, a divisor of H. U is block-diagonal, each head's maps orthogonal: h and s reach the gates of their
            own head alone, with 1 / N of the weights and products. A head may fit into fast memory where all of U does
            not: one map of 256 units takes 128 KiB in 16 bit.
        block_size: L, tokens a block.
        skip: whether there is a block memory.
        epsilon: ε of the memory's read.
        forget_bias: β_f at the start. With 2 or 3 more of a token lasts until its block is summed up, and far recall is
            learnt several times as fast; short texts are classified worse.
        chrono: the longest dependence in tokens, for chrono initialisation in place of forget_bias: β_f is drawn by
            `common.chrono_bias` and β_i is its negative. What must be kept to the token, as in the adding problem, is
            learnt with it alone. 0: forget_bias.
        remat: whether the gradient keeps only what passes between blocks and computes each block again: besides
            inputs and outputs, memory for T/L + L tokens instead of T, and more time.
        implementation: what runs whole sequences: "scan", "kernel" (on a Hopper GPU, bfloat16 or float16, heads of
            64, 128, 192, 256 or 320 units), or "auto", as yet the scan, as the kernel has no second derivative.
        dtype: of activations and products; gates, sums, c and the memory are float32 whatever it is.
        param_dtype: of the stored weights.

    Raises:
        TypeError: if `key` is no PRNG key.
        ValueError: for a dtype of no real numbers, a size that is not a positive integer, an unknown sharing, heads
            that do not divide H, epsilon not above 0, chrono neither 0 nor an integer from 3 on, chrono with a
            forget_bias other than 1, or another implementation.
    """
    common.check_init(key, dtype, param_dtype, input_size=input_size, hidden_size=hidden_size, block_size=block_size)
    common.check_sizes(num_heads=num_heads)
    common.check_heads(hidden_size, num_heads)
    common.check_choice("sharing", sharing, tuple(SHARING))
    common.check_time_scale(chrono=chrono)
    common.check_above_zero(epsilon=epsilon)
    common.check_finite(forget_bias=forget_bias)
    common.check_flags(skip=skip, remat=remat)
    common.check_implementation(implementation, "kernel")
    if chrono and forget_bias != 1:
        raise ValueError(f"chrono is {chrono!r} and forget_bias {forget_bias!r}; expected chrono=0 or forget_bias=1")
    h, maps = hidden_size, 1 + max(SHARING[sharing])
    keys = jax.random.split(key, 6)

    def apart(key: Array, rows: int) -> Array:
        return 1 + 0.5 * jax.random.rademacher(key, (rows, h), param_dtype)

    if num_heads == 1:
        recurrent = common.orthogonal(keys[1], h, maps, param_dtype)
    else:
        recurrent = common.orthogonal_heads(keys[1], num_heads, h // num_heads, maps, param_dtype)
    bias = jnp.zeros((4, h), param_dtype).at[1].set(forget_bias)
    if chrono:
        keep = common.chrono_bias(jax.random.fold_in(key, 6), h, chrono, param_dtype)
        bias = bias.at[0].set(-keep).at[1].set(keep)
    memory: dict[str, Any] = {}
    if skip:
        memory = {
            "summary_kernel": common.lecun_normal(keys[3], (h, h), param_dtype),
            "memory_kernel": common.orthogonal(keys[4], h, 1, param_dtype),
            "write_scale": apart(keys[5], 2),
            "write_bias": jnp.zeros((2, h), param_dtype),
            "read_scale": jnp.ones((h,), param_dtype),
        }
    return Params(
        input_kernel=common.lecun_normal(keys[0], (input_size, maps * h), param_dtype),
        recurrent_kernel=recurrent,
        gate_scale=None if sharing == "none" else apart(keys[2], 4),
        gate_bias=bias,
        sharing=sharing,
        block_size=block_size,
        epsilon=float(epsilon),
        remat=bool(remat),
        implementation=implementation,
        dtype=jnp.dtype(dtype).name,
        **memory,
    )


def initial_carry(params: Params, batch_size: int) -> Carry:
    """The carry before the first token: all zero."""
    common.check_params(params, Params)
    common.check_batch_size(batch_size)
    shape, wide = (batch_size, params.gate_bias.shape[1]), common.accumulator(params.dtype)
    carry = Carry(c=jnp.zeros(shape, wide), h=jnp.zeros(shape, params.dtype))
    if not params.skip:
        return carry
    position = jnp.zeros((batch_size,), jnp.int32)
    return carry._replace(memory=jnp.zeros(shape, wide), summary=jnp.zeros(shape, wide), position=position)


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
    carry, ys = block(common.varying_as(params, (x, carry)), "plain", carry, x[None], None)  # as in `unroll`
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

    A scan over blocks holds a scan over tokens. The product with W is taken for all positions of a block at once, and
    the block memory costs one part in L.

    Args:
        params: from `init`.
        xs: (B, T, D).
        seq_lengths: optional (B,) number of valid positions; outputs beyond are 0 and the carry is that after the last.
        resets: optional (B, T) booleans, true where a new sequence begins: nothing of before reaches value or gradient,
            and blocks are counted from there.
        carry: where to continue from; default `initial_carry`. Its rows may stand at different places in their blocks.
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
    start = common.unroll_carry(carry, initial_carry(params, xs.shape[0]))
    if xs.shape[1] == 0:
        return start, jnp.zeros((*xs.shape[:2], params.gate_bias.shape[1]), params.dtype)
    # Devices may go different ways below. The sum of the params' gradients over them must lie outside of these.
    params = common.varying_as(params, (xs, start))
    refusal = partial(common.kernel_refusal, params, xs.shape, plain=plain)
    way = common.way_of(common.choose(params.implementation, f"ql_lstm, xs {xs.shape}", kernel=refusal), plain)
    if way == "kernel" and carry is None and resets is None and not params.remat:
        return _from_the_start(params, start, sequence)
    run = partial(block, params, way)
    return blockwise.unroll(
        jax.checkpoint(run) if params.remat else run,
        start,
        sequence,
        block_size=params.block_size,
        position=None if carry is None else start.position,
    )


def _from_the_start(params: Params, carry: Carry, sequence: common.Sequence) -> tuple[Carry, Array]:
    """A stream from its first token on by the kernel: whole blocks together, then the tokens that are left."""
    xs, valid = common.time_major((sequence.xs, sequence.valid))
    if not params.skip:
        carry, ys = block(params, "kernel", carry, xs, valid)
        return carry, common.time_major(ys)
    from qlstm_jax.cells.ql_lstm import by_kernel  # imports Pallas, which takes long

    parts, whole = [], xs.shape[0] - xs.shape[0] % params.block_size
    if whole:
        carry, ys = by_kernel.unroll(params, carry, xs[:whole], None if valid is None else valid[:whole])
        parts.append(ys)
    if whole < xs.shape[0]:
        carry, ys = block(params, "kernel", carry, xs[whole:], None if valid is None else valid[whole:])
        parts.append(ys)
    return carry, common.time_major(jnp.concatenate(parts))


last = common.last_by_unroll(unroll)
