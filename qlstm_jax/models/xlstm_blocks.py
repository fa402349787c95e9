"""The blocks of xLSTM (arXiv 2405.04517, section 2.4, figures 9 and 10), in the form of the official code.

mLSTM block, x (H) the residual sum and `inner` about 2H:

    [u, z] = LN(x) W_up                          c = swish(conv(u)), causal, depthwise, of width 4
    q, k = c W_q, c W_k;  v = u W_v              block-diagonal maps, 4 x 4
    ĩ, f̃ = [q, k, v] W_g + b_g                   a number for each head
    x + ((HeadNorm(memory(q, k, v, ĩ, f̃)) + skip ⊙ c) ⊙ swish(z)) W_down

with `memory` of `qlstm_jax.cells.mlstm.matrix_memory`, run in chunks by `qlstm_jax.cells.mlstm.chunked`.

sLSTM block, with the recurrence of `qlstm_jax.cells.slstm` and block-diagonal maps, a block for each head:

    u = LN(x);  c = swish(conv(u))
    [i, f] = c W_if;  [z, o] = u W_zo
    x = x + HeadNorm(recur(i, f, z, o))
    [g, p] = LN(x) W_in;  x + (gelu(g) ⊙ p) W_out

LN and HeadNorm have no bias, and their scale is 1 + w. Norms, gates, states and the residual sum are float32 (or
wider) whatever the activations are.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from qlstm_jax.cells import common, mlstm, slstm
from qlstm_jax.cells.mlstm import matrix_memory
from qlstm_jax.models.xlstm_layers import (
    CausalConv,
    HeadNorm,
    HeadwiseLinear,
    gate_bias_init,
    linear,
    small_init,
    wang_init,
)
from qlstm_jax.nnx.dropout import applied, dropout_stream


class MLSTMCarry(NamedTuple):
    """What passes from token to token in an mLSTM block."""

    conv: jax.Array  # (B, W−1, inner), the last inputs of the convolution, the oldest first
    memory: matrix_memory.State


class SLSTMCarry(NamedTuple):
    """What passes from token to token in an sLSTM block."""

    conv: jax.Array  # (B, W−1, H), the last inputs of the convolution, the oldest first
    cell: slstm.Carry


class ResidualBlock(nnx.Module):
    """What the blocks share: whole sequences and single tokens, the residual sum, dropout, checks of the carry.

    A block of a kind has `_build`, `initialize_carry` and `_read`.

    Args:
        config: of the stack.
        index: the block's place in it, from 0.
        rngs: for the initial parameters (stream "params") and the dropout (stream "dropout").
    """

    def __init__(self, config, *, index: int = 0, rngs: nnx.Rngs):
        self.config = config
        self.dropout = nnx.Dropout(config.dropout, rngs=dropout_stream(rngs)) if config.dropout else None
        self._build(config, index, rngs)

    def __call__(self, xs, *, seq_lengths=None, carry=None, return_carry=False, deterministic=None, rngs=None):
        """The outputs at every position, equal to folding `step`.

        Args:
            xs: (B, T, H).
            seq_lengths: optional (B,) number of valid positions; what xs holds beyond is not read.
            carry: where to continue from; default `initialize_carry`.
            return_carry: whether to return the carry after each row's last valid position too.
            deterministic: whether dropout is off; default as set by `train()` and `eval()`.
            rngs: for dropout, an `nnx.Rngs` or a key; default those of the constructor.

        Returns:
            ys (B, T, H), float32, 0 beyond `seq_lengths`; with return_carry (carry, ys).

        Raises:
            ValueError: if a shape or the carry does not fit, or a length lies outside 0..T.
        """
        xs, seq_lengths, valid = common.check_sequence(xs, seq_lengths, self.config.embedding_size)
        carry = self._start(carry, xs.shape[0])
        x = xs.astype(common.accumulator(xs.dtype))
        carry, ys = self._read(x, carry, seq_lengths, applied(self.dropout, deterministic, rngs))
        ys = common.zero_padding(ys, valid)
        return (carry, ys) if return_carry else ys

    def step(self, carry, x):
        """One token, x (B, H) to (carry, y (B, H)), without dropout.

        Raises:
            ValueError: if x or the carry does not fit.
        """
        if x.ndim != 2 or x.shape[1] != self.config.embedding_size:
            raise ValueError(
                f"x has shape {x.shape}; expected (batch, {self.config.embedding_size}), one token of a stream. For a "
                "whole sequence call the block."
            )
        carry = self._start(carry, x.shape[0])
        x = x.astype(common.accumulator(x.dtype))[:, None]
        carry, ys = self._read(x, carry, None, lambda added: added, one_token=True)
        return carry, ys[:, 0]

    def _start(self, carry, batch):
        if carry is None:
            return self.initialize_carry(batch)
        expected = jax.eval_shape(lambda: self.initialize_carry(batch))
        given, wanted = ((jax.tree.structure(c), [a.shape for a in jax.tree.leaves(c)]) for c in (carry, expected))
        if given != wanted:
            raise ValueError(
                f"the carry is a {type(carry).__name__} with arrays of shapes {given[1]}; expected a "
                f"{type(expected).__name__} with {wanted[1]}, made by initialize_carry or returned by an earlier call"
            )
        return carry

    def _no_inputs(self, batch, features):
        return jnp.zeros((batch, self.config.conv_size - 1, features), self.config.dtype)


class MLSTMBlock(ResidualBlock):
    """The mLSTM block of this module."""

    def _build(self, config, index, rngs):
        size, inner, options = config.embedding_size, config.inner_size, config.layer_options(rngs)
        small = small_init(size)
        self.norm = config.norm()
        self.up = linear(size, 2 * inner, small, **options)
        self.conv = CausalConv(inner, config.conv_size, param_dtype=options["param_dtype"], rngs=rngs)
        blocks = inner // config.projection_block
        self.query_key = HeadwiseLinear(inner, blocks, 2, small, **options)
        self.value = HeadwiseLinear(inner, blocks, 1, small, **options)
        self.gate_kernel = nnx.Param(jnp.zeros((3 * inner, 2 * config.num_heads), config.param_dtype))
        self.gate_bias = nnx.Param(gate_bias_init(rngs.params(), config.num_heads, config.param_dtype))
        self.head_norm = HeadNorm(inner, config.num_heads, param_dtype=config.param_dtype)
        self.skip = nnx.Param(jnp.ones((inner,), config.param_dtype))
        self.down = linear(inner, size, wang_init(size, config.num_blocks), **options)

    def initialize_carry(self, batch_size: int) -> MLSTMCarry:
        """The carry before the first token: all zero."""
        heads, inner = self.config.num_heads, self.config.inner_size
        memory = matrix_memory.zero_state(batch_size, heads, inner // heads, inner // heads, self.config.dtype)
        return MLSTMCarry(conv=self._no_inputs(batch_size, inner), memory=memory)

    def _read(self, x, carry, seq_lengths, dropout, *, one_token=False):
        config = self.config
        u, z = jnp.split(self.up(self.norm(x)), 2, axis=-1)
        u = u.astype(config.dtype)
        c, conv = self.conv(u, carry.conv, seq_lengths)
        c = jax.nn.silu(c)
        q, k = jnp.split(self.query_key(c).astype(config.dtype), 2, axis=-1)
        v = self.value(u).astype(config.dtype)
        gates = jnp.concatenate([q, k, v], axis=-1)
        gates = common.affine(gates, self.gate_kernel[...], self.gate_bias[...], config.dtype)
        heads = (*u.shape[:2], config.num_heads, config.inner_size // config.num_heads)
        inputs = [a.reshape(heads) for a in (q, k, v)] + jnp.split(gates, 2, axis=-1)
        if one_token:
            memory, h = matrix_memory.step(*(a[:, 0] for a in inputs), carry.memory)
        else:
            memory, h = mlstm.chunkwise(*inputs, carry.memory, seq_lengths=seq_lengths, chunk_size=config.chunk_size)
        h = self.head_norm(h.reshape(c.shape)) + common.row(self.skip[...], 3) * c
        return MLSTMCarry(conv=conv, memory=memory), x + dropout(self.down(h * jax.nn.silu(z)))


class SLSTMBlock(ResidualBlock):
    """The sLSTM block of this module."""

    def _build(self, config, index, rngs):
        size, heads, options = config.embedding_size, config.num_heads, config.layer_options(rngs)
        small, wide = small_init(size), config.feedforward_size
        self.norm = config.norm()
        self.conv = CausalConv(size, config.conv_size, param_dtype=options["param_dtype"], rngs=rngs)
        self.input_forget = HeadwiseLinear(size, heads, 2, small, **options)
        self.cell_output = HeadwiseLinear(size, heads, 2, small, **options)
        place = index / max(config.num_blocks - 1, 1)
        forget = jnp.tile(slstm.powerlaw_forget_bias(size // heads, place), heads)
        self.recurrent_kernel = nnx.Param(jnp.zeros((heads, size // heads, 4 * size // heads), config.param_dtype))
        self.bias = nnx.Param(
            jnp.zeros((4, size), config.param_dtype).at[1].set(forget.astype(config.param_dtype)).reshape(-1)
        )
        self.head_norm = HeadNorm(size, heads, param_dtype=config.param_dtype)
        self.feedforward_norm = config.norm()
        self.feedforward_in = linear(size, 2 * wide, small, **options)
        self.feedforward_out = linear(wide, size, wang_init(size, config.num_blocks), **options)

    def initialize_carry(self, batch_size: int) -> SLSTMCarry:
        """The carry before the first token: all zero."""
        size, dtype = self.config.embedding_size, self.config.dtype
        return SLSTMCarry(conv=self._no_inputs(batch_size, size), cell=slstm.zero_carry(batch_size, size, dtype))

    def _read(self, x, carry, seq_lengths, dropout, *, one_token=False):
        dtype, kernel = self.config.dtype, self.recurrent_kernel[...]
        u = self.norm(x).astype(dtype)
        c, conv = self.conv(u, carry.conv, seq_lengths)
        gates = jnp.concatenate([self.input_forget(jax.nn.silu(c)), self.cell_output(u)], axis=-1)
        gates = gates + common.row(self.bias[...], 3)
        if one_token:
            cell, y = slstm.recur(kernel, carry.cell, gates[:, 0], dtype=dtype)
        else:
            cell, y = slstm.unroll_preactivations(kernel, gates, seq_lengths=seq_lengths, carry=carry.cell, dtype=dtype)
        x = x + dropout(self.head_norm(y.reshape(x.shape)))
        g, p = jnp.split(self.feedforward_in(self.feedforward_norm(x)), 2, axis=-1)
        ys = x + dropout(self.feedforward_out(jax.nn.gelu(g, approximate=False) * p))
        return SLSTMCarry(conv=conv, cell=cell), ys
