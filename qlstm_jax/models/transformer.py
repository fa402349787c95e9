"""The Transformer as a sequence layer: the baseline that can replace any recurrent layer.

Pre-LN blocks (arXiv 2002.04745, figure 1b) of attention and feed-forward (arXiv 1706.03762, sections 3.2 and 3.3):

    x = xs W + b                                        sinusoidal positions are added here
    x = x + dropout(Attention(LN(x)))                   in each block
    x = x + dropout(W_out GELU(W_in LN(x) + b_in) + b_out)
    ys = LN(x)

    Attention(x)_i = W_o concat_n sum_j softmax_j(q_i·k_j / √K + bias_ij) v_j + b_o
    q, k, v = x W + b, N heads of K = H / N channels    rotary positions turn q and k, ALiBi is the bias

j runs over the valid positions of i's sequence, causal over those up to i. Softmax, norms and the residual sum are
float32 whatever the activations are. Scores take B·N·T² numbers in each block.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypedDict

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from qlstm_jax.cells import common
from qlstm_jax.models.positions import POSITIONS, alibi, rotate, sinusoidal
from qlstm_jax.models.sequence_layer import SequenceModule
from qlstm_jax.nnx.arguments import keeps_arguments
from qlstm_jax.nnx.checks import check_rngs
from qlstm_jax.nnx.dropout import applied, dropout_stream


class Options(TypedDict):
    """The options that all modules share."""

    dtype: DTypeLike
    param_dtype: DTypeLike
    rngs: nnx.Rngs


def check_options(hidden_features: int, *, num_heads: int, positions: str, bidirectional: bool) -> None:
    """Raises ValueError for options that do not go together in a `Transformer`."""
    if bidirectional:
        raise ValueError(
            "bidirectional is True; expected False: a transformer attends both ways unless it is made with causal=True"
        )
    pairs = positions == "rotary"
    unit = 2 * num_heads if pairs else num_heads
    if hidden_features % unit:
        reason = ", and rotary positions turn the channels of a head in pairs" if pairs else ""
        raise ValueError(
            f"hidden_features is {hidden_features}; expected a multiple of {unit}, as num_heads is {num_heads}{reason}"
        )


def _norm(features: int, *, dtype: DTypeLike, param_dtype: DTypeLike, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """LayerNorm with inputs and outputs as precise as the residual sum: `nnx.LayerNorm` rounds its input to its dtype.

    The fast variance is a difference of squares, inaccurate where that sum has a large mean.
    """
    dtype = common.accumulator(dtype)
    return nnx.LayerNorm(features, use_fast_variance=False, dtype=dtype, param_dtype=param_dtype, rngs=rngs)


class Attention(nnx.Module):
    """Multi-head self-attention, x (B, T, H) to (B, T, H); the formula and the options are those of `Transformer`."""

    def __init__(
        self,
        hidden_features: int,
        *,
        num_heads: int,
        positions: str,
        causal: bool,
        dtype: DTypeLike,
        param_dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        linear = partial(nnx.Linear, hidden_features, hidden_features, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        self.query, self.key, self.value, self.output = linear(), linear(), linear(), linear()
        self.num_heads, self.positions, self.causal = num_heads, positions, causal

    def __call__(
        self,
        x: Float[Array, "batch time h"],
        seq_lengths: Int[Array, " batch"] | None = None,
        number: Int[Array, "batch time"] | None = None,
    ) -> Float[Array, "batch time h"]:
        """Positions attend to those of the same `number`, None for all.

        Positions beyond `seq_lengths` are not attended to, and their outputs are undefined.
        """
        batch, steps, features = x.shape
        heads = (batch, steps, self.num_heads, features // self.num_heads)
        query, key, value = (f(x).reshape(heads) for f in (self.query, self.key, self.value))
        if self.positions == "rotary":
            query, key = rotate(query), rotate(key)
        bias = alibi(steps, self.num_heads) if self.positions == "alibi" else None
        # A row of length 0 masks all scores alike by a large finite number, so that its softmax is finite.
        mask = None if number is None else (number[:, :, None] == number[:, None, :])[:, None]
        mixed = jax.nn.dot_product_attention(
            query, key, value, bias, mask, is_causal=self.causal, key_value_seq_lengths=seq_lengths
        )
        output: Array = self.output(mixed.reshape(x.shape))
        return output


class Block(nnx.Module):
    """Attention and feed-forward of LayerNorm(x), each added to the residual sum x (B, T, H), which is float32."""

    def __init__(
        self,
        hidden_features: int,
        *,
        feedforward: int,
        num_heads: int,
        positions: str,
        causal: bool,
        dtype: DTypeLike,
        param_dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        options = Options(dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        h, wide = hidden_features, feedforward * hidden_features
        self.attention_norm = _norm(h, **options)
        self.attention = Attention(h, num_heads=num_heads, positions=positions, causal=causal, **options)
        self.feedforward_norm = _norm(h, **options)
        self.feedforward_in = nnx.Linear(h, wide, **options)
        self.feedforward_out = nnx.Linear(wide, h, **options)

    def __call__(
        self,
        x: Float[Array, "batch time h"],
        seq_lengths: Int[Array, " batch"] | None,
        number: Int[Array, "batch time"] | None,
        dropout: Callable[[Array], Array],
    ) -> Float[Array, "batch time h"]:
        """`number` is that of each position's sequence in its row; `dropout` is applied to all that is added."""
        x = x + dropout(self.attention(self.attention_norm(x), seq_lengths, number))
        wide = jax.nn.gelu(self.feedforward_in(self.feedforward_norm(x)), approximate=False)
        return x + dropout(self.feedforward_out(wide))


