"""The recurrence of a sequential cell, one product and elementwise gates a token, with a gradient of its own.

    a_t      = x_t W + b + h_{t-1} U                  W, b, U: what JAX calls kernels and bias
    h_t, s_t = gates(weights, a_t, s_{t-1})           element by element

A cell is its `gates`; the rest is here. `recurrence` has two ways to the same values: the plain scan over tokens, which
JAX differentiates in any mode, and the fast one, for reverse mode (`jax.grad`, `jax.vjp`). What makes it fast:

- Plain differentiation adds to dU, as large as U, at each token. But as a_t is a sum, da_t is the gradient of both
  products, and dU = Σ_t h_{t-1}ᵀ da_t, dW = Σ_t x_tᵀ da_t and dx_t = da_t Wᵀ are products over many tokens at once.
- For the gradient only a_t, s_{t-1} and h_t are kept. `gates` is differentiated again, for many tokens at once, into
  its linear part at each (`jax.vjp` under `jax.vmap`); the backward scan applies these and multiplies by Uᵀ. Where the
  linear part is no larger than a_t and s_{t-1}, as that of a lone tanh, it is kept in their place.
- The sequence is run in chunks: what is needed of all tokens of a chunk at once (products with W, linear parts, da)
  exists for one chunk at a time and stays in the processor's cache. New memory is what costs most on a CPU: the
  operating system clears each page of it, in more time than it takes to fill it with a product.
- The scan carries a_t, not x_t W: XLA on a CPU has vector code for gates that are slices of a row in a buffer, but not
  where it must compute the row, indexed by time, within the same loop.

`benchmarks/recurrent.py` measures it. Letters as in the package: B batch, T time, D input, H hidden, N heads of
K units; G is the width of a row of pre-activations, such as 4H. "Wide" is float32, or wider if h is.
"""

import functools
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from qlstm_jax.cells.common.axes import varying_as
from qlstm_jax.cells.common.heads import heads_to_rows, rows_to_heads
from qlstm_jax.cells.common.masks import time_major
from qlstm_jax.cells.common.products import accumulator, kernel_gradient, matmul

State = TypeVar("State")  # a pytree of wide arrays (B, H); () where a cell has none but h
Weights: TypeAlias = Any  # a pytree of arrays
# The pre-activations that `gates` gets: a row, or with `separate` (joined, input, recurrent), see `recurrence`.
Row = Float[Array, "*batch width"]
Preactivations = Row | tuple[Row, Row, Row]
Gates = Callable[[Any, Any, State], tuple[Array, State]]

CHUNK_ROWS = 512  # tokens times rows of the batch in a chunk: measured on a CPU, and flat between 256 and 1,024
SHORTEST_CHUNK = 8  # tokens


class Operands(NamedTuple):
    """The arrays of a recurrence, time-major."""

    recurrent_kernel: Array  # U (H, G) or (N, K, G / N)
    input_kernel: Array | None  # W (D, G); None if xs are the pre-activations
    bias: Array | None  # (G,) or (B, G)
    recurrent_bias: Array | None  # (separate,)
    weights: Any
    h: Array  # (B, H) in the dtype of activations
    state: Any
    xs: Array  # (T, B, D) in the dtype of activations, or (T, B, G) wide
    valid: Array | None  # (T, B) booleans
    resets: Array | None  # (T, B) booleans


