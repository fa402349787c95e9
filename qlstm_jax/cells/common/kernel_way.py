"""The recurrence through the kernels of `mosaic`, with a gradient: what `recurrence` does with way="kernel".

The kernels do what is sequential. Products with W, and those that give dU, dW and dx, are taken here for all tokens at
once. In the gradient da is rounded to bfloat16 as an operand of products, whatever 16-bit dtype activations have.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from qlstm_jax.cells.common import units

SHARED_BYTES = 227 * 1024  # of a multiprocessor of Hopper, as much as one block may use
ROWS, TILE = 64, 8  # as in `mosaic`, which is imported only where a kernel is run


def unsupported(kernel: jax.ShapeDtypeStruct | Array, dtype: Any, separate: int = 0) -> str | None:
    """Why the kernel cannot run a recurrence with this U and activations of `dtype`, or None if it can."""
    heads, size, columns = _shape(kernel)
    if jnp.dtype(dtype) not in (jnp.bfloat16, jnp.float16):
        return f"activations are {jnp.dtype(dtype).name}; expected bfloat16 or float16, as products are of 16 bit"
    if size % ROWS or size > 8 * ROWS:
        return f"a head has {size} units; expected a multiple of {ROWS}, at most {8 * ROWS}"
    if separate % (heads * size):
        return f"separate is {separate}; expected a multiple of the {size} units"
    need = 2 * columns * size * (size + 2 * TILE) + 1024
    if need > SHARED_BYTES:
        return (
            f"a head of {size} units and {columns} maps needs {need:,} bytes of shared memory and there are "
            f"{SHARED_BYTES:,}; expected smaller heads"
        )
    return None


def _shape(kernel: Any) -> tuple[int, int, int]:
    """(N, K, M) of U (H, M·H) or (N, K, M·K)."""
    heads = kernel.shape[0] if len(kernel.shape) == 3 else 1
    size = kernel.shape[-2]
    return heads, size, kernel.shape[-1] // size


class _Frame:
    """Shapes of a recurrence, and its arrays by unit: (N, ..., K, T, B), with B padded to whole tiles."""

    def __init__(self, gates: Callable[..., Any], separate: int, operands: Any, options: frozenset[str]):
        self.options, self.replace = options, units.FAST if "fast" in options else units.COARSE if "approximate" in options else {}
        self.gates, self.operands, kernel = gates, operands, operands.recurrent_kernel
        self.heads, self.size, self.columns = _shape(kernel)
        self.rank = kernel.ndim
        self.separate = separate // (self.heads * self.size)
        self.steps, self.batch = operands.xs.shape[:2]
        self.padded = -(-self.batch // TILE) * TILE
        self.dtype = operands.h.dtype

    def pad(self, a: Array, axis: int = -1) -> Array:
        """B to whole tiles."""
        widths = [(0, 0)] * a.ndim
        widths[axis] = (0, self.padded - self.batch)
        return jnp.pad(a, widths)

    def carry(self, a: Array) -> Array:
        """(B, H) to (N, K, B)."""
        return self.pad(a.T).reshape(self.heads, self.size, self.padded)

    def carry_back(self, a: Array) -> Array:
        return a.reshape(self.heads * self.size, self.padded)[:, : self.batch].T

    def columns_of(self, a: Array) -> Array:
        """(..., G), gates side by side and within a gate the heads, to (N, M, K, ...)."""
        a = a.reshape(*a.shape[:-1], -1, self.heads, self.size)
        order = a.ndim - 2, a.ndim - 3, a.ndim - 1, *range(a.ndim - 3)
        return a.transpose(order)

    def columns_back(self, a: Array) -> Array:
        """(N, M, K, ...) to (..., G)."""
        a = a.transpose(*range(3, a.ndim), 1, 0, 2)
        return a.reshape(*a.shape[:-3], -1)

    def tokens(self, a: Array) -> Array:
        """(T, B, H) to (N, K, T, B)."""
        a = self.pad(a.transpose(2, 0, 1))
        return a.reshape(self.heads, self.size, self.steps, self.padded)

    def tokens_back(self, a: Array) -> Array:
        return a.reshape(self.heads * self.size, self.steps, self.padded)[..., : self.batch].transpose(1, 2, 0)

    def kernel(self, dtype: Any) -> Array:
        """U (N, K, M, K)."""
        return self.operands.recurrent_kernel.astype(dtype).reshape(self.heads, self.size, self.columns, self.size)

    def mask(self, a: Array | None) -> Array | None:
        return None if a is None else self.pad(a.astype(jnp.float32))

    def stack(self, leaves: list[Array]) -> Array | None:
        return jnp.stack(leaves, axis=1) if leaves else None

    def weights(self) -> Array | None:
        """(N, weights, K)."""
        leaves = jax.tree.leaves(self.operands.weights)
        return self.stack([w.astype(jnp.float32).reshape(self.heads, self.size) for w in leaves])

    def plan(self, dtype: Any) -> Any:
        from qlstm_jax.cells.common import mosaic

        return mosaic.Plan(
            heads=self.heads,
            columns=self.columns,
            size=self.size,
            steps=self.steps,
            batch=self.padded,
            separate=self.separate,
            states=len(jax.tree.leaves(self.operands.state)),
            weights=len(jax.tree.leaves(self.operands.weights)),
            valid=self.operands.valid is not None,
            resets=self.operands.resets is not None,
            dtype=jnp.dtype(dtype),
            options=self.options,
        )

    def examples(self) -> tuple[Any, Any, Any]:
        """Weights, pre-activations and state of one unit of one sequence."""
        wide = jnp.float32

        def row(width: int) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((*(1,) * (self.rank - 1), width), wide)

        weights = jax.tree.map(lambda w: jax.ShapeDtypeStruct((1,) * w.ndim, wide), self.operands.weights)
        state = jax.tree.map(lambda _: row(1), self.operands.state)
        if not self.separate:
            return weights, row(self.columns), state
        joined = self.columns - self.separate
        return weights, (row(joined), row(self.separate), row(self.separate)), state

    def project(self) -> Array:
        """x W (N, M, K, T, B)."""
        xs, kernel = self.operands.xs, self.operands.input_kernel
        if kernel is None:
            return self.pad(self.columns_of(xs))
        kernel = self.columns_of(kernel.astype(self.dtype))
        xs = self.pad(xs, axis=1)
        return jax.lax.dot_general(kernel, xs, (((3,), (2,)), ((), ())), preferred_element_type=jnp.float32)

    def bias(self) -> Array:
        """(N, M, K), or (N, M, K, B) for a bias of each sequence's own."""
        bias = self.operands.bias
        if bias is None:
            return jnp.zeros((self.heads, self.columns, self.size), jnp.float32)
        bias = self.columns_of(bias.astype(jnp.float32))
        return bias if bias.ndim == 3 else self.pad(bias)

    def recurrent_bias(self) -> Array | None:
        """(N, S, K)."""
        bias = self.operands.recurrent_bias
        return None if bias is None else self.columns_of(bias.astype(jnp.float32))


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def run(options: frozenset[str], gates: Callable[..., Any], separate: int, operands: Any) -> tuple[Any, Array]:
    """(carry, ys) of `recurrence`'s operands.

    Raises:
        NotImplementedError: from `unsupported`, or if `gates` is not made of operations that a kernel has.
    """
    results: tuple[Any, Array] = _forward(options, gates, separate, operands, keep=False)[0]
    return results


