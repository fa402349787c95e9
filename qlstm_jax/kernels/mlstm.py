"""The matrix memory in chunks: equal to `qlstm_jax.unroll.matrix_memory.parallel`, in time and memory linear in T.

A chunk of L positions is an L x L block of the parallel form, and what came before it is its initial state. Of three
passes only the second is sequential, and it is small:

    1. what each chunk adds to the state, from its own positions alone
    2. the state at each boundary:  m' = max(F + m, m_add);  C' = exp(F + m − m') C + exp(m_add − m') C_add, n alike
    3. the outputs of each chunk, from its positions and the state before it

Passes 1 and 3 take as many chunks at once as fill a cache; a scan goes over such groups. The gradient is written out
and goes the same way backwards. It keeps the states at the boundaries and three numbers a position, and computes the
L x L blocks anew. With u = 1 / (max(|d|, exp(−m)) + ε), h = u N, and σ = sign(d) where |d| is the maximum, else 0:

    ∂N = u ∂h;   ∂d = −σ u (∂h · h);   and in the weights of v_s, as they are before any m is subtracted:
    Σ_s ∂g_ts = q_t · ∂q_t = (1 − σ u d) (∂h · h);   Σ_t ∂g_ts = k_s · ∂k_s

the last two because a weight and its q or k are factors of the same product. h changes with m by way of ε alone, so
what reaches m_t is −ε u (∂h · h); `_through_maximum` takes it to the gate that was the larger one.

Axes: G groups, c chunks of one, B batch, N heads, L positions of a chunk, K key size, V value size.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from qlstm_jax.unroll import matrix_memory
from qlstm_jax.unroll.matrix_memory import EPSILON, NEVER, Inputs, State

# Numbers in the L x L blocks of one group: half a MiB in float32, so that several such arrays stay in a CPU's cache.
GROUP = 2**17


def chunkwise(q, k, v, i, f, state: State | None = None, *, lengths=None, resets=None, chunk_size: int = 64):
    """The matrix memory over a sequence; arguments and result as of `matrix_memory.recurrent`.

    Args:
        q, k, v, i, f, state, lengths, resets: as there.
        chunk_size: positions in a chunk, at most. Time grows with it where it is large, memory where it is small.

    Raises:
        ValueError: if the shapes do not fit each other, or chunk_size is not a positive integer.
    """
    if isinstance(chunk_size, bool) or not isinstance(chunk_size, int) or chunk_size < 1:
        raise ValueError(f"chunk_size is {chunk_size!r}; expected a positive integer")
    state = matrix_memory.check(q, k, v, i, f, state, lengths, resets)
    batch, steps, heads = q.shape[:3]
    if steps == 0:
        return v, state
    x, resets, valid = matrix_memory.prepare(q, k, v, i, f, state, lengths, resets)
    sizes = _split(steps, chunk_size, batch * heads)
    more = sizes[0] * sizes[1] * sizes[2] - steps
    x = Inputs(*(_padded(a, more) for a in x[:3]), i=_padded(x.i, more, NEVER), log_f=_padded(x.log_f, more))
    state = matrix_memory.varying(state, x)
    h, state = _run(sizes, x, None if resets is None else _padded(resets, more), state)
    return matrix_memory.cleared(h[:, :steps].astype(v.dtype), valid), state


def _split(steps: int, chunk_size: int, rows: int) -> tuple[int, int, int]:
    """(G, c, L), about equal parts with G·c·L >= steps."""
    chunks = -(-steps // chunk_size)
    groups = -(-chunks // max(1, GROUP // max(1, rows * min(steps, chunk_size) ** 2)))
    chunks = -(-chunks // groups)
    return groups, chunks, -(-steps // (groups * chunks))


def _padded(a, more: int, fill=0):
    return jnp.pad(a, [(0, 0), (0, more)] + [(0, 0)] * (a.ndim - 2), constant_values=fill) if more else a


def _take(sizes, tree, number):
    """Group `number` of arrays (B, T, N, ...) as (c, B, N, L, ...), and of (B, T) as (c, B, L)."""
    _, chunks, length = sizes

    def take(a):
        a = jax.lax.dynamic_slice_in_dim(a, number * chunks * length, chunks * length, axis=1)
        a = a.reshape(a.shape[0], chunks, length, *a.shape[2:])
        return jnp.moveaxis(a, (0, 2), (1, 3) if a.ndim > 3 else (1, 2))

    return jax.tree.map(take, tree)


def _put(sizes, whole, parts, number):
    """Arrays (B, T, N, ...) with group `number` replaced by `parts` (c, B, N, L, ...)."""
    steps = sizes[1] * sizes[2]

    def put(all_, part):
        part = jnp.moveaxis(part, (1, 3), (0, 2))
        part = part.reshape(part.shape[0], steps, *part.shape[3:])
        return jax.lax.dynamic_update_slice_in_dim(all_, part, number * steps, axis=1)

    return jax.tree.map(put, whole, parts)


class Ends(NamedTuple):
    """Logarithms of the weights with which the state after a chunk is made; NEVER where there is none."""

    write: jax.Array  # (c, B, N, L), of each position
    keep: jax.Array  # (c, B, N), of the state before
    floor: jax.Array  # (c, B, N), of the empty state of a document that began in the chunk


def _ends(i, log_f, resets) -> Ends:
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


def _add(x: Inputs, ends: Ends) -> State:
    """Pass 1: what each chunk adds to the state."""
    m = jnp.maximum(jnp.max(ends.write, axis=-1), ends.floor)
    k = jnp.exp(ends.write - m[..., None])[..., None] * x.k
    return State(C=jnp.einsum("...sk,...sv->...kv", k, x.v), n=jnp.sum(k, axis=-2), m=m)


def _boundaries(state: State, keep, added: State):
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


def _within(i, log_f, resets, m) -> Within:
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


def _output(x: Inputs, within: Within, before: State):
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


def _group(sizes, x, resets, number):
    """Group `number`, with k̂ for k."""
    x, resets = _take(sizes, (x, resets), number)
    return x._replace(k=x.k * x.k.shape[-1] ** -0.5), resets


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _run(sizes, x: Inputs, resets, state: State):
    return _forward(sizes, x, resets, state)[0]


def _forward(sizes, whole, resets_of_all, state):
    def group(carry, number):
        state, outputs = carry
        x, resets = _group(sizes, whole, resets_of_all, number)
        ends = _ends(x.i, x.log_f, resets)
        state, before = _boundaries(state, ends.keep, _add(x, ends))
        outputs = _put(sizes, outputs, _output(x, _within(x.i, x.log_f, resets, before.m), before), number)
        return (state, outputs), before

    outputs = jnp.zeros_like(whole.v), Scale(*(jnp.zeros_like(whole.i) for _ in Scale._fields))
    (last, (h, scale)), before = jax.lax.scan(group, (state, outputs), jnp.arange(sizes[0]))
    return (h, last), (whole, resets_of_all, before, last, scale)


def _backward(sizes, saved, cotangents):
    whole, resets_of_all, before, last, scale = saved
    d_h, d_last = cotangents
    d_last = matrix_memory.varying(d_last, whole)

    def group(carry, inputs):
        d_state, after_m, outputs = carry
        number, before = inputs
        x, resets = _group(sizes, whole, resets_of_all, number)
        within = _within(x.i, x.log_f, resets, before.m)
        d_x, d_before, d_m = _output_backward(x, within, before, *_take(sizes, (scale, d_h), number))
        after_m = jnp.concatenate([before.m[1:], after_m[None]])
        ends = _ends(x.i, x.log_f, resets)
        old, new = jnp.exp(ends.keep + before.m - after_m), jnp.exp(ends.write - after_m[..., None])
        d_state, d_after = _boundaries_backward(d_state, old, d_before)
        d_x = _add_backward(x, d_x, before, d_after, old, new)
        outputs = _put(sizes, outputs, (d_x._replace(k=d_x.k * x.k.shape[-1] ** -0.5), d_m), number)
        return (d_state, before.m[0], outputs), None

    carry = (d_last.C, d_last.n), last.m, jax.tree.map(jnp.zeros_like, (whole, scale.m))
    (d_state, _, (d_x, d_m)), _ = jax.lax.scan(group, carry, (jnp.arange(sizes[0]), before), reverse=True)
    first = jax.tree.map(lambda a: a[0, 0], before)
    d_scale = d_last.m - _inner(last, d_last)
    d_i, d_log_f, d_first = _through_maximum(whole, resets_of_all, scale.m, first.m, d_m, d_scale)
    d_state = State(*d_state, m=d_first + _inner(first, d_state))
    return d_x._replace(i=d_x.i + d_i, log_f=d_x.log_f + d_log_f), None, d_state


def _inner(state, d_state):
    """⟨C, ∂C⟩ + ⟨n, ∂n⟩, what reaches the logarithm of both."""
    return jnp.sum(state[0] * d_state[0], axis=(-2, -1)) + jnp.sum(state[1] * d_state[1], axis=-1)


def _output_backward(x, within, before, scale, d_h):
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


def _boundaries_backward(d_last, old, d_before):
    """Of pass 2: what reaches (C, n) before the first chunk, and after each one, stacked."""

    def body(d_after, chunk):
        old, (d_C, d_n) = chunk
        return (old[..., None, None] * d_after[0] + d_C, old[..., None] * d_after[1] + d_n), d_after

    return jax.lax.scan(body, d_last, (old, d_before), reverse=True)


def _add_backward(x, d_x, before, d_after, old, new) -> Inputs:
    """Of pass 1, added to what reaches the inputs from pass 3."""
    d_C, d_n = d_after
    d_k = new[..., None] * (jnp.einsum("...sv,...kv->...sk", x.v, d_C) + d_n[..., None, :])
    d_v = new[..., None] * jnp.einsum("...sk,...kv->...sv", x.k, d_C)
    within, to_end = jnp.sum(x.k * d_x.k, axis=-1), jnp.sum(x.k * d_k, axis=-1)
    log_f = jax.lax.cumsum(d_x.log_f - within, axis=3, reverse=True) + jnp.cumsum(to_end, axis=-1) - to_end
    log_f = log_f + (old * _inner(before, d_after))[..., None]
    return Inputs(q=d_x.q, k=d_x.k + d_k, v=d_x.v + d_v, i=within + to_end, log_f=log_f)


def _through_maximum(x, resets, m, first_m, d_m, d_last):
    """What reaches i, log_f and the first m by way of m_t = max(log_f_t + m_{t-1}, i_t), half each if equal.

    Args:
        x, resets: of all positions.
        m, d_m: (B, T, N), and what reaches m at each position.
        first_m, d_last: (B, N), the m before the first position, and what reaches that of the last state besides.
    """
    old = jnp.concatenate([first_m[:, None], m[:, :-1]], axis=1)
    same = 1 if resets is None else (1 - resets.astype(m.dtype))[:, :, None]
    kept = jnp.heaviside(x.log_f + same * old - x.i, jnp.full((1, 1, 1), 0.5, m.dtype))
    on = jnp.concatenate([(kept * same)[:, 1:], jnp.zeros_like(m[:, :1])], axis=1)

    def join(later, earlier):
        return later[0] * earlier[0], later[1] * earlier[0] + earlier[1]

    _, mass = jax.lax.associative_scan(join, (on, d_m.at[:, -1].add(d_last)), reverse=True, axis=1)
    return (1 - kept) * mass, kept * mass, (kept * same * mass)[:, 0]


_run.defvjp(_forward, _backward)