def recurrence(
    gates: Gates[State],
    xs: Float[Array, "batch time features"],
    carry: tuple[Float[Array, "batch hidden"], State],
    *,
    recurrent_kernel: Float[Array, "... rows width"],
    input_kernel: Float[Array, "features gates"] | None = None,
    bias: Float[Array, "... gates"] | None = None,
    recurrent_bias: Float[Array, " separate"] | None = None,
    weights: Weights = (),
    separate: int = 0,
    valid: Bool[Array, "batch time"] | None = None,
    resets: Bool[Array, "batch time"] | None = None,
    plain: bool = False,
) -> tuple[tuple[Float[Array, "batch hidden"], State], Float[Array, "batch time hidden"]]:
    """Runs a cell's recurrence over a batch of sequences; the formula stands at the top of this module.

    Args:
        gates: (weights, pre-activations, state) -> (h, state), element by element over batch and units: a row of
            pre-activations (B, G) and arrays (B, H) of state, all wide. With heads, (N, B, G / N) and (N, B, K).
        xs: (B, T, D), or without input_kernel the pre-activations (B, T, G) but for h U.
        carry: (h (B, H), state), from which to continue. The dtype of h is that of activations and products.
        recurrent_kernel: U (H, G); with heads (N, K, G / N), block-diagonal. A row of G pre-activations has the gates
            side by side and within a gate the heads, and is given to `gates` head by head.
        input_kernel: W (D, G), or None.
        bias: b (G,), or (B, G) for a bias of each sequence's own, or None.
        recurrent_bias: added to the last columns of h U where these are separate, or None.
        weights: a pytree of what `gates` needs besides, such as scales of each unit, small against a.
        separate: the last so many columns of a row are not added: `gates` gets three arrays instead of a row, the sum
            of the other columns of both products, the last columns of x W + b, and those of h U. The GRU's new gate
            takes the two apart.
        valid: optional (B, T) booleans, true on one run of positions in each row. Where false, the carry stays and the
            output is 0.
        resets: optional (B, T) booleans. Where true, h and the state are 0 before the token, and no gradient passes.
        plain: whether to run the scan that JAX differentiates itself: slower, but in any mode.

    Returns:
        (carry, ys (B, T, H) in the dtype of h).

    Raises:
        TypeError: from JAX, where the fast way is differentiated in forward mode: pass plain=True.
    """
    valid, resets = time_major((valid, resets))
    carry, ys = recurrence_time_major(
        gates,
        time_major(xs),
        carry,
        recurrent_kernel=recurrent_kernel,
        input_kernel=input_kernel,
        bias=bias,
        recurrent_bias=recurrent_bias,
        weights=weights,
        separate=separate,
        valid=valid,
        resets=resets,
        plain=plain,
    )
    return carry, time_major(ys)


def recurrence_time_major(
    gates: Gates[State],
    xs: Float[Array, "time batch features"],
    carry: tuple[Float[Array, "batch hidden"], State],
    *,
    recurrent_kernel: Float[Array, "... rows width"],
    input_kernel: Float[Array, "features gates"] | None = None,
    bias: Float[Array, "... gates"] | None = None,
    recurrent_bias: Float[Array, " separate"] | None = None,
    weights: Weights = (),
    separate: int = 0,
    valid: Bool[Array, "time batch"] | None = None,
    resets: Bool[Array, "time batch"] | None = None,
    plain: bool = False,
) -> tuple[tuple[Float[Array, "batch hidden"], State], Float[Array, "time batch hidden"]]:
    """`recurrence` over xs (T, B, D) and masks (T, B), to outputs (T, B, H)."""
    if recurrent_kernel.ndim == 3 and separate:
        raise ValueError(
            f"separate is {separate} and the recurrent kernel has heads; expected no separate columns then"
        )
    if recurrent_bias is not None and not separate:
        raise ValueError("recurrent_bias is given and separate is 0; expected bias alone, as all columns are added")
    h, state = carry
    if xs.shape[0] == 0 or xs.shape[1] == 0:
        return carry, jnp.zeros((xs.shape[0], *h.shape), h.dtype)
    xs = xs.astype(accumulator(h.dtype) if input_kernel is None else h.dtype)
    if resets is not None and valid is not None:
        resets = resets & valid
    operands = Operands(recurrent_kernel, input_kernel, bias, recurrent_bias, weights, h, state, xs, valid, resets)
    run = _plain if plain else _fast
    return run(gates, separate, varying_as(operands, operands))