def _forward(options: frozenset[str], gates: Callable[..., Any], separate: int, operands: Any, *, keep: bool) -> Any:
    from qlstm_jax.cells.common import mosaic

    reason = unsupported(operands.recurrent_kernel, operands.h.dtype, separate)
    if reason is not None:
        raise NotImplementedError(f"the kernel cannot run this recurrence: {reason}; or choose another way")
    frame = _Frame(gates, separate, operands, options)
    unit_gates, _ = units.by_unit(gates, *frame.examples(), replace=frame.replace)
    plan = frame.plan(frame.dtype)
    states = [frame.carry(s) for s in jax.tree.leaves(operands.state)]
    results = mosaic.forward(
        plan,
        unit_gates,
        frame.kernel(frame.dtype),
        frame.project(),
        frame.bias(),
        frame.recurrent_bias(),
        frame.weights(),
        frame.carry(operands.h.astype(jnp.float32)),
        frame.stack(states),
        frame.mask(operands.valid),
        frame.mask(operands.resets),
        keep=keep,
    )
    hs, h, *rest = results
    state = [frame.carry_back(rest[0][:, i]) for i in range(plan.states)]
    kept = rest[1:] if plan.states else rest
    state = jax.tree.unflatten(jax.tree.structure(operands.state), state)
    ys = frame.tokens_back(hs)
    if operands.valid is not None:
        ys = jnp.where(operands.valid[:, :, None], ys, jnp.zeros((), ys.dtype))
    return ((frame.carry_back(h).astype(frame.dtype), state), ys), (hs, *kept)


def _run_forward(options: frozenset[str], gates: Callable[..., Any], separate: int, operands: Any) -> tuple[Any, Any]:
    results, kept = _forward(options, gates, separate, operands, keep=True)
    return results, (operands, kept)


