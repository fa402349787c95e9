"""What QL-LSTM computes over the tokens of a block; the formulas stand in `qlstm_jax.cells.ql_lstm`.

`block` runs tokens that lie in one block and writes the memory where the block is complete: one token of a stream, or a
whole block of a sequence. `params` is a `ql_lstm.Params` everywhere.
"""

from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from qlstm_jax.cells import common
from qlstm_jax.cells.ql_lstm.params import SHARING, Carry, Params

Hidden: TypeAlias = Float[Array, "batch hidden"]
Weights: TypeAlias = tuple[tuple[Array, ...], tuple[Array, ...]]  # rows of α and of β, (H,) or (N, 1, K) each


def read(params: Params, memory: Hidden) -> Hidden:
    """s from m, both (B, H)."""
    scale = jax.lax.rsqrt(params.epsilon + jnp.mean(memory**2, axis=-1, keepdims=True))
    return common.row(params.memory_weights.read_scale, 2) * memory * scale


def _write(params: Params, memory: Hidden, summary: Hidden) -> Hidden:
    """m after a block whose h sum to `summary`."""
    weights, s = params.memory_weights, read(params, memory)
    v = common.matmul(summary / params.block_size, weights.summary_kernel, params.dtype)
    return write(params, memory, v + common.matmul(s, weights.memory_kernel, params.dtype))


def write(params: Params, memory: Hidden, v: Hidden) -> Hidden:
    """m after a block, from m before it."""
    weights = params.memory_weights
    z_i, z_g = (common.row(weights.write_scale[j], 2) * v + common.row(weights.write_bias[j], 2) for j in range(2))
    return memory + jax.nn.sigmoid(z_i) * jnp.tanh(z_g)


def _write_if(wanted: Bool[Array, ""], params: Params, memory: Hidden, summary: Hidden) -> Hidden:
    """`_write` or, unless `wanted`, anything.

    Computed again for a gradient: as residuals of a cond, P and Q would be kept once for each time it is run.
    """

    @jax.checkpoint
    def run(params: Params, memory: Hidden, summary: Hidden) -> Any:
        return jax.lax.cond(wanted, lambda: _write(params, memory, summary), lambda: memory)

    written: Hidden = run(params, memory, summary)
    return written


def gates(sharing: str, weights: Weights, u: Array, c: Array) -> tuple[Array, Array]:
    """(h, c) after one token, from its u (B, G·H) and c (B, H), with heads (N, B, G·K) and (N, B, K).

    Without weights, β is in u and α is 1.
    """
    maps = jnp.split(u, 1 + max(SHARING[sharing]), axis=-1)
    z = [maps[m] for m in SHARING[sharing]]
    if weights[0]:
        rows = zip(*weights, strict=True)
        shape = (*c.shape[:-2], 1, c.shape[-1])  # of a row of all units that stands for each of the batch
        z = [scale.reshape(shape) * z_j + bias.reshape(shape) for (scale, bias), z_j in zip(rows, z, strict=True)]
    i, f, g, o = z
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def gate_weights(params: Params) -> Weights:
    """What `gates` takes, none where no map is shared. Rows apart: a gradient by row needs no room for the others."""
    if params.gate_scale is None:
        return (), ()
    rows = (4, params.num_heads, 1, -1) if params.num_heads > 1 else (4, -1)
    wide = common.accumulator(params.dtype)
    scale, beta = (a.astype(wide).reshape(rows) for a in (params.gate_scale, params.gate_bias))
    return tuple(scale), tuple(beta)


def _tokens(
    params: Params, way: common.Way, carry: Carry, s: Hidden | None, xs: Array, valid: Array | None
) -> tuple[tuple[Hidden, Hidden], Float[Array, "time batch hidden"]]:
    """((h, c), hs) of tokens that lie in one block of every row; s is its read of the memory, None for 0."""
    h, bias, wide = carry.h, None, carry.c.dtype
    if s is not None and len(xs) == 1 and valid is None:
        h = (h + s).astype(h.dtype)  # one product, (h + s) U
    elif s is not None:
        bias = common.recurrent_product(s, params.recurrent_kernel, params.dtype)
    weights = gate_weights(params)
    if not weights[0]:
        beta = params.gate_bias.astype(wide).reshape(-1)
        bias = beta if bias is None else bias + common.row(beta, 2)
    return common.recurrence_time_major(
        partial(gates, params.sharing),
        xs,
        (h, carry.c),
        recurrent_kernel=params.recurrent_kernel,
        input_kernel=params.input_kernel,
        bias=bias,
        weights=weights,
        valid=valid,
        way=way,
    )


def block(
    params: Params,
    way: common.Way,
    carry: Carry,
    xs: Float[Array, "time batch d"],
    valid: Bool[Array, "time batch"] | None,
    reset: Bool[Array, " batch"] | None = None,
) -> tuple[Carry, Float[Array, "time batch hidden"]]:
    """Tokens (≤ L, B, D) that lie in one block of every row; then the memory is written.

    `way` as for `common.recurrence`; where `reset`, the carry before these tokens is dropped.
    """
    if reset is not None:
        carry = common.where(reset, jax.tree.map(jnp.zeros_like, carry), carry)
    slow = carry.slow
    s = None if slow is None else read(params, slow.memory)
    (h, c), hs = _tokens(params, way, carry, s, xs, valid)
    if slow is None or s is None:
        return Carry(c=c, h=h), hs
    ys, position = (hs.astype(s.dtype) + s[None]).astype(params.dtype), slow.position + len(xs)
    if valid is not None:
        ys = jnp.where(valid[:, :, None], ys, jnp.zeros((), ys.dtype))
        position = slow.position + jnp.sum(valid, axis=0, dtype=jnp.int32)
    summary = slow.summary + jnp.sum(hs, axis=0, dtype=slow.summary.dtype)
    done = jnp.equal(position, params.block_size)
    end = _write if len(xs) == params.block_size else partial(_write_if, jnp.any(done))
    carry = Carry(
        c=c,
        h=h,
        memory=common.where(done, end(params, slow.memory, summary), slow.memory),
        summary=common.where(done, jnp.zeros_like(summary), summary),
        position=jnp.where(done, 0, position),
    )
    return carry, ys
