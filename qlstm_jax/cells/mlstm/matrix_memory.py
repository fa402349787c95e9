"""The matrix memory of the mLSTM (xLSTM, arXiv 2405.04517, section 2.3): token by token, or all T x T pairs at once.

For each head, with query q and key k (K), value v (V), k̂ = k / √K, and scalar pre-activations ĩ and f̃ of the gates:

    m_t = max(log σ(f̃_t) + m_{t-1}, ĩ_t);   f' = exp(log σ(f̃_t) + m_{t-1} − m_t);   i' = exp(ĩ_t − m_t)
    C_t = f' C_{t-1} + i' k̂_t v_tᵀ;          n_t = f' n_{t-1} + i' k̂_t
    h_t = C_tᵀ q_t / (max(|n_t · q_t|, exp(−m_t)) + ε),   ε = 1e-6

C, n and m are 0 before the first token. Written out, with F_ts the sum of log σ(f̃_r) over s < r <= t, this is

    g_ts = F_ts + ĩ_s for s <= t;   m_t = max(F_t + m_0, max_s g_ts);   W_ts = exp(g_ts − m_t) q_t · k̂_s
    h_t = (Σ_s W_ts v_s + p_t C_0ᵀ q_t) / (max(|Σ_s W_ts + p_t n_0 · q_t|, exp(−m_t)) + ε),   p_t = exp(F_t + m_0 − m_t)

`recurrent` is the first, `parallel` the second: plain, and the measure of `qlstm_jax.cells.mlstm.chunkwise`, which is
the fast one. All take the same arguments. A new document may begin anywhere: at a reset the state becomes 0 before the
token is read. Gates, m, C and n are float32 (or wider) whatever the activations are.

Axes: B batch, T time, N heads, K key size, V value size.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from qlstm_jax.cells import common

EPSILON = 1e-6
# The logarithm of nothing. Finite, so that differences of it are numbers, and exp of it is 0 with gradient 0.
NEVER = -1e30


class State(NamedTuple):
    """What passes from token to token; C and n are those of the equations, times exp(−m)."""

    C: jax.Array  # (B, N, K, V)
    n: jax.Array  # (B, N, K)
    m: jax.Array  # (B, N)


class Inputs(NamedTuple):
    """A sequence ready to be summed: log σ(f̃) for f̃, and padding that adds nothing and forgets nothing."""

    q: jax.Array  # (B, T, N, K)
    k: jax.Array  # (B, T, N, K)
    v: jax.Array  # (B, T, N, V)
    i: jax.Array  # (B, T, N)
    log_f: jax.Array  # (B, T, N)


def empty(batch: int, heads: int, key_size: int, value_size: int, dtype=jnp.float32) -> State:
    """The state before the first token: zeros, float32 or wider."""
    dtype = jnp.promote_types(dtype, jnp.float32)
    shape = batch, heads, key_size
    return State(C=jnp.zeros((*shape, value_size), dtype), n=jnp.zeros(shape, dtype), m=jnp.zeros(shape[:2], dtype))


def scale(denominator, m):
    """u = 1 / (max(|d|, exp(−m)) + ε), and whether |d| is the larger one.

    Both parts of the fraction are multiplied by exp(min(m, 0)), so that no exp overflows.
    """
    down, up = jnp.exp(jnp.minimum(m, 0)), jnp.exp(-jnp.maximum(m, 0))
    size = jnp.abs(denominator) * down
    return down / (jnp.maximum(size, up) + EPSILON * down), size > up


def _log_sigmoid(f):
    return jax.nn.log_sigmoid(f.astype(jnp.promote_types(f.dtype, jnp.float32)))


def step(q, k, v, i, f, state: State):
    """One token: q, k (B, N, K), v (B, N, V), i and f (B, N) to (state, h (B, N, V)).

    Raises:
        ValueError: if the shapes do not fit each other.
    """
    check(*(a[:, None] for a in (q, k, v, i, f)), state)
    wide = state.C.dtype
    q, i, log_f = q.astype(wide), i.astype(wide), _log_sigmoid(f)
    k, value = k.astype(wide) * k.shape[-1] ** -0.5, v.astype(wide)
    m = jnp.maximum(log_f + state.m, i)
    keep, write = jnp.exp(log_f + state.m - m)[..., None], jnp.exp(i - m)[..., None]
    n = keep * state.n + write * k
    C = keep[..., None] * state.C + (write * k)[..., None] * value[..., None, :]
    h = scale(jnp.sum(q * n, axis=-1), m)[0][..., None] * jnp.einsum("bnk,bnkv->bnv", q, C)
    return State(C=C, n=n, m=m), h.astype(v.dtype)


def recurrent(q, k, v, i, f, state: State | None = None, *, seq_lengths=None, resets=None):
    """The recurrence, one token after another.

    Args:
        q, k: (B, T, N, K).
        v: (B, T, N, V).
        i, f: (B, T, N), the pre-activations of the gates.
        state: to continue from; None at the start of a stream.
        seq_lengths: optional (B,) number of valid positions. Outputs beyond are 0, and the state is that after the last.
        resets: optional (B, T) booleans, true where a new document begins: the state before it is dropped.

    Returns:
        (state, h), h (B, T, N, V) of v's dtype.

    Raises:
        ValueError: if the shapes do not fit each other.
    """
    state = check(q, k, v, i, f, state, seq_lengths, resets)

    def body(state, inputs):
        *inputs, reset = inputs
        if reset is not None:
            state = common.where(reset, jax.tree.map(jnp.zeros_like, state), state)
        return step(*inputs, state)

    valid = None if seq_lengths is None else common.valid_mask(seq_lengths, q.shape[1])
    inputs = [cleared(a, valid) for a in (q, k, v, i, f)]
    return common.scan(body, state, (*inputs, resets), valid=valid)


def parallel(q, k, v, i, f, state: State | None = None, *, seq_lengths=None, resets=None):
    """All pairs of positions at once, in memory and time quadratic in T; arguments and result as of `recurrent`."""
    state = check(q, k, v, i, f, state, seq_lengths, resets)
    if q.shape[1] == 0:
        return state, v
    x, resets, valid = prepare(q, k, v, i, f, state, seq_lengths, resets)
    state = varying(state, x)
    x = Inputs(*(jnp.moveaxis(a, 2, 1) for a in x))  # (B, N, T, ...)
    seen, first = _seen(resets, x)
    k_hat = x.k * x.k.shape[-1] ** -0.5
    # Summed within the mask, F_ts has no rounding from outside of s < r <= t, as a difference of running sums would.
    steps = jnp.arange(q.shape[1])
    between = jnp.where((steps[:, None] > steps[None, :])[None, None], x.log_f[..., :, None], 0)
    g = jnp.where(seen, jnp.cumsum(between, axis=-2) + x.i[..., None, :], NEVER)
    start = jnp.sum(jnp.where(seen, x.log_f[..., None, :], 0), axis=-1) + first * state.m[..., None]
    m = jnp.maximum(start, jnp.max(g, axis=-1))
    a, p = jnp.exp(g - m[..., None]), first * jnp.exp(start - m)
    w, p_q = a * jnp.einsum("bntk,bnsk->bnts", x.q, k_hat), p[..., None] * x.q
    numerator = jnp.einsum("bnts,bnsv->bntv", w, x.v) + jnp.einsum("bntk,bnkv->bntv", p_q, state.C)
    denominator = jnp.sum(w, axis=-1) + jnp.einsum("bntk,bnk->bnt", p_q, state.n)
    h = jnp.moveaxis(scale(denominator, m)[0][..., None] * numerator, 1, 2).astype(v.dtype)
    written, kept = a[..., -1, :, None] * k_hat, p[..., -1, None]
    last = State(
        C=jnp.einsum("bnsk,bnsv->bnkv", written, x.v) + kept[..., None] * state.C,
        n=jnp.sum(written, axis=-2) + kept * state.n,
        m=m[..., -1],
    )
    return last, cleared(h, valid)


def _seen(resets, x):
    """Which s a position t sees, (B, N, T, T), and 1.0 where it still sees the initial state, (B, N, T)."""
    shape = x.i.shape
    causal = jnp.tri(shape[-1], dtype=bool)[None, None]
    if resets is None:
        return jnp.broadcast_to(causal, (*shape, shape[-1])), jnp.ones(shape, x.i.dtype)
    document = jnp.broadcast_to(jnp.cumsum(resets, axis=1)[:, None], shape)
    return causal & (document[..., :, None] == document[..., None, :]), (document == 0).astype(x.i.dtype)


def check(q, k, v, i, f, state=None, seq_lengths=None, resets=None) -> State:
    """The state to begin with, after the shapes have been checked.

    Raises:
        ValueError: naming the first that does not fit.
    """
    if q.ndim != 4:
        raise ValueError(f"q has shape {q.shape}; expected (batch, time, heads, key size)")
    batch, steps, heads, key_size = q.shape
    expected = {
        "k": (k, q.shape),
        "v": (v, (batch, steps, heads, v.shape[-1])),
        "i": (i, (batch, steps, heads)),
        "f": (f, (batch, steps, heads)),
        "seq_lengths": (seq_lengths, (batch,)),
        "resets": (resets, (batch, steps)),
    }
    if state is None:
        state = empty(batch, heads, key_size, v.shape[-1], v.dtype)
    else:
        expected["state.C"] = state.C, (batch, heads, key_size, v.shape[-1])
        expected["state.n"] = state.n, (batch, heads, key_size)
        expected["state.m"] = state.m, (batch, heads)
    for name, (array, shape) in expected.items():
        if array is not None and jnp.shape(array) != shape:
            raise ValueError(f"{name} has shape {jnp.shape(array)}; expected {shape}, as q has shape {q.shape}")
    return state


def cleared(a, valid):
    """`a` (B, T, ...) with zeros where not `valid` (B, T), whatever stood there."""
    return (
        a if valid is None else jnp.where(valid.reshape(valid.shape + (1,) * (a.ndim - 2)), a, jnp.zeros((), a.dtype))
    )


def varying(state, x: Inputs):
    """The same state, or its cotangent, but none that a compiler knows to be constant: NaN where x begins with NaN.

    XLA on a CPU (jaxlib 0.10.2 to 0.12) may take a product with zeros that it knows of together with sums of the other
    factor, and then reads memory that nothing has written. The first state is such zeros, and so is the cotangent of a
    last state that is not used, where a loop over chunks has a single turn.
    """
    k, v = (a[:, 0] == a[:, 0] for a in (x.k, x.v))
    nan = jnp.full((1,) * 4, jnp.nan, x.k.dtype)
    return state._replace(
        C=jnp.where(k[..., None] & v[..., None, :], state.C, nan), n=jnp.where(k, state.n, nan[..., 0])
    )


def prepare(q, k, v, i, f, state, seq_lengths, resets):
    """The `Inputs` in the state's precision, the resets without those in padding, and the (B, T) mask or None."""
    valid = None if seq_lengths is None else common.valid_mask(seq_lengths, q.shape[1])
    q, k, v, i, f = (cleared(a, valid).astype(state.C.dtype) for a in (q, k, v, i, f))
    log_f = _log_sigmoid(f)
    if valid is not None:
        i, log_f = jnp.where(valid[:, :, None], i, NEVER), cleared(log_f, valid)
    return (
        Inputs(q=q, k=k, v=v, i=i, log_f=log_f),
        None if resets is None else cleared(resets, valid),
        valid,
    )