def _run_backward(options: frozenset[str], gates: Callable[..., Any], separate: int, residuals: Any, cotangents: Any) -> tuple[Any]:
    from qlstm_jax.cells.common import mosaic

    operands, (hs, a, *states) = residuals
    (dh, dstate), dys = cotangents
    frame = _Frame(gates, separate, operands, options)
    plan = frame.plan(jnp.bfloat16)
    if operands.valid is not None:
        dys = jnp.where(operands.valid[:, :, None], dys, jnp.zeros((), dys.dtype))
    unit_residuals, unit_pull = _linear_part(frame)
    da, dh, *rest = mosaic.backward(
        plan,
        unit_residuals,
        unit_pull,
        frame.kernel(jnp.bfloat16),
        frame.weights(),
        a,
        states[0] if states else None,
        frame.mask(operands.valid),
        frame.mask(operands.resets),
        frame.tokens(dys),
        frame.carry(dh.astype(jnp.float32)),
        frame.stack([frame.carry(d) for d in jax.tree.leaves(dstate)]),
    )
    dstates = [frame.carry_back(rest[0][:, i]) for i in range(plan.states)]
    d_weights = [jnp.sum(rest[-1][:, i], axis=-1) for i in range(plan.weights)]
    leaves = jax.tree.leaves(operands.weights)
    d_weights = [d.reshape(w.shape) for d, w in zip(d_weights, leaves, strict=True)]
    gradients = _products(frame, hs, da[..., : frame.batch])._replace(
        weights=jax.tree.unflatten(jax.tree.structure(operands.weights), d_weights),
        h=frame.carry_back(dh),
        state=jax.tree.unflatten(jax.tree.structure(operands.state), dstates),
    )
    return (jax.tree.map(lambda d, x: d.astype(x.dtype), gradients, operands._replace(valid=None, resets=None)),)


run.defvjp(_run_forward, _run_backward)


def _linear_part(frame: _Frame) -> tuple[Any, Any]:
    """`gates` differentiated by unit: what its linear part is made of, and that part."""

    def pull_of(weights: Any, a: Any, state: Any) -> Any:
        return jax.vjp(frame.gates, weights, a, state)[1]

    def apply(pull: Any, dh: Any, dstate: Any) -> Any:
        return pull((dh, dstate))

    examples = frame.examples()
    h, state = jax.eval_shape(frame.gates, *examples)
    residuals, pull = units.by_unit(pull_of, *examples, replace=frame.replace)
    return residuals, units.by_unit(apply, pull, h, state, replace=frame.replace)[0]


def _products(frame: _Frame, hs: Array, da: Array) -> Any:
    """The gradients that are products over all tokens, or sums: of U, W, biases and xs."""
    operands, columns, wide = frame.operands, frame.columns, jnp.float32
    dz, du = da[:, :columns], da
    if frame.separate:
        du = jnp.concatenate([da[:, : columns - frame.separate], da[:, columns:]], axis=1)
    first = frame.carry(operands.h)[:, :, None]
    before = jnp.concatenate([first, hs[:, :, :-1]], axis=2)[..., : frame.batch]
    if operands.resets is not None:
        before = jnp.where(operands.resets, jnp.zeros((), before.dtype), before)
    product = jnp.promote_types(before.dtype, da.dtype)
    d_recurrent = jnp.einsum(
        "nktb,nmjtb->nkmj", before.astype(product), du.astype(product), preferred_element_type=wide
    ).reshape(operands.recurrent_kernel.shape)
    d_bias = d_recurrent_bias = d_input = None
    if operands.bias is not None:
        axes = (3, 4) if operands.bias.ndim == 1 else 3
        d_bias = frame.columns_back(jnp.sum(dz.astype(wide), axis=axes))
    if operands.recurrent_bias is not None:
        d_recurrent_bias = frame.columns_back(jnp.sum(da[:, columns:].astype(wide), axis=(3, 4)))
    if operands.input_kernel is None:
        d_xs = frame.columns_back(dz)
    else:
        xs, kernel = operands.xs.astype(product), frame.columns_of(operands.input_kernel.astype(product))
        d_input = jnp.einsum("tbd,nmktb->nmkd", xs, dz.astype(product), preferred_element_type=wide)
        d_input = frame.columns_back(d_input)
        d_xs = jnp.einsum("nmktb,nmkd->tbd", dz.astype(product), kernel, preferred_element_type=wide)
    return operands._replace(
        recurrent_kernel=d_recurrent,
        input_kernel=d_input,
        bias=d_bias,
        recurrent_bias=d_recurrent_bias,
        xs=d_xs,
        valid=None,
        resets=None,
    )
