"""What QL-LSTM computes over the tokens of a block; the formulas stand in `qlstm_jax.cells.ql_lstm`.

`block` runs tokens that lie in one block and writes the memory where the block is complete: one token of a stream, or a
whole block of a sequence. `params` is a `ql_lstm.Params` everywhere.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from qlstm_jax.cells import common

SHARING = {
    "full": (0, 0, 0, 0),
    "gates": (0, 0, 1, 0),
    "none": (0, 1, 2, 3),
}  # the map of each gate i, f, g, o


class Carry(NamedTuple):
    """What passes from step to step; the last three are None without skip."""

    c: jax.Array  # (B, H), float32 or wider
    h: jax.Array  # (B, H)
    memory: jax.Array | None = None  # m_k (B, H), float32 or wider
    summary: jax.Array | None = None  # (B, H), the sum of h over the block so far
    position: jax.Array | None = None  # (B,) int32, tokens of the block so far, 0..L-1


def _read(params, memory):
    """s from m, both (B, H)."""
    scale = jax.lax.rsqrt(params.epsilon + jnp.mean(memory**2, axis=-1, keepdims=True))
    return common.row(params.read_scale, 2) * memory * scale


def _write(params, memory, summary):
    """m after a block whose h sum to `summary`."""
    s = _read(params, memory)
    v = common.matmul(summary / params.block_size, params.summary_kernel, params.dtype)
    v = v + common.matmul(s, params.memory_kernel, params.dtype)
    z_i, z_g = (common.row(params.write_scale[j], 2) * v + common.row(params.write_bias[j], 2) for j in range(2))
    return memory + jax.nn.sigmoid(z_i) * jnp.tanh(z_g)


def _write_if(wanted, params, memory, summary):
    """`_write` or, unless `wanted`, anything.

    Computed again for a gradient: as residuals of a cond, P and Q would be kept once for each time it is run.
    """

    @jax.checkpoint
    def run(params, memory, summary):
        return jax.lax.cond(wanted, lambda: _write(params, memory, summary), lambda: memory)

    return run(params, memory, summary)


def _gates(sharing, weights, u, c):
    """c and h after one token, from its u (B, G·H), the rows of α and those of β."""
    scales, biases = weights
    maps = jnp.split(u, 1 + max(SHARING[sharing]), axis=-1)
    z = [maps[m] for m in SHARING[sharing]]
    if scales:
        z = [common.row(scale, 2) * z_j for scale, z_j in zip(scales, z, strict=True)]
    i, f, g, o = (z_j + common.row(bias, 2) for z_j, bias in zip(z, biases, strict=True))
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return c, jax.nn.sigmoid(o) * jnp.tanh(c)


def _weights(params):
    """The rows of α (none where there is no α) and of β: a gradient by row needs no room for the others."""
    wide = common.accumulator(params.dtype)
    return tuple(() if a is None else tuple(a.astype(wide)) for a in (params.gate_scale, params.gate_bias))


def block(params, tokens, carry, xs, valid):
    """Tokens (≤ L, B, D) that lie in one block of every row: `tokens` runs them, then the memory is written."""
    s = _read(params, carry.memory) if params.skip else None
    projected = common.matmul(xs, params.input_kernel, params.dtype)
    gates, state = partial(_gates, params.sharing), (carry.c, carry.h)
    (c, h), hs = tokens(gates, params.recurrent_kernel, _weights(params), s, state, projected, valid)
    if s is None:
        return Carry(c=c, h=h), hs
    ys, steps = (hs + s[None]).astype(params.dtype), len(xs)
    if valid is not None:
        ys = jnp.where(valid[:, :, None], ys, jnp.zeros((), ys.dtype))
        steps = jnp.sum(valid, axis=0, dtype=jnp.int32)
    summary = carry.summary + jnp.sum(hs, axis=0, dtype=carry.summary.dtype)
    position = carry.position + steps
    done = position == params.block_size
    end = _write if len(xs) == params.block_size else partial(_write_if, jnp.any(done))
    carry = Carry(
        c=c,
        h=h,
        memory=common.where(done, end(params, carry.memory, summary), carry.memory),
        summary=common.where(done, jnp.zeros_like(summary), summary),
        position=jnp.where(done, 0, position),
    )
    return carry, ys
