"""The matrix memory over a group of chunks in three passes, and their gradients; `chunked` runs them over a sequence.

    1. `chunk_update`: what each chunk adds to the state, from its own positions alone
    2. `boundary_states`: the state at each boundary,
           m' = max(F + m, m_add);  C' = exp(F + m − m') C + exp(m_add − m') C_add,  n alike
    3. `outputs`: the outputs of each chunk, from its positions and the state before it

With u = 1 / (max(|d|, exp(−m)) + ε), h = u N, and σ = sign(d) where |d| is the maximum, else 0, the gradient of 3 is

    ∂N = u ∂h;   ∂d = −σ u (∂h · h);   and in the weights of v_s, as they are before any m is subtracted:
    Σ_s ∂g_ts = q_t · ∂q_t = (1 − σ u d) (∂h · h);   Σ_t ∂g_ts = k_s · ∂k_s

the last two because a weight and its q or k are factors of the same product. h depends on m through ε alone, so the
gradient of m_t is −ε u (∂h · h).

Inputs are those of a group, with k̂ for k. Axes as in `chunked`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from qlstm_jax.cells.mlstm import matrix_memory
from qlstm_jax.cells.mlstm.inputs import LOG_ZERO, Inputs, State
from qlstm_jax.cells.mlstm.matrix_memory import EPSILON

Gate = Float[Array, "chunks batch heads length"]  # a number for each position of each chunk
PerChunk = Float[Array, "chunks batch heads"]
Starts = Bool[Array, "chunks batch length"] | None  # where a new document begins
StateGradient = tuple[Array, Array]  # of C (..., K, V) and n (..., K)


class EndWeights(NamedTuple):
    """Logarithms of the weights with which the state after a chunk is made; LOG_ZERO where there is none."""

    write: Gate  # of each position
    keep: PerChunk  # of the state before the chunk
    floor: PerChunk  # of the zero state of a document that began in the chunk


def end_weights(i: Gate, log_f: Gate, resets: Starts) -> EndWeights:
    """From the gates."""
    after = jnp.concatenate([log_f[..., 1:], jnp.zeros_like(log_f[..., :1])], axis=-1)
    write = jax.lax.cumsum(after, axis=3, reverse=True) + i
    keep = jnp.sum(log_f, axis=-1)
    if resets is None:
        return EndWeights(write=write, keep=keep, floor=jnp.full_like(keep, LOG_ZERO))
    starts_after = jax.lax.cumsum(resets.astype(jnp.int32), axis=2, reverse=True) - resets
    last = (starts_after == 0)[:, :, None]  # whether a position belongs to the chunk's last document, or begins it
    any_reset = jnp.any(resets, axis=-1)[:, :, None]
    floor = jnp.sum(jnp.where(last, log_f, 0), axis=-1)
    return EndWeights(
        write=jnp.where(last, write, LOG_ZERO),
        keep=jnp.where(any_reset, LOG_ZERO, keep),
        floor=jnp.where(any_reset, floor, LOG_ZERO),
    )


def chunk_update(x: Inputs, weights: EndWeights) -> State:
    """Pass 1: what each chunk adds to the state."""
    m = jnp.maximum(jnp.max(weights.write, axis=-1), weights.floor)
    k = jnp.exp(weights.write - m[..., None])[..., None] * x.k
    return State(C=jnp.einsum("...sk,...sv->...kv", k, x.v), n=jnp.sum(k, axis=-2), m=m)


def boundary_states(state: State, keep: PerChunk, added: State) -> tuple[State, State]:
    """Pass 2: the last state, and those before each chunk, stacked."""

    def body(state: State, chunk: tuple[Array, State]) -> tuple[State, State]:
        keep, added = chunk
        m = jnp.maximum(keep + state.m, added.m)
        old, new = jnp.exp(keep + state.m - m)[..., None], jnp.exp(added.m - m)[..., None]
        n = old * state.n + new * added.n
        return State(C=old[..., None] * state.C + new[..., None] * added.C, n=n, m=m), state

    return jax.lax.scan(body, state, (keep, added))


class ChunkWeights(NamedTuple):
    """Logarithms of the weights within a chunk; LOG_ZERO where there is none."""

    g: Float[Array, "chunks batch heads length length"]  # of position s at position t
    start: Gate  # of the state before the chunk at position t
    floor: Gate | None  # of the zero state of a document that began in the chunk


def chunk_weights(i: Gate, log_f: Gate, resets: Starts, m: PerChunk) -> ChunkWeights:
    """From the gates; `m` is that of the states before the chunks."""
    visible, floor = jnp.tri(i.shape[-1], dtype=bool)[None, None, None], None
    # Multiples of 2^-8 add up to 2^16 and more without rounding, and the remainders stay small: so the difference of
    # two running sums loses nothing.
    coarse = jnp.round(log_f * 256) / 256
    coarse, fine = _running_sum(coarse), _running_sum(log_f - coarse)
    between = (coarse[..., :, None] - coarse[..., None, :]) + (fine[..., :, None] - fine[..., None, :])
    start = (coarse + fine) + m[..., None]
    if resets is not None:
        document = jnp.cumsum(resets, axis=-1)[:, :, None]
        visible = visible & (document[..., :, None] == document[..., None, :])
        own = jnp.sum(jnp.where(visible, log_f[..., None, :], 0), axis=-1)
        start, floor = jnp.where(document == 0, start, LOG_ZERO), jnp.where(document == 0, LOG_ZERO, own)
    return ChunkWeights(g=jnp.where(visible, between + i[..., None, :], LOG_ZERO), start=start, floor=floor)


def _running_sum(a: Gate) -> Gate:
    """Over the last axis, as a product: XLA would recompute a cumsum that it can fuse, here for each of L x L pairs."""
    return jnp.einsum("...s,ts->...t", a, jnp.tri(a.shape[-1], dtype=a.dtype), precision=jax.lax.Precision.HIGHEST)


class OutputScale(NamedTuple):
    """The results of pass 3 that its gradient needs, (c, B, N, L) each; of all positions, (B, T, N)."""

    m: Array
    u: Array  # h = u times the numerator
    sign: Array  # σ


def outputs(
    x: Inputs, weights: ChunkWeights, before: State
) -> tuple[Float[Array, "chunks batch heads length v"], OutputScale]:
    """Pass 3: h and its scale."""
    m = jnp.maximum(jnp.max(weights.g, axis=-1), weights.start)
    m = m if weights.floor is None else jnp.maximum(m, weights.floor)
    w = jnp.exp(weights.g - m[..., None]) * jnp.einsum("...tk,...sk->...ts", x.q, x.k)
    p = jnp.exp(weights.start - m)
    numerator = jnp.einsum("...ts,...sv->...tv", w, x.v)
    numerator = numerator + p[..., None] * jnp.einsum("...tk,...kv->...tv", x.q, before.C)
    denominator = jnp.sum(w, axis=-1) + p * jnp.einsum("...tk,...k->...t", x.q, before.n)
    u, is_largest = matrix_memory.scale(denominator, m)
    return u[..., None] * numerator, OutputScale(m=m, u=u, sign=jnp.where(is_largest, jnp.sign(denominator), 0))


def inner_product(state: State | StateGradient, d_state: State | StateGradient) -> Array:
    """⟨C, ∂C⟩ + ⟨n, ∂n⟩, the gradient of the logarithm of a factor of both."""
    return jnp.sum(state[0] * d_state[0], axis=(-2, -1)) + jnp.sum(state[1] * d_state[1], axis=-1)


class OutputGradient(NamedTuple):
    """Of pass 3."""

    x: Inputs  # without i, which is k · ∂k: `chunk_update_backward` adds it
    before: StateGradient  # of (C, n) before each chunk
    m: Gate  # at each position, through ε


def outputs_backward(
    x: Inputs,
    weights: ChunkWeights,
    before: State,
    scale: OutputScale,
    d_h: Float[Array, "chunks batch heads length v"],
) -> OutputGradient:
    """The gradient of pass 3."""
    a = scale.u[..., None] * jnp.exp(weights.g - scale.m[..., None])
    p = scale.u * jnp.exp(weights.start - scale.m)
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
        i=jnp.zeros_like(x.i),
        log_f=jnp.where(scale.sign == 0, d_h_h, -d_m),  # of F_t: (1 − σ u d) (∂h · h), and σ u d = 1 − ε u
    )
    pq = p[..., None] * x.q
    d_n = jnp.einsum("...tk,...t->...k", pq, d_sum)
    return OutputGradient(d_x, (jnp.einsum("...tk,...tv->...kv", pq, d_h), d_n), d_m)


def boundary_states_backward(
    d_last: StateGradient, old: PerChunk, d_before: StateGradient
) -> tuple[StateGradient, StateGradient]:
    """The gradient of pass 2: of (C, n) before the first chunk, and of those after each one, stacked.

    Args:
        d_last: of the state after the last chunk.
        old: the factor of the state before each chunk in that after it.
        d_before: of the states before each chunk, by way of the outputs.
    """

    def body(d_after: StateGradient, chunk: tuple[Array, StateGradient]) -> tuple[StateGradient, StateGradient]:
        old, (d_C, d_n) = chunk
        return (old[..., None, None] * d_after[0] + d_C, old[..., None] * d_after[1] + d_n), d_after

    return jax.lax.scan(body, d_last, (old, d_before), reverse=True)


def chunk_update_backward(
    x: Inputs, d_x: Inputs, before: State, d_after: StateGradient, old: PerChunk, new: Gate
) -> Inputs:
    """The gradient of pass 1, added to `d_x`, that of pass 3.

    Args:
        x: the inputs.
        d_x: their gradient by way of the outputs.
        before: the states before each chunk.
        d_after: the gradient of those after each.
        old: the factor of `before` in the state after a chunk.
        new: the factor of each position in it.
    """
    d_C, d_n = d_after
    d_k = new[..., None] * (jnp.einsum("...sv,...kv->...sk", x.v, d_C) + d_n[..., None, :])
    d_v = new[..., None] * jnp.einsum("...sk,...kv->...sv", x.k, d_C)
    within, to_end = jnp.sum(x.k * d_x.k, axis=-1), jnp.sum(x.k * d_k, axis=-1)
    log_f = jax.lax.cumsum(d_x.log_f - within, axis=3, reverse=True) + jnp.cumsum(to_end, axis=-1) - to_end
    log_f = log_f + (old * inner_product(before, d_after))[..., None]
    return Inputs(q=d_x.q, k=d_x.k + d_k, v=d_x.v + d_v, i=within + to_end, log_f=log_f)