class Transformer(SequenceModule):
    """Sequences in, sequences out, called as the layers of `qlstm_jax.nnx`; the formula is that of this module.

    layer = Transformer(3, 8, num_layers=2, rngs=nnx.Rngs(0))
    ys = layer(xs, seq_lengths=seq_lengths)               # (B, T, 3) to (B, T, 8)
    y = layer.last(xs, seq_lengths=seq_lengths)           # (B, 8)

    It has D·H + 3H + L·((4 + 2F)·H² + (9 + F)·H) parameters, and no carry: it reads each sequence whole. With
    reverse=True position t of the outputs is that of the reversed sequence, its positions and causality included.

    Args:
        in_features: D, features of the input.
        hidden_features: H, features of the output; a multiple of num_heads, with rotary positions of twice as many.
        num_layers: L, blocks.
        bidirectional: must be False; without `causal` every position attends both ways.
        dropout: rate on what attention and feed-forward add in each block, by `nnx.Dropout`: on after `train()`, off
            after `eval()`.
        num_heads: N.
        feedforward: F, the width of the feed-forward as a multiple of H.
        positions: "none", "sinusoidal", "rotary" or "alibi"; for sequences of any length.
        causal: whether position t attends to 0..t alone.
        dtype: of activations; None for float32.
        param_dtype: of the parameters.
        rngs: for the initial parameters (stream "params") and the dropout (stream "dropout").

    Raises:
        ValueError: for a size, rate or option out of range, or if bidirectional.
    """

    has_carry = False

    @keeps_arguments
    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        num_heads: int = 4,
        feedforward: int = 4,
        positions: str = "rotary",
        causal: bool = False,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        common.check_sizes(in_features=in_features, hidden_features=hidden_features, num_layers=num_layers)
        common.check_sizes(num_heads=num_heads, feedforward=feedforward)
        common.check_choice("positions", positions, POSITIONS)
        common.check_flags(bidirectional=bidirectional, causal=causal)
        check_options(hidden_features, num_heads=num_heads, positions=positions, bidirectional=bidirectional)
        common.check_rates(dropout=dropout)
        common.check_dtypes(dtype=jnp.float32 if dtype is None else dtype, param_dtype=param_dtype)
        check_rngs(rngs)
        self.in_features, self.hidden_features, self.output_size = in_features, hidden_features, hidden_features
        self.positions, self.bidirectional = positions, False
        dtype = jnp.dtype(jnp.float32 if dtype is None else dtype)
        options = Options(dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        block = partial(Block, feedforward=feedforward, num_heads=num_heads, positions=positions, causal=causal)
        self.embed = nnx.Linear(in_features, hidden_features, **options)
        self.blocks = nnx.List([block(hidden_features, **options) for _ in range(num_layers)])
        self.norm = _norm(hidden_features, **options)
        self.dropout = nnx.Dropout(dropout, rngs=dropout_stream(rngs)) if dropout else None

    def initialize_carry(self, batch_size: int) -> None:
        """Raises ValueError: there is no carry."""
        self._check_has_carry()

    def _read(
        self,
        sequence: common.Sequence,
        carry: Any,
        deterministic: bool | None,
        rngs: nnx.Rngs | Array | None,
        *,
        return_carry: bool,
    ) -> tuple[None, Float[Array, "batch time h"]]:
        xs, seq_lengths, valid, resets = sequence
        dropout = applied(self.dropout, deterministic, rngs)
        x: Array = self.embed(xs)
        x = x.astype(common.accumulator(x.dtype))
        if self.positions == "sinusoidal":
            positions = sinusoidal(x.shape[1], self.hidden_features)
            x = x + (positions[None] if resets is None else positions[_place(resets)])
        number = None if resets is None else jnp.cumsum(resets, axis=1, dtype=jnp.int32)
        for block in self.blocks:
            x = block(x, seq_lengths, number, dropout)
        return None, common.zero_padding(self.norm(x).astype(self.embed.dtype), valid)


def _place(resets: Bool[Array, "batch time"]) -> Int[Array, "batch time"]:
    """The place of each position in its sequence, from 0."""
    t = jnp.arange(resets.shape[1], dtype=jnp.int32)[None]
    return t - jax.lax.cummax(jnp.where(resets, t, 0), axis=1)
