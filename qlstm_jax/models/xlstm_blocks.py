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

An `XLSTMConfig` can leave out the sLSTM block's convolution (then c = u) and its feed-forward, take another function
for gelu, and give the maps biases. LN and HeadNorm have no bias, and their scale is 1 + w. Norms, gates, states and the
residual sum are float32 (or wider) whatever the activations are.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from qlstm_jax.cells import common, slstm
from qlstm_jax.cells.mlstm import matrix_memory
from qlstm_jax.models.xlstm_config import XLSTMConfig
from qlstm_jax.models.xlstm_layers import (
    ACTIVATIONS,
    CausalConv,
    HeadNorm,
    HeadwiseLinear,
    gate_bias_init,
    linear,
    small_init,
    wang_init,
)
from qlstm_jax.models.xlstm_residual import Dropout, Masks, ResidualBlock, read_memory


class MLSTMCarry(NamedTuple):
    """The carry of an mLSTM block."""

    conv: Float[Array, "batch w inner"]  # the last W − 1 inputs of the convolution, the oldest first
    memory: matrix_memory.State


class SLSTMCarry(NamedTuple):
    """The carry of an sLSTM block."""

    conv: Float[Array, "batch w h"]  # the last W − 1 inputs of the convolution, the oldest first
    cell: slstm.Carry


def _no_inputs(width: int, batch_size: int, features: int, dtype: DTypeLike) -> Float[Array, "batch w features"]:
    return jnp.zeros((batch_size, max(width - 1, 0), features), dtype)