class _Layout:
    """The operands in the dtypes and layouts of the scan over tokens, and the sums that make pre-activations."""

    def __init__(self, operands: Operands, separate: int):
        kernel, self.dtype = operands.recurrent_kernel, operands.h.dtype
        self.wide = accumulator(self.dtype)
        self.heads = kernel.shape[0] if kernel.ndim == 3 else 0
        self.separate = separate
        self.kernel = kernel.astype(self.dtype)
        self.input_kernels = None if operands.input_kernel is None else self.split(operands.input_kernel)
        self.bias: tuple[Array, ...] | None = None
        if operands.bias is not None:
            self.bias = self.split(jnp.atleast_2d(operands.bias).astype(self.wide))
        self.recurrent_bias: Array | None = None
        if operands.recurrent_bias is not None:
            self.recurrent_bias = operands.recurrent_bias.astype(self.wide)[None]
        self.valid, self.resets = self.by_token(operands.valid), self.by_token(operands.resets)

    def split(self, row: Array) -> tuple[Array, ...]:
        """The columns that are added and, if any, those that are separate."""
        return (row[..., : -self.separate], row[..., -self.separate :]) if self.separate else (row,)

    def project(self, xs: Array) -> tuple[Array, ...]:
        """x W of any number of tokens, or xs themselves: (T, B, G), or with heads x W + b (T, N, B, G / N)."""
        if self.input_kernels is None:
            z = self.split(xs)
        else:
            z = tuple(matmul(xs, kernel, self.dtype) for kernel in self.input_kernels)
        if not self.heads:
            return z  # b is added later, at no cost, to the sum with h U
        joined: tuple[Array, ...] = self.split_heads((z[0] if self.bias is None else z[0] + self.bias[0][None],))
        return joined

    def preactivations(self, z: tuple[Array, ...], h: Array) -> Any:
        """What `gates` gets of one token."""
        u = self.split(jnp.matmul(h, self.kernel, preferred_element_type=self.wide))
        if self.bias is not None and not self.heads:
            z = tuple(a + b for a, b in zip(z, self.bias, strict=True))
        if not self.separate:
            return z[0] + u[0]
        return z[0] + u[0], z[1], u[1] if self.recurrent_bias is None else u[1] + self.recurrent_bias

    def by_token(self, mask: Array | None) -> Array | None:
        """(T, B) to (T, B, 1), or with heads (T, 1, B, 1)."""
        if mask is None:
            return None
        return mask[:, None, :, None] if self.heads else mask[:, :, None]

    def split_heads(self, tree: Any) -> Any:
        """(..., B, H) to (..., N, B, K) with heads, each array of a pytree."""
        if not self.heads:
            return tree
        split: Any = jax.tree.map(lambda a: rows_to_heads(a, self.heads, self.kernel.shape[1]), tree)
        return split

    def merge_heads(self, tree: Any) -> Any:
        """The inverse of `split_heads`, for rows of gates too."""
        return jax.tree.map(lambda a: heads_to_rows(a, self.kernel.shape[1]), tree) if self.heads else tree


def _where(ok: Array | None, new: Any, old: Any) -> Any:
    """`new` where `ok`, a token's mask, else `old`; None is true everywhere."""
    return new if ok is None else jax.tree.map(lambda n, o: jnp.where(ok, n, o), new, old)


def _restart(reset: Array | None, tree: Any) -> Any:
    """0 where `reset`."""
    return tree if reset is None else jax.tree.map(lambda a: jnp.where(reset, jnp.zeros((), a.dtype), a), tree)


def _mask(valid: Array | None, ys: Array) -> Array:
    """Outputs (T, B, H), 0 where not `valid` (T, B)."""
    return ys if valid is None else jnp.where(valid[:, :, None], ys, jnp.zeros((), ys.dtype))


def _token(gates: Gates[State], weights: Any, a: Any, ok: Array | None, old: Any, start: State) -> Any:
    """(h, state) after a token, from those before it and the state that it starts from."""
    h, state = gates(weights, a, start)
    return _where(ok, (h.astype(old[0].dtype), state), old)


