"""The recurrence as persistent kernels for NVIDIA GPUs from Hopper on, written in Pallas (Mosaic GPU).

A block of the kernel has one head and TILE sequences, and runs over all their tokens with U in its shared memory. Each
of its warpgroups has ROWS units of the head: it holds their gates' pre-activations, states and h in registers, and
shares h (forward) or da (backward) with the others through shared memory, twice, so that one barrier a token suffices.
Products are transposed, (Uᵀ hᵀ), for units are many and sequences few: no row is padded.

Arrays are "by unit": (N, M, K, T, B) with M columns of a unit's row, as a product Wᵀ xᵀ over all tokens gives them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.experimental.pallas as pl
import jax.experimental.pallas.mosaic_gpu as plgpu
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from qlstm_jax.cells.common.units import Parts

ROWS = 64  # hidden units of a warpgroup: the least that the instruction for products takes
TILE = 8  # sequences of a block: likewise


@dataclass(frozen=True)
class Plan:
    """What a kernel is made for."""

    heads: int  # N
    columns: int  # M, of a unit's row
    size: int  # K, a multiple of ROWS
    steps: int  # T
    batch: int  # B, a multiple of TILE
    separate: int  # columns, the last ones, whose two products are not added
    states: int  # arrays of state
    weights: int  # arrays of weights
    valid: bool
    resets: bool
    dtype: jnp.dtype
    options: frozenset[str] = frozenset()

    @property
    def groups(self) -> int:
        """Warpgroups of a block."""
        return self.size // ROWS

    def by_unit(self, *lead: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
        """(N, ..., K, T, B)."""
        return jax.ShapeDtypeStruct((self.heads, *lead, self.size, self.steps, self.batch), dtype)

    def carry(self, *lead: int) -> jax.ShapeDtypeStruct:
        """(N, ..., K, B)."""
        return jax.ShapeDtypeStruct((self.heads, *lead, self.size, self.batch), jnp.float32)


class _Place:
    """Which units and sequences this warpgroup has, and how it reads and writes them."""

    def __init__(self) -> None:
        self.group = lax.axis_index("group")
        self.head = lax.axis_index("head")
        self.rows = pl.ds(self.group * ROWS, ROWS)
        self.columns = pl.ds(lax.axis_index("tile") * TILE, TILE)

    def load(self, ref: Any, *at: Any) -> Array:
        """(ROWS, TILE) of (N, *at, K, B) or, with a slice for K and a token at the end of `at`, (..., K, T, B)."""
        value: Array = plgpu.load(ref.at[self.head, *at, self.columns], layout=plgpu.Layout.WGMMA, optimized=False)
        return value

    def row(self, ref: Any, i: int) -> Array:
        """(ROWS, TILE) of (N, ·, K), the same for each sequence, or of (N, ·, K, B)."""
        if len(ref.shape) == 4:
            return self.load(ref, i, self.rows)
        layout = plgpu.Layout.WGMMA.reduce(1)
        value = plgpu.load(ref.at[self.head, i, self.rows], layout=layout, optimized=False)
        return lax.broadcast_in_dim(value, (ROWS, TILE), (0,))

    def mask(self, ref: Any, t: Any) -> Array:
        """(ROWS, TILE) of (T, B)."""
        row = plgpu.load(ref.at[t, self.columns], layout=plgpu.Layout.WGMMA.reduce(0), optimized=False)
        return lax.broadcast_in_dim(row, (ROWS, TILE), (1,)) > 0

    def store(self, ref: Any, value: Array, *at: Any) -> None:
        ref[self.head, *at, self.columns] = value.astype(ref.dtype)


def _launch(plan: Plan, body: Callable[..., None], outputs: list[Any], scratch: list[Any], operands: list[Array]) -> Any:
    barriers = [plgpu.Barrier(num_barriers=plan.groups), plgpu.Barrier(num_arrivals=plan.groups)]
    return plgpu.kernel(
        body,
        out_type=outputs,
        scratch_types=scratch + barriers,
        grid=(plan.heads, plan.batch // TILE),
        grid_names=("head", "tile"),
        num_threads=plan.groups,
        thread_name="group",
        compiler_params=plgpu.CompilerParams(unsafe_no_auto_barriers=True, approx_math=not plan.options.isdisjoint({"fast", "approximate"})),
    )(*operands)


def _operand(plan: Plan, kernel: Any, group: Any) -> Any:
    """This warpgroup's rows of U: in shared memory, or with the option "registers" in registers."""
    rows = kernel.at[group]
    return plgpu.load(rows, layout=plgpu.Layout.WGMMA, optimized=False) if "registers" in plan.options else rows


