"""The three passes of the matrix memory over a group of chunks, and their gradients; `chunked` runs them over a sequence.

    1. `add`: what each chunk adds to the state, from its own positions alone
    2. `boundaries`: the state at each boundary,
           m' = max(F + m, m_add);  C' = exp(F + m − m') C + exp(m_add − m') C_add,  n alike
    3. `output`: the outputs of each chunk, from its positions and the state before it

With u = 1 / (max(|d|, exp(−m)) + ε), h = u N, and σ = sign(d) where |d| is the maximum, else 0, the gradient of 3 is

    ∂N = u ∂h;   ∂d = −σ u (∂h · h);   and in the weights of v_s, as they are before any m is subtracted:
    Σ_s ∂g_ts = q_t · ∂q_t = (1 − σ u d) (∂h · h);   Σ_t ∂g_ts = k_s · ∂k_s

the last two because a weight and its q or k are factors of the same product. h changes with m by way of ε alone, so
what reaches m_t is −ε u (∂h · h).

Inputs are those of a group, with k̂ for k. Axes as in `chunked`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from qlstm_jax.cells.mlstm import matrix_memory
from qlstm_jax.cells.mlstm.matrix_memory import EPSILON, NEVER, Inputs, State


class Ends(NamedTuple):
    """Logarithms of the weights with which the state after a chunk is made; NEVER where there is none."""

    write: jax.Array  # (c, B, N, L), of each position
    keep: jax.Array  # (c, B, N), of the state before
    floor: jax.Array  # (c, B, N), of the empty state of a document that began in the chunk


def ends(i, log_f, resets) -> Ends:
    """From the gates (c, B, N, L) and the resets (c, B, L) or None."""
    after = jnp.concatenate([log_f[..., 1:], jnp.zeros_like(log_f[..., :1])], axis=-1)
    write = jax.lax.cumsum(after, axis=3, reverse=True) + i
    keep = jnp.sum(log_f, axis=-1)
    if resets is None:
        return Ends(write=write, keep=keep, floor=jnp.full_like(keep, NEVER))
    last = jax.lax.cumsum(resets.astype(jnp.int32), axis=2, reverse=True)  # documents that begin here or later
    last = ((last - resets) == 0)[:, :, None]
    any_reset = jnp.any(resets, axis=-1)[:, :, None]
    floor = jnp.sum(jnp.where(last, log_f, 0), axis=-1)
    return Ends(
        write=jnp.where(last, write, NEVER),
        keep=jnp.where(any_reset, NEVER, keep),
        floor=jnp.where(any_reset, floor, NEVER),
    )


def add(x: Inputs, ends: Ends) -> State:
    """Pass 1: what each chunk adds to the state."""
    m = jnp.maximum(jnp.max(ends.write, axis=-1), ends.floor)
    k = jnp.exp(ends.write - m[..., None])[..., None] * x.k
    return State(C=jnp.einsum("...sk,...sv->...kv", k, x.v), n=jnp.sum(k, axis=-2), m=m)


def boundaries(state: State, keep, added: State):
    """Pass 2: the last state, and those before each chunk, stacked."""

    def body(state, chunk):
        keep, added = chunk
        m = jnp.maximum(keep + state.m, added.m)
        old, new = jnp.exp(keep + state.m - m)[..., None], jnp.exp(added.m - m)[..., None]
        n = old * state.n + new * added.n
        return State(C=old[..., None] * state.C + new[..., None] * added.C, n=n, m=m), state

    return jax.lax.scan(body, state, (keep, added))


class Within(NamedTuple):
    """Logarithms of the weights in a chunk; NEVER where there is none."""

    g: jax.Array  # (c, B, N, L, L), of position s at position t
    start: jax.Array  # (c, B, N, L), of the state before the chunk at position t
    floor: jax.Array | None  # (c, B, N, L), of the empty state of a document that began in the chunk


def within(i, log_f, resets, m) -> Within:
    """`m` (c, B, N) is that of the states before the chunks."""
    seen, floor = jnp.tri(i.shape[-1], dtype=bool)[None, None, None], None
    # Multiples of 2^-8 add up to 2^16 and more without rounding, and the rests stay small: in the difference of two
    # running sums nothing is lost then.
    coarse = jnp.round(log_f * 256) / 256
    coarse, fine = _running_sum(coarse), _running_sum(log_f - coarse)
    between = (coarse[..., :, None] - coarse[..., None, :]) + (fine[..., :, None] - fine[..., None, :])
    start = (coarse + fine) + m[..., None]
    if resets is not None:
        document = jnp.cumsum(resets, axis=-1)[:, :, None]
        seen = seen & (document[..., :, None] == document[..., None, :])
        own = jnp.sum(jnp.where(seen, log_f[..., None, :], 0), axis=-1)
        start, floor = jnp.where(document == 0, start, NEVER), jnp.where(document == 0, NEVER, own)
    return Within(g=jnp.where(seen, between + i[..., None, :], NEVER), start=start, floor=floor)


def _running_sum(a):
    """Over the last axis, as a product: XLA would compute anew what it can fuse, here for each of the L x L pairs."""
    return jnp.einsum("...s,ts->...t", a, jnp.tri(a.shape[-1], dtype=a.dtype), precision=jax.lax.Precision.HIGHEST)


class Scale(NamedTuple):
    """What the gradient of pass 3 needs of its outcome, (c, B, N, L) each; of all positions, (B, T, N)."""

    m: jax.Array
    u: jax.Array  # h = u times the numerator
    sign: jax.Array  # σ


def output(x: Inputs, within: Within, before: State):
    """Pass 3: h (c, B, N, L, V) and its scale."""
    m = jnp.maximum(jnp.max(within.g, axis=-1), within.start)
    m = m if within.floor is None else jnp.maximum(m, within.floor)
    w = jnp.exp(within.g - m[..., None]) * jnp.einsum("...tk,...sk->...ts", x.q, x.k)
    p = jnp.exp(within.start - m)
    numerator = jnp.einsum("...ts,...sv->...tv", w, x.v)
    numerator = numerator + p[..., None] * jnp.einsum("...tk,...kv->...tv", x.q, before.C)
    denominator = jnp.sum(w, axis=-1) + p * jnp.einsum("...tk,...k->...t", x.q, before.n)
    u, is_largest = matrix_memory.scale(denominator, m)
    return u[..., None] * numerator, Scale(m=m, u=u, sign=jnp.where(is_largest, jnp.sign(denominator), 0))


def inner(state, d_state):
    """⟨C, ∂C⟩ + ⟨n, ∂n⟩, what reaches the logarithm of both."""
    return jnp.sum(state[0] * d_state[0], axis=(-2, -1)) + jnp.sum(state[1] * d_state[1], axis=-1)


def output_backward(x, within, before, scale, d_h):
    """Of pass 3: what reaches the inputs, (C, n) before each chunk, and m at each position by way of ε."""
    a = scale.u[..., None] * jnp.exp(within.g - scale.m[..., None])
    p = scale.u * jnp.exp(within.start - scale.m)
    w = a * jnp.einsum("...tk,...sk->...ts", x.q, x.k)
    d_w = jnp.einsum("...tv,...sv->...ts", d_h, x.v)
    d_q = jnp.einsum("...tv,...kv->...tk", d_h, before.C)
    d_h_h = jnp.sum(w * d_w, axis=-1) + p * jnp.sum(x.q * d_q, axis=-1)
    d_sum = -scale.sign * d_h_h
    d_s = a * (d_w + d_sum[..., None])
    d_m = -EPSILON * scale.u * d_h_h
    d_x = Inputs(
        q=jnp.einsum("...ts,...sk->...tk", d_s, x.k) + p[..., None] * (d_q + d_sum[..., None] * before.n[..., None, :]),
        k=jnp.einsum("...ts,...tk->...sk", d_s, x.q),
        v=jnp.einsum("...ts,...tv->...sv", w, d_h),
        i=None,
        log_f=jnp.where(scale.sign == 0, d_h_h, -d_m),  # of F_t: (1 − σ u d) (∂h · h), and σ u d = 1 − ε u
    )
    pq = p[..., None] * x.q
    d_n = jnp.einsum("...tk,...t->...k", pq, d_sum)
    return d_x, (jnp.einsum("...tk,...tv->...kv", pq, d_h), d_n), d_m


def boundaries_backward(d_last, old, d_before):
    """Of pass 2: what reaches (C, n) before the first chunk, and after each one, stacked."""

    def body(d_after, chunk):
        old, (d_C, d_n) = chunk
        return (old[..., None, None] * d_after[0] + d_C, old[..., None] * d_after[1] + d_n), d_after

    return jax.lax.scan(body, d_last, (old, d_before), reverse=True)


def add_backward(x, d_x, before, d_after, old, new) -> Inputs:
    """Of pass 1, added to what reaches the inputs from pass 3."""
    d_C, d_n = d_after
    d_k = new[..., None] * (jnp.einsum("...sv,...kv->...sk", x.v, d_C) + d_n[..., None, :])
    d_v = new[..., None] * jnp.einsum("...sk,...kv->...sv", x.k, d_C)
    within, to_end = jnp.sum(x.k * d_x.k, axis=-1), jnp.sum(x.k * d_k, axis=-1)
    log_f = jax.lax.cumsum(d_x.log_f - within, axis=3, reverse=True) + jnp.cumsum(to_end, axis=-1) - to_end
    log_f = log_f + (old * inner(before, d_after))[..., None]
    return Inputs(q=d_x.q, k=d_x.k + d_k, v=d_x.v + d_v, i=within + to_end, log_f=log_f)
