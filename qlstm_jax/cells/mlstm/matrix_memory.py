"""The matrix memory of the mLSTM (xLSTM, arXiv 2405.04517, section 2.3): token by token, or all T x T pairs at once.

For each head, with query q and key k (K), value v (V), k̂ = k / √K, and scalar pre-activations ĩ and f̃ of the gates:

    m_t = max(log σ(f̃_t) + m_{t-1}, ĩ_t);   f' = exp(log σ(f̃_t) + m_{t-1} − m_t);   i' = exp(ĩ_t − m_t)
    C_t = f' C_{t-1} + i' k̂_t v_tᵀ;          n_t = f' n_{t-1} + i' k̂_t
    h_t = C_tᵀ q_t / (max(|n_t · q_t|, exp(−m_t)) + ε),   ε = 1e-6

C, n and m are 0 before the first token. Unrolled, with F_ts the sum of log σ(f̃_r) over s < r <= t, this is

    g_ts = F_ts + ĩ_s for s <= t;   m_t = max(F_t + m_0, max_s g_ts);   W_ts = exp(g_ts − m_t) q_t · k̂_s
    h_t = (Σ_s W_ts v_s + p_t C_0ᵀ q_t) / (max(|Σ_s W_ts + p_t n_0 · q_t|, exp(−m_t)) + ε),   p_t = exp(F_t + m_0 − m_t)

`recurrent` is the first and `parallel` the second: plain references for `qlstm_jax.cells.mlstm.chunkwise`, which is the
fast one. All take the same arguments. A new document may begin anywhere: at a reset the state becomes 0 before the
token is read. Gates, m, C and n are float32 (or wider) whatever the activations are.

Axes: B batch, T time, N heads, K key size, V value size.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from qlstm_jax.cells import common
from qlstm_jax.cells.mlstm.inputs import (
    LOG_ZERO,
    Inputs,
    State,
    check_inputs,
    hide_constants,
    log_sigmoid,
    prepare,
    zero_state,
)

__all__ = ["EPSILON", "State", "parallel", "recurrent", "scale", "step", "zero_state"]

EPSILON = 1e-6


def scale(
    denominator: Float[Array, "*rows"], m: Float[Array, "*rows"]
) -> tuple[Float[Array, "*rows"], Bool[Array, "*rows"]]:
    """u = 1 / (max(|d|, exp(−m)) + ε), and whether |d| is the larger one.

    Both parts of the fraction are multiplied by exp(min(m, 0)), so that no exp overflows.
    """
    down, up = jnp.exp(jnp.minimum(m, 0)), jnp.exp(-jnp.maximum(m, 0))
    size = jnp.abs(denominator) * down
    return down / (jnp.maximum(size, up) + EPSILON * down), size > up


def step(
    q: Float[Array, "batch heads k"],
    k: Float[Array, "batch heads k"],
    v: Float[Array, "batch heads v"],
    i: Float[Array, "batch heads"],
    f: Float[Array, "batch heads"],
    state: State,
) -> tuple[State, Float[Array, "batch heads v"]]:
    """One token: q, k (B, N, K), v (B, N, V), i and f (B, N) to (state, h (B, N, V)).

    Raises:
        ValueError: if the shapes do not fit each other.
    """
    check_inputs(q[:, None], k[:, None], v[:, None], i[:, None], f[:, None], state)
    wide = state.C.dtype
    q, i, log_f = q.astype(wide), i.astype(wide), log_sigmoid(f)
    k, value = k.astype(wide) * k.shape[-1] ** -0.5, v.astype(wide)
    m = jnp.maximum(log_f + state.m, i)
    keep, write = jnp.exp(log_f + state.m - m)[..., None], jnp.exp(i - m)[..., None]
    n = keep * state.n + write * k
    C = keep[..., None] * state.C + (write * k)[..., None] * value[..., None, :]
    h = scale(jnp.sum(q * n, axis=-1), m)[0][..., None] * jnp.einsum("bnk,bnkv->bnv", q, C)
    return State(C=C, n=n, m=m), h.astype(v.dtype)


def recurrent(
    q: Float[Array, "batch time heads k"],
    k: Float[Array, "batch time heads k"],
    v: Float[Array, "batch time heads v"],
    i: Float[Array, "batch time heads"],
    f: Float[Array, "batch time heads"],
    state: State | None = None,
    *,
    seq_lengths: ArrayLike | None = None,
    resets: ArrayLike | None = None,
) -> tuple[State, Float[Array, "batch time heads v"]]:
    """The recurrence, one token after another.

    Args:
        q: queries (B, T, N, K).
        k: keys (B, T, N, K).
        v: values (B, T, N, V).
        i: (B, T, N), the pre-activations of the input gate.
        f: (B, T, N), those of the forget gate.
        state: where to continue from; default zeros.
        seq_lengths: optional (B,) number of valid positions. Outputs beyond are 0, the state is that after the last.
        resets: optional (B, T) booleans, true where a new document begins: the state before it is dropped.

    Returns:
        (state, h), h (B, T, N, V) of v's dtype.

    Raises:
        ValueError: if the shapes do not fit each other.
    """
    state = check_inputs(q, k, v, i, f, state, seq_lengths, resets)

    def body(state: State, inputs: tuple[Any, Array | None]) -> tuple[State, Array]:
        (q, k, v, i, f), reset = inputs
        if reset is not None:
            state = common.where(reset, jax.tree.map(jnp.zeros_like, state), state)
        return step(q, k, v, i, f, state)

    valid = None if seq_lengths is None else common.valid_mask(jnp.asarray(seq_lengths), q.shape[1])
    token = tuple(common.zero_padding(a, valid) for a in (q, k, v, i, f))
    return common.scan(body, state, (token, resets), valid=valid)


def parallel(
    q: Float[Array, "batch time heads k"],
    k: Float[Array, "batch time heads k"],
    v: Float[Array, "batch time heads v"],
    i: Float[Array, "batch time heads"],
    f: Float[Array, "batch time heads"],
    state: State | None = None,
    *,
    seq_lengths: ArrayLike | None = None,
    resets: ArrayLike | None = None,
) -> tuple[State, Float[Array, "batch time heads v"]]:
    """All pairs of positions at once, in memory and time quadratic in T; arguments and result as of `recurrent`."""
    state = check_inputs(q, k, v, i, f, state, seq_lengths, resets)
    if q.shape[1] == 0:
        return state, v
    x, starts, valid = prepare(q, k, v, i, f, state, seq_lengths, resets)
    state = hide_constants(state, x)
    x = Inputs(*(jnp.moveaxis(a, 2, 1) for a in x))  # (B, N, T, ...)
    last, h = _all_pairs(x, starts, state)
    return last, common.zero_padding(jnp.moveaxis(h, 1, 2).astype(v.dtype), valid)


def _all_pairs(
    x: Inputs, resets: Bool[Array, "batch time"] | None, state: State
) -> tuple[State, Float[Array, "batch heads time v"]]:
    """`parallel` of inputs (B, N, T, ...)."""
    visible, first = _visible(resets, x)
    k_hat = x.k * x.k.shape[-1] ** -0.5
    # Summed within the mask, F_ts has no rounding from outside of s < r <= t, as a difference of running sums would.
    steps = jnp.arange(x.i.shape[-1])
    between = jnp.where((steps[:, None] > steps[None, :])[None, None], x.log_f[..., :, None], 0)
    g = jnp.where(visible, jnp.cumsum(between, axis=-2) + x.i[..., None, :], LOG_ZERO)
    start = jnp.sum(jnp.where(visible, x.log_f[..., None, :], 0), axis=-1) + first * state.m[..., None]
    m = jnp.maximum(start, jnp.max(g, axis=-1))
    a, p = jnp.exp(g - m[..., None]), first * jnp.exp(start - m)
    w, p_q = a * jnp.einsum("bntk,bnsk->bnts", x.q, k_hat), p[..., None] * x.q
    numerator = jnp.einsum("bnts,bnsv->bntv", w, x.v) + jnp.einsum("bntk,bnkv->bntv", p_q, state.C)
    denominator = jnp.sum(w, axis=-1) + jnp.einsum("bntk,bnk->bnt", p_q, state.n)
    written, kept = a[..., -1, :, None] * k_hat, p[..., -1, None]
    last = State(
        C=jnp.einsum("bnsk,bnsv->bnkv", written, x.v) + kept[..., None] * state.C,
        n=jnp.sum(written, axis=-2) + kept * state.n,
        m=m[..., -1],
    )
    return last, scale(denominator, m)[0][..., None] * numerator


def _visible(
    resets: Bool[Array, "batch time"] | None, x: Inputs
) -> tuple[Bool[Array, "batch heads time time"], Float[Array, "batch heads time"]]:
    """Which s a position t depends on, and 1.0 where it still depends on the initial state."""
    shape = x.i.shape
    causal = jnp.tri(shape[-1], dtype=bool)[None, None]
    if resets is None:
        return jnp.broadcast_to(causal, (*shape, shape[-1])), jnp.ones(shape, x.i.dtype)
    document = jnp.broadcast_to(jnp.cumsum(resets, axis=1)[:, None], shape)
    return causal & (document[..., :, None] == document[..., None, :]), (document == 0).astype(x.i.dtype)
