"""What the forward and the backward kernel have in common."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.experimental.pallas as pl
import jax.experimental.pallas.mosaic_gpu as mosaic_gpu
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from qlstm_jax.cells.common.recurrence.kernel.support import ROWS, TILE

plgpu: Any = mosaic_gpu  # its types differ between versions of JAX


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
    dtype: jnp.dtype  # of h and of products

    @property
    def groups(self) -> int:
        """Warpgroups of a block."""
        return self.size // ROWS

    def tokens(self, *lead: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
        """(T, N, ..., K, B)."""
        return jax.ShapeDtypeStruct((self.steps, self.heads, *lead, self.size, self.batch), dtype)

    def carry(self, *lead: int) -> jax.ShapeDtypeStruct:
        """(N, ..., K, B)."""
        return jax.ShapeDtypeStruct((self.heads, *lead, self.size, self.batch), jnp.float32)


def kernel_layouts(kernel: Array, dtype: Any) -> tuple[Array, Array]:
    """The rows that each warpgroup multiplies with, of U (N, K, M, K).

    Returns:
        Uᵀ for the forward kernel (N, groups, M·ROWS, K), in `dtype`, and U for the backward kernel
        (N, groups, ROWS, M·K), in bfloat16.
    """
    heads, size, columns, _ = kernel.shape
    groups = size // ROWS
    forward = kernel.astype(dtype).reshape(heads, size, columns, groups, ROWS).transpose(0, 3, 2, 4, 1)
    backward = kernel.astype(jnp.bfloat16).reshape(heads, groups, ROWS, columns * size)
    return forward.reshape(heads, groups, columns * ROWS, size), backward


class Place:
    """Which units and sequences this warpgroup has, and how it reads and writes them."""

    def __init__(self) -> None:
        self.group = lax.axis_index("group")
        self.head = lax.axis_index("head")
        self.rows = pl.ds(self.group * ROWS, ROWS)
        self.columns = pl.ds(lax.axis_index("tile") * TILE, TILE)

    def load(self, ref: Any, *at: Any) -> Array:
        """(ROWS, TILE) of (*at, K, B)."""
        part = ref.at[(*at, self.rows, self.columns)]
        value: Array = plgpu.load(part, layout=plgpu.Layout.WGMMA, optimized=False)
        return value

    def row(self, ref: Any, i: int) -> Array:
        """(ROWS, TILE) of (N, ·, K), the same for each sequence, or of (N, ·, K, B)."""
        if len(ref.shape) == 4:
            return self.load(ref, self.head, i)
        layout = plgpu.Layout.WGMMA.reduce(1)
        value = plgpu.load(ref.at[self.head, i, self.rows], layout=layout, optimized=False)
        return lax.broadcast_in_dim(value, (ROWS, TILE), (0,))

    def mask(self, ref: Any, t: Any) -> Array | None:
        """(ROWS, TILE) of (T, B), or None where there is no mask."""
        if ref is None:
            return None
        row = plgpu.load(ref.at[t, self.columns], layout=plgpu.Layout.WGMMA.reduce(0), optimized=False)
        return lax.broadcast_in_dim(row, (ROWS, TILE), (1,)) > 0

    def store(self, ref: Any, value: Array, *at: Any) -> None:
        """Writes (ROWS, TILE) of (*at, K, B)."""
        ref[(*at, self.rows, self.columns)] = value.astype(ref.dtype)


def launch(
    plan: Plan, body: Callable[..., None], inputs: list[Any], outputs: list[Any], scratch: list[Any]
) -> list[Any]:
    """Runs `body` for each head and tile of the batch; an input or output may be None, and is so to `body`.

    Args:
        body: gets the inputs, the outputs, the scratch, a barrier for each warpgroup and one for all of them.
    """
    present = [a is not None for a in (*inputs, *outputs)]

    def whole(*refs: Any) -> None:
        rest = iter(refs)
        operands = [next(rest) if there else None for there in present]
        body(operands[: len(inputs)], operands[len(inputs) :], *rest)

    run = plgpu.kernel(
        whole,
        out_type=[a for a in outputs if a is not None],
        scratch_types=[*scratch, plgpu.Barrier(num_barriers=plan.groups), plgpu.Barrier(num_arrivals=plan.groups)],
        grid=(plan.heads, plan.batch // TILE),
        grid_names=("head", "tile"),
        num_threads=plan.groups,
        thread_name="group",
        compiler_params=plgpu.CompilerParams(unsafe_no_auto_barriers=True, approx_math=True),
    )
    results = iter(run(*(a for a in inputs if a is not None)))
    return [None if a is None else next(results) for a in outputs]


def products(kernel: Any, columns: Any, count: int) -> list[Array]:
    """Products (ROWS, TILE) of `count` times ROWS rows of kernel (count·ROWS, depth), and of columns (TILE, depth)."""

    def run(*sums: Any) -> list[Array]:
        for i, total in enumerate(sums):
            plgpu.wgmma(total, kernel.at[i * ROWS : (i + 1) * ROWS], columns.transpose((1, 0)))
        return [total[...] for total in sums]

    return list(pl.run_scoped(run, *[plgpu.ACC((ROWS, TILE), jnp.float32)] * count))


def share(ref: Any, rows: Any, value: Array) -> None:
    """Writes value (ROWS, TILE) into rows of ref, which is transposed: (TILE, K)."""
    ref.at[:, rows].transpose((1, 0))[...] = value.astype(ref.dtype)


def where(ok: Array | None, new: Any, old: Any) -> Any:
    """`new` where `ok`, else `old`; None is true everywhere."""
    return new if ok is None else jax.tree.map(lambda n, o: jnp.where(ok, n, o), new, old)


def restart(reset: Array | None, tree: Any) -> Any:
    """0 where `reset`."""
    return tree if reset is None else jax.tree.map(lambda a: jnp.where(reset, jnp.zeros_like(a), a), tree)
