"""The matrix memory in chunks: equal to `qlstm_jax.cells.mlstm.matrix_memory.parallel`, in time and memory linear in T.

A chunk of L positions is an L x L block of the parallel form, and what came before it is its initial state. Of three
passes only the second is sequential, and it is small:

    1. what each chunk adds to the state, from its own positions alone
    2. the state at each boundary
    3. the outputs of each chunk, from its positions and the state before it

`chunks` has the passes. Here a scan goes over groups of as many chunks as fill a cache. The gradient is written
out and goes the same way backwards: it keeps the states at the boundaries and three numbers a position, and computes
the L x L blocks anew. What reaches m, `_through_maximum` takes to the gate that was the larger one.

Axes: G groups, c chunks of one, B batch, N heads, L positions of a chunk, K key size, V value size.
"""

from functools import partial

import jax
import jax.numpy as jnp

from qlstm_jax.cells.mlstm import chunks as passes
from qlstm_jax.cells.mlstm import matrix_memory
from qlstm_jax.cells.mlstm.matrix_memory import NEVER, Inputs, State

# Numbers in the L x L blocks of one group: half a MiB in float32, so that several such arrays stay in a CPU's cache.
GROUP = 2**17


def chunkwise(q, k, v, i, f, state: State | None = None, *, seq_lengths=None, resets=None, chunk_size: int = 64):
    """The matrix memory over a sequence; arguments and result as of `matrix_memory.recurrent`.

    Args:
        q, k, v, i, f, state, seq_lengths, resets: as there.
        chunk_size: positions in a chunk, at most. Time grows with it where it is large, memory where it is small.

    Raises:
        ValueError: if the shapes do not fit each other, or chunk_size is not a positive integer.
    """
    if isinstance(chunk_size, bool) or not isinstance(chunk_size, int) or chunk_size < 1:
        raise ValueError(f"chunk_size is {chunk_size!r}; expected a positive integer")
    state = matrix_memory.check(q, k, v, i, f, state, seq_lengths, resets)
    batch, steps, heads = q.shape[:3]
    if steps == 0:
        return state, v
    x, resets, valid = matrix_memory.prepare(q, k, v, i, f, state, seq_lengths, resets)
    sizes = _split(steps, chunk_size, batch * heads)
    more = sizes[0] * sizes[1] * sizes[2] - steps
    x = Inputs(*(_padded(a, more) for a in x[:3]), i=_padded(x.i, more, NEVER), log_f=_padded(x.log_f, more))
    state = matrix_memory.varying(state, x)
    state, h = _run(sizes, x, None if resets is None else _padded(resets, more), state)
    return state, matrix_memory.cleared(h[:, :steps].astype(v.dtype), valid)


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
        ends = passes.ends(x.i, x.log_f, resets)
        state, before = passes.boundaries(state, ends.keep, passes.add(x, ends))
        within = passes.within(x.i, x.log_f, resets, before.m)
        outputs = _put(sizes, outputs, passes.output(x, within, before), number)
        return (state, outputs), before

    numbers = passes.Scale(*(jnp.zeros_like(whole.i) for _ in passes.Scale._fields))
    outputs = jnp.zeros_like(whole.v), numbers
    (last, (h, scale)), before = jax.lax.scan(group, (state, outputs), jnp.arange(sizes[0]))
    return (last, h), (whole, resets_of_all, before, last, scale)


def _backward(sizes, saved, cotangents):
    whole, resets_of_all, before, last, scale = saved
    d_last, d_h = cotangents
    d_last = matrix_memory.varying(d_last, whole)

    def group(carry, inputs):
        d_state, after_m, outputs = carry
        number, before = inputs
        x, resets = _group(sizes, whole, resets_of_all, number)
        within = passes.within(x.i, x.log_f, resets, before.m)
        d_x, d_before, d_m = passes.output_backward(x, within, before, *_take(sizes, (scale, d_h), number))
        after_m = jnp.concatenate([before.m[1:], after_m[None]])
        ends = passes.ends(x.i, x.log_f, resets)
        old, new = jnp.exp(ends.keep + before.m - after_m), jnp.exp(ends.write - after_m[..., None])
        d_state, d_after = passes.boundaries_backward(d_state, old, d_before)
        d_x = passes.add_backward(x, d_x, before, d_after, old, new)
        outputs = _put(sizes, outputs, (d_x._replace(k=d_x.k * x.k.shape[-1] ** -0.5), d_m), number)
        return (d_state, before.m[0], outputs), None

    carry = (d_last.C, d_last.n), last.m, jax.tree.map(jnp.zeros_like, (whole, scale.m))
    (d_state, _, (d_x, d_m)), _ = jax.lax.scan(group, carry, (jnp.arange(sizes[0]), before), reverse=True)
    first = jax.tree.map(lambda a: a[0, 0], before)
    d_scale = d_last.m - passes.inner(last, d_last)
    d_i, d_log_f, d_first = _through_maximum(whole, resets_of_all, scale.m, first.m, d_m, d_scale)
    d_state = State(*d_state, m=d_first + passes.inner(first, d_state))
    return d_x._replace(i=d_x.i + d_i, log_f=d_x.log_f + d_log_f), None, d_state


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
