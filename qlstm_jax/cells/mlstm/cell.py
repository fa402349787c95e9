"""The mLSTM (xLSTM, arXiv 2405.04517, section 2.3), N heads with matrix memories: no recurrent weights at all.

q_t = x_t W_q + b_q;  k_t = x_t W_k + b_k          N heads of K
v_t = x_t W_v + b_v                                N heads of V = H / N
[ĩ_t, f̃_t] = x_t W_g + b_g                         a number for each head
h̃_t = memory(q_t, k_t, v_t, ĩ_t, f̃_t)              in each head: see `qlstm_jax.cells.mlstm.matrix_memory`
y_t = σ(x_t W_o + b_o) ⊙ h̃_t                       heads side by side

`step` is the recurrence; `unroll` runs it in chunks of tokens (`chunkwise`), in time linear in T.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, Key

from qlstm_jax.cells import common
from qlstm_jax.cells.mlstm import matrix_memory
from qlstm_jax.cells.mlstm.chunked import chunkwise

Carry = matrix_memory.State


@common.params_dataclass
class Params:
    """Weights of the cell; the heads of a kernel are side by side, `queries` is N·K."""

    query_kernel: Float[Array, "d queries"]  # W_q
    query_bias: Float[Array, " queries"]  # b_q
    key_kernel: Float[Array, "d queries"]  # W_k
    key_bias: Float[Array, " queries"]  # b_k
    value_kernel: Float[Array, "d h"]  # W_v
    value_bias: Float[Array, " h"]  # b_v
    gate_kernel: Float[Array, "d gates"]  # W_g (D, 2N): first i of each head, then f
    gate_bias: Float[Array, " gates"]  # b_g
    output_kernel: Float[Array, "d h"]  # W_o
    output_bias: Float[Array, " h"]  # b_o
    num_heads: int = common.static(default=4)
    chunk_size: int = common.static(default=64)
    dtype: str = common.static(default="float32")

    @property
    def input_size(self) -> int:
        """D."""
        return self.query_kernel.shape[0]


def init(
    key: Key[Array, ""],
    input_size: int,
    hidden_size: int,
    *,
    num_heads: int = 4,
    key_size: int | None = None,
    chunk_size: int = 64,
    dtype: DTypeLike = "float32",
    param_dtype: DTypeLike = "float32",
) -> Params:
    """Draws parameters: W_q, W_k, W_v and W_o lecun normal with biases 0; the gates as in the official code.

    That is W_g = 0, b_i ~ N(0, 0.1²), and b_f from 3 in the first head to 6 in the last: each remembers for longer.

    Args:
        key: a PRNG key.
        input_size: D.
        hidden_size: H, a multiple of num_heads.
        num_heads: N.
        key_size: K, of one head; default V = H / N. A state holds N·(K·V + K + 1) numbers.
        chunk_size: tokens that `unroll` takes at once; it changes the speed, not the result.
        dtype: of activations and products; gates, sums and the carry are float32 whatever it is.
        param_dtype: of the stored weights.

    Raises:
        TypeError: if `key` is no PRNG key.
        ValueError: for a dtype of no real numbers, a size that is not a positive integer, or num_heads does not divide
            hidden_size.
    """
    common.check_init(key, dtype, param_dtype, input_size=input_size, hidden_size=hidden_size)
    common.check_sizes(num_heads=num_heads, chunk_size=chunk_size)
    common.check_heads(hidden_size, num_heads)
    key_size = hidden_size // num_heads if key_size is None else key_size
    common.check_sizes(key_size=key_size)
    keys, queries = jax.random.split(key, 5), num_heads * key_size
    input_gate = 0.1 * jax.random.normal(keys[4], (num_heads,))
    forget_gate = jnp.linspace(3.0, 6.0, num_heads)
    return Params(
        query_kernel=common.lecun_normal(keys[0], (input_size, queries), param_dtype),
        query_bias=jnp.zeros((queries,), param_dtype),
        key_kernel=common.lecun_normal(keys[1], (input_size, queries), param_dtype),
        key_bias=jnp.zeros((queries,), param_dtype),
        value_kernel=common.lecun_normal(keys[2], (input_size, hidden_size), param_dtype),
        value_bias=jnp.zeros((hidden_size,), param_dtype),
        gate_kernel=jnp.zeros((input_size, 2 * num_heads), param_dtype),
        gate_bias=jnp.concatenate([input_gate, forget_gate]).astype(param_dtype),
        output_kernel=common.lecun_normal(keys[3], (input_size, hidden_size), param_dtype),
        output_bias=jnp.zeros((hidden_size,), param_dtype),
        num_heads=num_heads,
        chunk_size=chunk_size,
        dtype=jnp.dtype(dtype).name,
    )


def initial_carry(params: Params, batch_size: int) -> Carry:
    """The carry before the first token: C = n = m = 0, float32 or wider."""
    common.check_params(params, Params)
    common.check_batch_size(batch_size)
    heads = params.num_heads
    key_size, value_size = params.query_bias.shape[0] // heads, params.value_bias.shape[0] // heads
    return matrix_memory.zero_state(batch_size, heads, key_size, value_size, params.dtype)


def _project(params: Params, x: Float[Array, "*rows d"]) -> tuple[Array, Array, Array, Array, Array]:
    """x (..., D) to q, k, v (..., N, K or V) in the activations' dtype and i, f (..., N) in float32."""

    def heads(kernel: Array, bias: Array) -> Float[Array, "*rows n k"]:
        y = common.affine(x, kernel, bias, params.dtype).astype(params.dtype)
        return y.reshape(*y.shape[:-1], params.num_heads, bias.shape[0] // params.num_heads)

    i, f = jnp.split(common.affine(x, params.gate_kernel, params.gate_bias, params.dtype), 2, axis=-1)
    return (
        heads(params.query_kernel, params.query_bias),
        heads(params.key_kernel, params.key_bias),
        heads(params.value_kernel, params.value_bias),
        i,
        f,
    )


def _gate(params: Params, x: Float[Array, "*rows d"], h: Float[Array, "*rows n v"]) -> Float[Array, "*rows h"]:
    o = jax.nn.sigmoid(common.affine(x, params.output_kernel, params.output_bias, params.dtype))
    return (o * h.reshape(o.shape).astype(o.dtype)).astype(params.dtype)


@common.on_any_mesh("x")
def step(
    params: Params, carry: Carry, x: Float[Array, "batch d"], *, reset: ArrayLike | None = None
) -> tuple[Carry, Float[Array, "batch h"]]:
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
    common.check_step(x, params.input_size)
    carry = common.step_carry(carry, initial_carry(params, x.shape[0]), reset)
    carry, h = matrix_memory.step(*_project(params, x), carry)
    return carry, _gate(params, x, h)


@common.on_any_mesh("xs")
def unroll(
    params: Params,
    xs: Float[Array, "batch time d"],
    *,
    seq_lengths: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    carry: Carry | None = None,
    plain: bool = False,
) -> tuple[Carry, Float[Array, "batch time h"]]:
    """A whole sequence: xs (B, T, D) to (carry, ys (B, T, H)), equal to folding `step`, in chunks.

    Args:
        params: from `init`.
        xs: (B, T, D).
        seq_lengths: optional (B,) number of valid positions; outputs beyond are 0 and the carry is that after the last.
        resets: optional (B, T) booleans, true where a new sequence begins: nothing of before reaches value or gradient.
        carry: where to continue from; default `initial_carry`.
        plain: whether to run the recurrence token by token: slower, but JAX can differentiate it in any mode. The
            default is for reverse mode.

    Raises:
        TypeError: if xs is not an array of real numbers, or the params are another cell's.
        ValueError: if a shape or the carry does not fit, or a length lies outside 0..T.
    """
    common.check_params(params, Params)
    xs, lengths, _, resets = common.check_sequence(xs, seq_lengths, params.input_size, resets)
    carry = common.unroll_carry(carry, initial_carry(params, xs.shape[0]))
    run = matrix_memory.recurrent if plain else partial(chunkwise, chunk_size=params.chunk_size)
    carry, h = run(*_project(params, xs), carry, seq_lengths=lengths, resets=resets)
    return carry, _gate(params, xs, h)


last = common.last_by_unroll(unroll)