class MLSTMBlock(ResidualBlock[XLSTMConfig, MLSTMCarry]):
    """The mLSTM block of this module."""

    def _build(self, config: XLSTMConfig, index: int, rngs: nnx.Rngs) -> None:
        size, inner, options = config.embedding_size, config.inner_size, config.layer_options(rngs)
        small = small_init(size)
        self.norm = config.norm()
        self.up = linear(size, 2 * inner, small, bias=config.bias, **options)
        self.conv = CausalConv(inner, config.conv_size, param_dtype=options["param_dtype"], rngs=rngs)
        blocks = inner // config.projection_block
        self.query_key = HeadwiseLinear(inner, blocks, 2, small, bias=config.bias, **options)
        self.value = HeadwiseLinear(inner, blocks, 1, small, bias=config.bias, **options)
        self.gate_kernel = nnx.Param(jnp.zeros((3 * inner, 2 * config.num_heads), config.param_dtype))
        self.gate_bias = nnx.Param(gate_bias_init(rngs.params(), config.num_heads, config.param_dtype))
        self.head_norm = HeadNorm(inner, config.num_heads, epsilon=config.norm_eps, param_dtype=config.param_dtype)
        self.skip = nnx.Param(jnp.ones((inner,), config.param_dtype))
        self.down = linear(inner, size, wang_init(size, config.num_blocks), bias=config.bias, **options)

    def initialize_carry(self, batch_size: int) -> MLSTMCarry:
        """The carry before the first token: all zero."""
        heads, inner = self.config.num_heads, self.config.inner_size
        memory = matrix_memory.zero_state(batch_size, heads, inner // heads, inner // heads, self.config.dtype)
        conv = _no_inputs(self.config.conv_size, batch_size, inner, self.config.dtype)
        return MLSTMCarry(conv=conv, memory=memory)

    def _read(
        self,
        x: Float[Array, "batch time h"],
        carry: MLSTMCarry,
        masks: Masks,
        dropout: Dropout,
        *,
        one_token: bool = False,
    ) -> tuple[MLSTMCarry, Float[Array, "batch time h"]]:
        config = self.config
        u, z = jnp.split(self.up(self.norm(x)), 2, axis=-1)
        u = u.astype(config.dtype)
        c, conv = self.conv(u, carry.conv, **masks._asdict())
        c = jax.nn.silu(c)
        q, k = jnp.split(self.query_key(c).astype(config.dtype), 2, axis=-1)
        v = self.value(u).astype(config.dtype)
        gates = jnp.concatenate([q, k, v], axis=-1)
        gates = common.affine(gates, self.gate_kernel[...], self.gate_bias[...], config.dtype)
        heads = (*u.shape[:2], config.num_heads, config.inner_size // config.num_heads)
        q, k, v = (a.reshape(heads) for a in (q, k, v))
        memory, h = read_memory(q, k, v, gates, carry.memory, masks, chunk_size=config.chunk_size, one_token=one_token)
        h = self.head_norm(h.reshape(c.shape)) + common.row(self.skip[...], 3) * c
        return MLSTMCarry(conv=conv, memory=memory), x + dropout(self.down(h * jax.nn.silu(z)))


class SLSTMBlock(ResidualBlock[XLSTMConfig, SLSTMCarry]):
    """The sLSTM block of this module."""

    def _build(self, config: XLSTMConfig, index: int, rngs: nnx.Rngs) -> None:
        size, heads, options = config.embedding_size, config.heads(index), config.layer_options(rngs)
        small, wide, self.width = small_init(size), config.feedforward_size, config.conv(index)
        self.norm = config.norm()
        self.conv = CausalConv(size, self.width, param_dtype=options["param_dtype"], rngs=rngs) if self.width else None
        self.input_forget = HeadwiseLinear(size, heads, 2, small, **options)
        self.cell_output = HeadwiseLinear(size, heads, 2, small, **options)
        place = index / max(config.num_blocks - 1, 1)
        forget = jnp.tile(slstm.powerlaw_forget_bias(size // heads, place), heads)
        self.recurrent_kernel = nnx.Param(jnp.zeros((heads, size // heads, 4 * size // heads), config.param_dtype))
        self.bias = nnx.Param(
            jnp.zeros((4, size), config.param_dtype).at[1].set(forget.astype(config.param_dtype)).reshape(-1)
        )
        self.head_norm = HeadNorm(
            size, heads, epsilon=config.norm_eps, scale=config.slstm_norm_scale, param_dtype=config.param_dtype
        )
        self.has_feedforward = bool(wide)
        if wide:
            bias, wang = config.feedforward_bias, wang_init(size, config.num_blocks)
            self.feedforward_norm = config.norm()
            self.feedforward_in = linear(size, 2 * wide, small, bias=bias, **options)
            self.feedforward_out = linear(wide, size, wang, bias=bias, **options)

    def initialize_carry(self, batch_size: int) -> SLSTMCarry:
        """The carry before the first token: all zero."""
        size, dtype = self.config.embedding_size, self.config.dtype
        return SLSTMCarry(
            conv=_no_inputs(self.width, batch_size, size, dtype), cell=slstm.zero_carry(batch_size, size, dtype)
        )

    def _read(
        self,
        x: Float[Array, "batch time h"],
        carry: SLSTMCarry,
        masks: Masks,
        dropout: Dropout,
        *,
        one_token: bool = False,
    ) -> tuple[SLSTMCarry, Float[Array, "batch time h"]]:
        dtype, kernel = self.config.dtype, self.recurrent_kernel[...]
        u = self.norm(x).astype(dtype)
        c, conv = u, carry.conv
        if self.conv is not None:
            c, conv = self.conv(u, conv, **masks._asdict())
            c = jax.nn.silu(c)
        gates = jnp.concatenate([self.input_forget(c), self.cell_output(u)], axis=-1)
        gates = gates + common.row(self.bias[...], 3)
        if one_token:
            cell, y = slstm.recur(kernel, carry.cell, gates[:, 0], dtype=dtype)
        else:
            options = {"carry": carry.cell, "dtype": dtype, **masks._asdict()}
            cell, y = slstm.unroll_preactivations(kernel, gates, **options)
        x = x + dropout(self.head_norm(y.reshape(x.shape)))
        if self.has_feedforward:
            g, p = jnp.split(self.feedforward_in(self.feedforward_norm(x)), 2, axis=-1)
            x = x + dropout(self.feedforward_out(ACTIVATIONS[self.config.activation](g) * p))
        return SLSTMCarry(conv=conv, cell=cell), x