def _plain(gates: Gates[State], separate: int, operands: Operands) -> tuple[Any, Array]:
    layout = _Layout(operands, separate)

    def token(carry: Any, inputs: Any) -> tuple[Any, Array]:
        z, ok, reset = inputs
        h, start = _restart(reset, carry)
        carry = _token(gates, operands.weights, layout.preactivations(z, h), ok, carry, start)
        return carry, carry[0]

    inputs = layout.project(operands.xs), layout.valid, layout.resets
    carry = layout.split_heads((operands.h, operands.state))
    if operands.xs.shape[0] == 1:  # a step: called without jit, a scan would be compiled each time
        carry, h = token(carry, jax.tree.map(lambda a: a[0], inputs))
        hs = h[None]
    else:
        carry, hs = jax.lax.scan(token, carry, inputs)
    return layout.merge_heads(carry), _mask(operands.valid, layout.merge_heads(hs))


class _Kept(NamedTuple):
    """What the gradient needs of each token: (T, B, ...), or with heads (T, N, B, ...)."""

    h: Array  # after the token, valid or not
    inputs: tuple[Any, Any] | None = None  # the pre-activations and the state that `gates` got
    pull: Callable[..., Any] | None = None  # in their place, the linear part of `gates` there


def _linear_part_is_small(gates: Gates[State], weights: Any, a: Any, state: Any) -> bool:
    """Whether the linear part of `gates` is no larger than what it is computed from. Weights need the latter.

    Without jit a scan is a loop, which cannot stack linear parts.
    """
    if jax.tree.leaves(weights) or getattr(jax.config, "jax_disable_jit"):  # noqa: B009 - it has no types
        return False
    pull = jax.eval_shape(lambda a, state: jax.vjp(partial(gates, weights), a, state)[1], a, state)
    sizes = [sum(x.size for x in jax.tree.leaves(tree)) for tree in (pull, (a, state))]
    return bool(sizes[0] <= sizes[1])


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _fast(gates: Gates[State], separate: int, operands: Operands) -> tuple[Any, Array]:
    results: tuple[Any, Array] = _forward(gates, separate, operands, keep=False)[0]
    return results


def _fast_forward(gates: Gates[State], separate: int, operands: Operands) -> tuple[Any, Any]:
    results, kept = _forward(gates, separate, operands, keep=True)
    return results, (operands, kept)


def _forward(gates: Gates[State], separate: int, operands: Operands, *, keep: bool) -> tuple[Any, _Kept]:
    """((carry, ys), what the gradient needs).

    The scan carries the pre-activations of the coming token, so that inputs come a token early; after the last one
    the first comes again, and what is made of it is not used.
    """
    layout = _Layout(operands, separate)

    def early(a: Array | None) -> Array | None:
        return None if a is None else jnp.concatenate([a[1:], a[:1]])

    def token(carry: Any, inputs: Any) -> tuple[Any, _Kept]:
        h, state, a = carry
        z, ok, reset, next_reset = inputs
        start, pull = _restart(reset, state), None
        if keep and _linear_part_is_small(gates, operands.weights, a, start):
            new, pull = jax.vjp(partial(gates, operands.weights), a, start)
            h, state = _where(ok, (new[0].astype(h.dtype), new[1]), (h, state))
        else:
            h, state = _token(gates, operands.weights, a, ok, (h, state), start)
        next_a = layout.preactivations(z, _restart(next_reset, h))
        return (h, state, next_a), _Kept(h, (a, start) if keep and pull is None else None, pull)

    def chunk(carry: Any, inputs: Any, _: None) -> tuple[Any, _Kept]:
        xs, *masks = inputs
        return jax.lax.scan(token, carry, (layout.project(xs), *masks))

    valid, resets = layout.valid, layout.resets
    h, state = layout.split_heads((operands.h, operands.state))
    first_z = tuple(z[0] for z in layout.project(operands.xs[:1]))
    a = layout.preactivations(first_z, _restart(None if resets is None else resets[0], h))
    inputs = early(operands.xs), valid, resets, early(resets)
    (h, state, _), kept = _in_chunks(chunk, (h, state, a), inputs, _chunk_length(operands.xs))
    ys = _mask(operands.valid, layout.merge_heads(kept.h))
    return (layout.merge_heads((h, state)), ys), kept


