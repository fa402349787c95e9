"""The matrix memory in chunks: equal to `qlstm_jax.cells.mlstm.matrix_memory.parallel`, in time and memory linear in T.

A chunk of L positions is an L x L block of the parallel form, with the state before it as its initial state. Of three
passes only the second is sequential, and it is small:

    1. what each chunk adds to the state, from its own positions alone
    2. the state at each boundary
    3. the outputs of each chunk, from its positions and the state before it

`chunks` implements the passes. Here a scan goes over groups of as many chunks as fit a cache. The gradient is a custom
one in the same form: it stores the states at the boundaries and three numbers a position, and recomputes the L x L
blocks. `_stabiliser_backward` has the gradient of m.

Axes: G groups, c chunks of one, B batch, N heads, L positions of a chunk, K key size, V value size.
"""

from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from qlstm_jax.cells import common
from qlstm_jax.cells.mlstm import chunks as passes
from qlstm_jax.cells.mlstm.inputs import LOG_ZERO, Inputs, State, check_inputs, hide_constants, prepare

# Numbers in the L x L blocks of one group: half a MiB in float32, so that several such arrays fit a CPU's cache.
GROUP = 2**17

Tree = TypeVar("Tree")
Gate = Float[Array, "batch time heads"]
Starts = Bool[Array, "batch time"] | None  # where a new document begins


class Sizes(NamedTuple):
    """How a sequence is split: G·c·L positions."""

    groups: int  # G
    chunks: int  # c
    length: int  # L


def chunkwise(
    q: Float[Array, "batch time heads k"],
    k: Float[Array, "batch time heads k"],
    v: Float[Array, "batch time heads v"],
    i: Gate,
    f: Gate,
    state: State | None = None,
    *,
    seq_lengths: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    chunk_size: int = 64,
) -> tuple[State, Float[Array, "batch time heads v"]]:
    """The matrix memory over a sequence; arguments and result as of `matrix_memory.recurrent`.

    Args:
        q, k, v, i, f, state, seq_lengths, resets: as there.
        chunk_size: positions in a chunk, at most. Time grows with it where it is large, memory where it is small.

    Raises:
        ValueError: if the shapes do not fit each other, or chunk_size is not a positive integer.
    """
    common.check_sizes(chunk_size=chunk_size)
    state = check_inputs(q, k, v, i, f, state, seq_lengths, resets)
    batch, steps, heads = q.shape[:3]
    if steps == 0:
        return state, v
    x, starts, valid = prepare(q, k, v, i, f, state, seq_lengths, resets)
    sizes = _split(steps, chunk_size, batch * heads)
    more = sizes.groups * sizes.chunks * sizes.length - steps
    x = Inputs(
        q=_padded(x.q, more),
        k=_padded(x.k, more),
        v=_padded(x.v, more),
        i=_padded(x.i, more, LOG_ZERO),
        log_f=_padded(x.log_f, more),
    )
    starts = None if starts is None else _padded(starts, more)
    x, starts, state = common.varying_as((x, starts, hide_constants(state, x)), (x, starts, state))
    state, h = _run(sizes, x, starts, state)
    return state, common.zero_padding(h[:, :steps].astype(v.dtype), valid)