def _products(kernel: Any, columns: Any, count: int) -> list[Array]:
    """Products (ROWS, TILE) of `count` times ROWS rows of kernel, (count·ROWS, depth), and columnsᵀ, (TILE, depth)."""

    def run(*sums: Any) -> list[Array]:
        for i, total in enumerate(sums):
            rows = slice(i * ROWS, (i + 1) * ROWS)
            plgpu.wgmma(total, kernel[rows] if isinstance(kernel, jax.Array) else kernel.at[rows], columns.transpose((1, 0)))
        return [total[...] for total in sums]

    return list(pl.run_scoped(run, *[plgpu.ACC((ROWS, TILE), jnp.float32)] * count))


def _share(ref: Any, rows: Any, value: Array) -> None:
    """Writes value (ROWS, TILE) into ref (TILE, K)."""
    ref.at[:, rows].transpose((1, 0))[...] = value.astype(ref.dtype)


def _where(ok: Array | None, new: Any, old: Any) -> Any:
    return new if ok is None else jax.tree.map(lambda n, o: jnp.where(ok, n, o), new, old)


def _restart(reset: Array | None, tree: Any) -> Any:
    return tree if reset is None else jax.tree.map(lambda a: jnp.where(reset, jnp.zeros_like(a), a), tree)


def forward(
    plan: Plan,
    gates: Callable[..., list[Parts]],
    kernel: Array,
    z: Array,
    bias: Array,
    recurrent_bias: Array | None,
    weights: Array | None,
    h: Array,
    states: Array | None,
    valid: Array | None,
    resets: Array | None,
    *,
    keep: bool,
) -> list[Array]:
    """Runs over all tokens.

    Args:
        gates: Parts of each weight, of the pre-activations and of each state, to Parts of h and of each state.
        kernel: U (N, K, M, K), the last axis that of the pre-activations' units.
        z: x W (N, M, K, T, B).
        bias: (N, M, K), or (N, M, K, B).
        recurrent_bias: (N, S, K) for S separate columns.
        weights: (N, weights, K).
        h: (N, K, B).
        states: (N, states, K, B).
        valid, resets: (T, B), 0 or 1.

    Returns:
        hs (N, K, T, B), the last h, the last states, and if `keep` pre-activations (N, M + S, K, T, B) and the states
        before each token (N, states, K, T, B); what there is none of is left out.
    """
    groups, columns, size = plan.groups, plan.columns, plan.size
    # (N, groups, M·ROWS, K): the rows of Uᵀ that each warpgroup has
    kernel = kernel.reshape(plan.heads, size, columns, groups, ROWS).transpose(0, 3, 2, 4, 1)
    kernel = kernel.reshape(plan.heads, groups, columns * ROWS, size)
    given = [kernel, z, bias, recurrent_bias, weights, h, states, valid, resets]
    outputs = [plan.by_unit(dtype=plan.dtype), plan.carry(), plan.carry(plan.states) if plan.states else None]
    if keep:
        outputs.append(plan.by_unit(columns + plan.separate))
        outputs.append(plan.by_unit(plan.states) if plan.states else None)
    scratch = [plgpu.SMEM((groups, columns * ROWS, size), plan.dtype), plgpu.SMEM((2, TILE, size), plan.dtype)]
    present = [a is not None for a in given + outputs]

    def body(*refs: Any) -> None:
        rest = iter(refs)
        operands = [next(rest) if there else None for there in present]
        _forward_body(plan, gates, operands[: len(given)], operands[len(given) :], *rest)

    results = _launch(plan, body, [a for a in outputs if a is not None], scratch, [a for a in given if a is not None])
    return list(results)