def _fast_backward(gates: Gates[State], separate: int, residuals: Any, cotangents: Any) -> tuple[Operands]:
    operands, kept = residuals
    layout, weights, wide = _Layout(operands, separate), operands.weights, accumulator(operands.h.dtype)
    back = jnp.swapaxes(layout.kernel.astype(wide), -1, -2)  # Uᵀ, once and not at each token
    weighted = bool(jax.tree.leaves(weights))

    def token(carry: Any, inputs: Any) -> tuple[Any, Any]:
        pull, dy, ok, reset = inputs
        given = carry[0] + dy.astype(wide), carry[1]
        given = _where(ok, given, jax.tree.map(jnp.zeros_like, given))
        da, dstate = pull(given)
        dh = jnp.matmul(jnp.concatenate([da[0], da[2]], axis=-1) if separate else da, back)
        return _where(ok, _restart(reset, (dh, dstate)), carry), (da, given if weighted else None)

    def chunk(carry: Any, inputs: Any, before: Array) -> tuple[Any, Array]:
        """Adds a chunk to the sums, from h before its first token."""
        carry, sums = carry
        xs, kept, dys, valid, resets = inputs
        pulls = kept.pull
        if pulls is None:
            pulls = jax.vmap(lambda a, state: jax.vjp(partial(gates, weights), a, state)[1])(*kept.inputs)
        carry, (da, given) = jax.lax.scan(token, carry, (pulls, dys, valid, resets), reverse=True)
        h = _restart(resets, jnp.concatenate([before[None], kept.h[:-1]]))
        dz: tuple[Array, ...] = (da[0], da[1]) if separate else (da,)
        du: tuple[Array, ...] = (da[0], da[2]) if separate else (da,)
        dz = layout.merge_heads(dz)
        new = (
            _kernel_gradients(xs if layout.input_kernels else None, h, dz, du),
            None if operands.bias is None else _bias_gradient(operands.bias, dz),
            None if operands.recurrent_bias is None else jnp.sum(du[1], axis=(0, 1)),
            _weights_gradient(gates, weights, kept.inputs, given) if weighted else None,
        )
        if layout.input_kernels is None:
            dxs = jnp.concatenate(dz, axis=-1)
        else:
            parts = (matmul(d, kernel.T, wide) for d, kernel in zip(dz, layout.input_kernels, strict=True))
            dxs = functools.reduce(jnp.add, parts)
        return (carry, jax.tree.map(jnp.add, sums, new)), dxs.astype(operands.xs.dtype)

    kernels = tuple(None if a is None else jnp.zeros(a.shape, wide) for a in operands[:2])
    bias = None if operands.bias is None else jnp.zeros(operands.bias.shape, wide)
    recurrent = None if operands.recurrent_bias is None else jnp.zeros(operands.recurrent_bias.shape, wide)
    sums = kernels, bias, recurrent, jax.tree.map(jnp.zeros_like, weights) if weighted else None
    sums = varying_as(sums, operands)
    dh, dstate = layout.split_heads(cotangents[0])
    dys = layout.split_heads(_mask(operands.valid, cotangents[1]))
    length = _chunk_length(operands.xs)
    chunks = -(-operands.xs.shape[0] // length)
    first = layout.split_heads(operands.h)[None]
    before = jnp.concatenate([first, kept.h[length - 1 : (chunks - 1) * length : length]])
    inputs = operands.xs, kept, dys, layout.valid, layout.resets
    start = (dh.astype(wide), dstate), sums
    (carry, sums), dxs = _in_chunks(chunk, start, inputs, length, each=before, reverse=True)
    dh, dstate = layout.merge_heads(carry)
    (d_recurrent, d_input), d_bias, d_recurrent_bias, d_weights = sums
    d_weights = d_weights if weighted else weights
    gradients = Operands(d_recurrent, d_input, d_bias, d_recurrent_bias, d_weights, dh, dstate, dxs, None, None)
    return (jax.tree.map(lambda d, a: d.astype(a.dtype), gradients, operands._replace(valid=None, resets=None)),)


_fast.defvjp(_fast_forward, _fast_backward)


def _kernel_gradients(xs: Array | None, h: Array, dz: tuple[Array, ...], du: tuple[Array, ...]) -> tuple[Any, Any]:
    """(dU, dW) of a chunk, wide, from h before each token; without xs, no dW.

    Columns that are the gradient of both are multiplied once, by x and h side by side: one large product is faster.
    """
    h = h.astype(du[0].dtype)
    if h.ndim == 4:
        d_recurrent = jnp.einsum("tnbk,tnbj->nkj", h, du[0])
        return d_recurrent, None if xs is None else kernel_gradient(xs.astype(h.dtype), dz[0])
    if xs is None:
        return jnp.concatenate([kernel_gradient(h, d) for d in du], axis=1), None
    xs = xs.astype(h.dtype)
    both = kernel_gradient(jnp.concatenate([xs, h], axis=-1), dz[0])
    d_input, d_recurrent = both[: xs.shape[-1]], both[xs.shape[-1] :]
    if len(dz) > 1:
        d_input = jnp.concatenate([d_input, kernel_gradient(xs, dz[1])], axis=1)
        d_recurrent = jnp.concatenate([d_recurrent, kernel_gradient(h, du[1])], axis=1)
    return d_recurrent, d_input


def _bias_gradient(bias: Array, dz: tuple[Array, ...]) -> Array:
    return jnp.concatenate([jnp.sum(d, axis=(0, 1) if bias.ndim == 1 else 0) for d in dz], axis=-1)


def _weights_gradient(gates: Gates[State], weights: Any, inputs: Any, given: Any) -> Any:
    """That of the weights, from the gradients of all (h, state) of a chunk."""

    def run(weights: Any) -> Any:
        return jax.vmap(partial(gates, weights))(*inputs)

    return jax.vjp(run, weights)[1](given)[0]


def _chunk_length(xs: Array) -> int:
    """Tokens in a chunk: all, or about as many as make CHUNK_ROWS rows, a divisor of T if there is one near."""
    steps, batch = xs.shape[:2]
    if not isinstance(steps, int):  # symbolic, under jax.export
        return steps
    rows = max(batch, 1) if isinstance(batch, int) else 32
    length = max(CHUNK_ROWS // rows, SHORTEST_CHUNK)
    if steps <= 2 * length:
        return steps
    near = sorted(range(length // 2 + 1, 2 * length), key=lambda n: abs(n - length))
    return next((n for n in near if steps % n == 0), length)


def _in_chunks(
    body: Callable[..., tuple[Any, Any]],
    carry: Any,
    inputs: Any,
    length: int,
    *,
    each: Any = None,
    reverse: bool = False,
) -> tuple[Any, Any]:
    """Folds `body(carry, inputs, each) -> (carry, outputs)` over chunks of `length` tokens, and a shorter last one.

    Args:
        inputs: a pytree of (T, ...); the body gets (length, ...) of each, and gives outputs of that length.
        each: None, or an array with one row for each chunk.
    """
    steps = jax.tree.leaves(inputs)[0].shape[0]
    count, rest = divmod(steps, length)
    if count == 1 and not rest:
        return body(carry, inputs, None if each is None else each[0])
    whole = count * length

    def run_rest(carry: Any) -> tuple[Any, Any]:
        return body(carry, jax.tree.map(lambda a: a[whole:], inputs), None if each is None else each[count])

    outputs: list[Any] = []
    if rest and reverse:
        carry, last = run_rest(carry)
        outputs.append(last)
    cut = jax.tree.map(lambda a: a[:whole].reshape(count, length, *a.shape[1:]), inputs)
    scanned = cut, None if each is None else each[:count]
    carry, first = jax.lax.scan(lambda c, i: body(c, *i), carry, scanned, reverse=reverse)
    outputs.insert(0, jax.tree.map(lambda a: a.reshape(whole, *a.shape[2:]), first))
    if rest and not reverse:
        carry, last = run_rest(carry)
        outputs.append(last)
    return carry, outputs[0] if not rest else jax.tree.map(lambda *a: jnp.concatenate(a), *outputs)