def _split(steps: int, chunk_size: int, rows: int) -> Sizes:
    """About equal parts with G·c·L >= steps; of symbolic numbers, chunks of chunk_size one after another."""
    if not isinstance(steps, int) or not isinstance(rows, int):
        return Sizes(-(-steps // chunk_size), 1, chunk_size)
    chunks = -(-steps // chunk_size)
    groups = -(-chunks // max(1, GROUP // max(1, rows * min(steps, chunk_size) ** 2)))
    chunks = -(-chunks // groups)
    return Sizes(groups, chunks, -(-steps // (groups * chunks)))


def _padded(a: Array, more: int, fill: float = 0) -> Array:
    if isinstance(more, int) and not more:
        return a
    return jnp.pad(a, [(0, 0), (0, more)] + [(0, 0)] * (a.ndim - 2), constant_values=fill)


def _read_group(sizes: Sizes, tree: Tree, number: Int[Array, ""]) -> Tree:
    """Group `number` of arrays (B, T, N, ...) as (c, B, N, L, ...), and of (B, T) as (c, B, L)."""
    _, chunks, length = sizes

    def read(a: Array) -> Array:
        a = jax.lax.dynamic_slice_in_dim(a, number * chunks * length, chunks * length, axis=1)
        a = a.reshape(a.shape[0], chunks, length, *a.shape[2:])
        return jnp.moveaxis(a, (0, 2), (1, 3) if a.ndim > 3 else (1, 2))

    group: Tree = jax.tree.map(read, tree)
    return group


def _write_group(sizes: Sizes, whole: Tree, group: Tree, number: Int[Array, ""]) -> Tree:
    """Arrays (B, T, N, ...) with group `number` replaced by `group` (c, B, N, L, ...)."""
    steps = sizes.chunks * sizes.length

    def write(all_: Array, part: Array) -> Array:
        part = jnp.moveaxis(part, (1, 3), (0, 2))
        part = part.reshape(part.shape[0], steps, *part.shape[3:])
        return jax.lax.dynamic_update_slice_in_dim(all_, part, number * steps, axis=1)

    written: Tree = jax.tree.map(write, whole, group)
    return written


def _inputs_of_group(sizes: Sizes, x: Inputs, resets: Starts, number: Int[Array, ""]) -> tuple[Inputs, passes.Starts]:
    """With k̂ for k."""
    x, resets = _read_group(sizes, (x, resets), number)
    return x._replace(k=x.k * x.k.shape[-1] ** -0.5), resets


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _run(sizes: Sizes, x: Inputs, resets: Starts, state: State) -> tuple[State, Float[Array, "batch time heads v"]]:
    return _forward(sizes, x, resets, state)[0]


class _Saved(NamedTuple):
    """The residuals of the gradient."""

    x: Inputs
    resets: Starts
    before: State  # each chunk, (G, c, ...)
    last: State
    scale: passes.OutputScale  # of all positions


def _forward(sizes: Sizes, x: Inputs, resets: Starts, state: State) -> tuple[tuple[State, Array], _Saved]:
    def run_group(carry: tuple[State, Any], number: Int[Array, ""]) -> tuple[tuple[State, Any], State]:
        state, outputs = carry
        group, starts = _inputs_of_group(sizes, x, resets, number)
        ends = passes.end_weights(group.i, group.log_f, starts)
        state, before = passes.boundary_states(state, ends.keep, passes.chunk_update(group, ends))
        weights = passes.chunk_weights(group.i, group.log_f, starts, before.m)
        outputs = _write_group(sizes, outputs, passes.outputs(group, weights, before), number)
        return (state, outputs), before

    scale = passes.OutputScale(*(jnp.zeros_like(x.i) for _ in passes.OutputScale._fields))
    outputs = common.varying_as((jnp.zeros_like(x.v), scale), x)
    (last, (h, scale)), before = jax.lax.scan(run_group, (state, outputs), jnp.arange(sizes.groups))
    return (last, h), _Saved(x, resets, before, last, scale)


def _backward(sizes: Sizes, saved: _Saved, cotangents: tuple[State, Array]) -> tuple[Inputs, None, State]:
    x, resets = saved.x, saved.resets
    d_last, d_h = cotangents
    d_last = hide_constants(d_last, x)

    def run_group(carry: Any, inputs: tuple[Int[Array, ""], State]) -> tuple[Any, None]:
        d_state, after_m, gradients = carry
        number, before = inputs
        group, starts = _inputs_of_group(sizes, x, resets, number)
        weights = passes.chunk_weights(group.i, group.log_f, starts, before.m)
        scale, d_h_group = _read_group(sizes, (saved.scale, d_h), number)
        d_x, d_before, d_m = passes.outputs_backward(group, weights, before, scale, d_h_group)
        after_m = jnp.concatenate([before.m[1:], after_m[None]])
        ends = passes.end_weights(group.i, group.log_f, starts)
        old, new = jnp.exp(ends.keep + before.m - after_m), jnp.exp(ends.write - after_m[..., None])
        d_state, d_after = passes.boundary_states_backward(d_state, old, d_before)
        d_x = passes.chunk_update_backward(group, d_x, before, d_after, old, new)
        d_x = d_x._replace(k=d_x.k * x.k.shape[-1] ** -0.5)
        return (d_state, before.m[0], _write_group(sizes, gradients, (d_x, d_m), number)), None

    zeros = jax.tree.map(jnp.zeros_like, (x, saved.scale.m))
    carry = common.varying_as(((d_last.C, d_last.n), saved.last.m, zeros), x)
    inputs = jnp.arange(sizes.groups), saved.before
    ((d_C, d_n), _, (d_x, d_m)), _ = jax.lax.scan(run_group, carry, inputs, reverse=True)
    first = State(*(a[0, 0] for a in saved.before))
    d_last_m = d_last.m - passes.inner_product(saved.last, d_last)
    d_i, d_log_f, d_first_m = _stabiliser_backward(x, resets, saved.scale.m, first.m, d_m, d_last_m)
    d_state = State(C=d_C, n=d_n, m=d_first_m + passes.inner_product(first, (d_C, d_n)))
    return d_x._replace(i=d_x.i + d_i, log_f=d_x.log_f + d_log_f), None, d_state


def _stabiliser_backward(
    x: Inputs,
    resets: Starts,
    m: Gate,
    first_m: Float[Array, "batch heads"],
    d_m: Gate,
    d_last: Float[Array, "batch heads"],
) -> tuple[Gate, Gate, Float[Array, "batch heads"]]:
    """The gradient of i, log_f and the first m through m_t = max(log_f_t + m_{t-1}, i_t), half each if equal.

    Args:
        x: the inputs at all positions.
        resets: where a document begins.
        m: at all positions.
        first_m: the m before the first position.
        d_m: the gradient of m at each position through the outputs.
        d_last: that of the last m through the last state.
    """
    old = jnp.concatenate([first_m[:, None], m[:, :-1]], axis=1)
    same = 1 if resets is None else (1 - resets.astype(m.dtype))[:, :, None]
    kept = jnp.heaviside(x.log_f + same * old - x.i, jnp.full((1, 1, 1), 0.5, m.dtype))
    on = jnp.concatenate([(kept * same)[:, 1:], jnp.zeros_like(m[:, :1])], axis=1)

    def combine(later: tuple[Array, Array], earlier: tuple[Array, Array]) -> tuple[Array, Array]:
        return later[0] * earlier[0], later[1] * earlier[0] + earlier[1]

    _, mass = jax.lax.associative_scan(combine, (on, d_m.at[:, -1].add(d_last)), reverse=True, axis=1)
    return (1 - kept) * mass, kept * mass, (kept * same * mass)[:, 0]


_run.defvjp(_forward, _backward)