def _forward_body(
    plan: Plan, gates: Any, inputs: list[Any], outputs: list[Any], kernel: Any, shared: Any, loaded: Any, ready: Any
) -> None:
    kernel_gmem, z_ref, bias_ref, recurrent_bias_ref, weights_ref, h_ref, states_ref, valid_ref, resets_ref = inputs
    hs_ref, last_h_ref, last_states_ref, kept_a, kept_states = (*outputs, None, None)[:5]
    place, columns, joined = _Place(), plan.columns, plan.columns - plan.separate
    rows = place.rows
    plgpu.copy_gmem_to_smem(kernel_gmem.at[place.head, place.group], kernel.at[place.group], loaded.at[place.group])
    bias = [place.row(bias_ref, m) for m in range(columns)]
    extra = None
    if recurrent_bias_ref is not None:
        extra = [place.row(recurrent_bias_ref, m) for m in range(plan.separate)]
    weights = [(place.row(weights_ref, i),) for i in range(plan.weights)]
    h = place.load(h_ref, rows).astype(plan.dtype)
    states = [place.load(states_ref, i, rows) for i in range(plan.states)]

    def token_inputs(t: Any) -> Any:
        z = [place.load(z_ref, m, rows, t) for m in range(columns)]
        return z, *(None if r is None else place.mask(r, t) for r in (valid_ref, resets_ref))

    def share(slot: Any, h: Array) -> None:
        _share(shared.at[slot], rows, h)
        plgpu.commit_smem()
        plgpu.barrier_arrive(ready)

    def token(t: Any, carry: Any) -> Any:
        h, states, (z, ok, reset) = carry
        if "prefetch" in plan.options:
            later = jnp.minimum(t + 4, plan.steps - 1)
            for m in range(columns):
                plgpu.async_prefetch(z_ref.at[place.head, m, rows, later, place.columns])
        coming = token_inputs(jnp.minimum(t + 1, plan.steps - 1))
        plgpu.barrier_wait(ready)
        u = _products(operand, shared.at[lax.rem(t, 2)], columns)
        z = [a + b for a, b in zip(z, bias, strict=True)]
        row = [z[m] + u[m] for m in range(joined)]
        start = _restart(reset, states)
        if plan.separate:
            apart = [u[joined + m] + (extra[m] if extra else 0) for m in range(plan.separate)]
            new = gates(*weights, tuple(row), tuple(z[joined:]), tuple(apart), *((s,) for s in start))
            row += z[joined:] + apart
        else:
            new = gates(*weights, tuple(row), *((s,) for s in start))
        new_h, *new_states = [a for (a,) in new]
        h, states = _where(ok, (new_h.astype(plan.dtype), new_states), (h, states))
        share(lax.rem(t + 1, 2), _restart(coming[2], h))
        place.store(hs_ref, h, rows, t)
        if kept_a is not None:
            for m, a in enumerate(row):
                place.store(kept_a, a, m, rows, t)
            for i, s in enumerate(start):
                place.store(kept_states, s, i, rows, t)
        return h, states, coming

    first = token_inputs(0)
    share(0, _restart(first[2], h))
    plgpu.barrier_wait(loaded.at[place.group])
    operand = _operand(plan, kernel, place.group)
    h, states, _ = lax.fori_loop(0, plan.steps, token, (h, states, first))
    plgpu.barrier_wait(ready)
    place.store(last_h_ref, h, rows)
    for i, s in enumerate(states):
        place.store(last_states_ref, s, i, rows)


def backward(
    plan: Plan,
    residuals: Callable[..., list[Parts]],
    pull: Callable[..., list[Parts]],
    kernel: Array,
    weights: Array | None,
    a: Array,
    states: Array | None,
    valid: Array | None,
    resets: Array | None,
    dhs: Array,
    dh: Array,
    dstates: Array | None,
) -> list[Array]:
    """Runs over all tokens from the last one.

    Args:
        residuals: Parts of weights, pre-activations and states, to Parts of what `pull` needs of them.
        pull: Parts of those, of the gradient of h and of those of the states, to Parts of the gradients of weights,
            pre-activations and states.
        kernel: U (N, K, M, K), the last axis that of the pre-activations' units.
        weights, a, states, valid, resets: as `forward` gets and keeps them.
        dhs: the gradient of hs (N, K, T, B).
        dh, dstates: of the last h (N, K, B) and the last states (N, states, K, B).

    Returns:
        the gradients of pre-activations (N, M + S, K, T, B), of the first h and of the first states, and that of the
        weights (N, weights, K, B), of each sequence; what there is none of is left out.
    """
    groups, columns, size = plan.groups, plan.columns, plan.size
    kernel = kernel.reshape(plan.heads, groups, ROWS, columns * size)
    given = [kernel, weights, a, states, valid, resets, dhs, dh, dstates]
    outputs = [plan.by_unit(columns + plan.separate, dtype=plan.dtype), plan.carry()]
    outputs.append(plan.carry(plan.states) if plan.states else None)
    outputs.append(plan.carry(plan.weights) if plan.weights else None)
    scratch = [plgpu.SMEM((groups, ROWS, columns * size), plan.dtype)]
    scratch.append(plgpu.SMEM((2, TILE, columns * size), plan.dtype))
    present = [x is not None for x in given + outputs]

    def body(*refs: Any) -> None:
        rest = iter(refs)
        operands = [next(rest) if there else None for there in present]
        _backward_body(plan, residuals, pull, operands[: len(given)], operands[len(given) :], *rest)

    results = _launch(plan, body, [x for x in outputs if x is not None], scratch, [x for x in given if x is not None])
    return list(results)


def _backward_body(
    plan: Plan,
    residuals: Any,
    pull: Any,
    inputs: list[Any],
    outputs: list[Any],
    kernel: Any,
    shared: Any,
    loaded: Any,
    ready: Any,
) -> None:
    kernel_gmem, weights_ref, a_ref, states_ref, valid_ref, resets_ref, dhs_ref, dh_ref, dstates_ref = inputs
    da_ref, first_dh_ref, first_dstates_ref, dweights_ref = outputs
    place, columns, joined = _Place(), plan.columns, plan.columns - plan.separate
    rows = place.rows
    plgpu.copy_gmem_to_smem(kernel_gmem.at[place.head, place.group], kernel.at[place.group], loaded.at[place.group])
    weights = [(place.row(weights_ref, i),) for i in range(plan.weights)]
    dh = place.load(dh_ref, rows)
    dstates = [place.load(dstates_ref, i, rows) for i in range(plan.states)]

    def token_inputs(t: Any) -> Any:
        a = [place.load(a_ref, m, rows, t) for m in range(columns + plan.separate)]
        states = [place.load(states_ref, i, rows, t) for i in range(plan.states)]
        masks = (None if r is None else place.mask(r, t) for r in (valid_ref, resets_ref))
        return a, states, place.load(dhs_ref, rows, t), *masks

    def token(step: Any, carry: Any) -> Any:
        t = plan.steps - 1 - step
        dh, dstates, dweights, (a, states, dy, ok, reset) = carry
        coming = token_inputs(jnp.maximum(t - 1, 0))
        row = [tuple(a)]
        if plan.separate:
            row = [tuple(a[:joined]), tuple(a[joined:columns]), tuple(a[columns:])]
        kept = residuals(*weights, *row, *((s,) for s in states))
        given = [dh + dy.astype(jnp.float32), *dstates]
        given = _where(ok, given, [jnp.zeros_like(d) for d in given])
        gradients = pull(*kept, *((d,) for d in given))
        dweights = [d + new for d, (new,) in zip(dweights, gradients, strict=False)]
        rest = gradients[len(dweights) :]
        da = sum(rest[: len(row)], ())
        new_dstates = [d for (d,) in rest[len(row) :]]
        recurrent = da[:joined] + da[columns:] if plan.separate else da
        slot = lax.rem(step, 2)
        for m, d in enumerate(recurrent):
            _share(shared.at[slot], pl.ds(m * plan.size + place.group * ROWS, ROWS), d)
        plgpu.commit_smem()
        plgpu.barrier_arrive(ready)
        for m, d in enumerate(da):
            place.store(da_ref, d, m, rows, t)
        plgpu.barrier_wait(ready)
        (new_dh,) = _products(operand, shared.at[slot], 1)
        dh, dstates = _where(ok, _restart(reset, (new_dh, new_dstates)), (dh, dstates))
        return dh, dstates, dweights, coming

    zeros = [jnp.zeros_like(dh)] * plan.weights
    plgpu.barrier_wait(loaded.at[place.group])
    operand = _operand(plan, kernel, place.group)
    start = (dh, dstates, zeros, token_inputs(plan.steps - 1))
    dh, dstates, dweights, _ = lax.fori_loop(0, plan.steps, token, start)
    place.store(first_dh_ref, dh, rows)
    for ref, values in ((first_dstates_ref, dstates), (dweights_ref, dweights)):
        for i, value in enumerate(values):
            place.store(ref, value, i, rows)
