"""The Transformer framed as a sequence layer: the baseline that stands wherever a recurrent layer does.

Pre-LN blocks (arXiv 2002.04745, figure 1b) of attention and feed-forward (arXiv 1706.03762, sections 3.2 and 3.3):

    x = xs W + b                                        sinusoidal positions are added here
    x = x + dropout(Attention(LN(x)))                   in each block
    x = x + dropout(W_out GELU(W_in LN(x) + b_in) + b_out)
    ys = LN(x)

    Attention(x)_i = W_o concat_n sum_j softmax_j(q_i·k_j / √K + bias_ij) v_j + b_o
    q, k, v = x W + b, N heads of K = H / N channels    rotary positions turn q and k, ALiBi is the bias

j runs over the valid positions, causal over those up to i. Softmax, norms and the residual sum are float32 whatever the
activations are. Scores take B·N·T² numbers in each block.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from qlstm_jax.cells import common
from qlstm_jax.models.positions import POSITIONS, alibi, rotate, sinusoidal
from qlstm_jax.nnx.dropout import applied, dropout_stream


def check_options(hidden_size: int, *, num_heads: int, positions: str, bidirectional: bool):
    """Raises ValueError for options that do not go together in a `Transformer`."""
    if bidirectional:
        raise ValueError(
            "bidirectional is True; expected False: a transformer attends both ways unless it is made with causal=True"
        )
    pairs = positions == "rotary"
    unit = 2 * num_heads if pairs else num_heads
    if hidden_size % unit:
        reason = ", and rotary positions turn the channels of a head in pairs" if pairs else ""
        raise ValueError(
            f"hidden_size is {hidden_size}; expected a multiple of {unit}, as num_heads is {num_heads}{reason}"
        )


def _norm(hidden_size: int, *, dtype, param_dtype, rngs):
    """LayerNorm with inputs and outputs as precise as the residual sum: `nnx.LayerNorm` rounds its input to its dtype.

    The fast variance is a difference of squares, which drowns where that sum has a large mean.
    """
    dtype = common.accumulator(dtype)
    return nnx.LayerNorm(hidden_size, use_fast_variance=False, dtype=dtype, param_dtype=param_dtype, rngs=rngs)


class Attention(nnx.Module):
    """Multi-head self-attention, x (B, T, H) to (B, T, H); the formula and the options are those of `Transformer`."""

    def __init__(self, hidden_size: int, *, num_heads: int, positions: str, causal: bool, dtype, param_dtype, rngs):
        linear = partial(nnx.Linear, hidden_size, hidden_size, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        self.query, self.key, self.value, self.output = linear(), linear(), linear(), linear()
        self.num_heads, self.positions, self.causal = num_heads, positions, causal

    def __call__(self, x, seq_lengths=None):
        """Positions beyond `seq_lengths` are not attended to; what the output holds there means nothing."""
        batch, steps, hidden_size = x.shape
        heads = (batch, steps, self.num_heads, hidden_size // self.num_heads)
        query, key, value = (f(x).reshape(heads) for f in (self.query, self.key, self.value))
        if self.positions == "rotary":
            query, key = rotate(query), rotate(key)
        bias = alibi(steps, self.num_heads) if self.positions == "alibi" else None
        # A row of length 0 hides all scores alike by a large finite number, and its softmax is a finite one.
        mixed = jax.nn.dot_product_attention(
            query, key, value, bias, is_causal=self.causal, key_value_seq_lengths=seq_lengths
        )
        return self.output(mixed.reshape(x.shape))


class Block(nnx.Module):
    """Attention and feed-forward, each behind a LayerNorm and beside the residual sum x (B, T, H), kept in float32."""

    def __init__(self, hidden_size: int, *, feedforward: int, dtype, param_dtype, rngs, **attention):
        options = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.attention_norm = _norm(hidden_size, **options)
        self.attention = Attention(hidden_size, **attention, **options)
        self.feedforward_norm = _norm(hidden_size, **options)
        self.feedforward_in = nnx.Linear(hidden_size, feedforward * hidden_size, **options)
        self.feedforward_out = nnx.Linear(feedforward * hidden_size, hidden_size, **options)

    def __call__(self, x, seq_lengths, dropout):
        """`dropout` maps what attention and feed-forward add to what is added."""
        x = x + dropout(self.attention(self.attention_norm(x), seq_lengths))
        wide = jax.nn.gelu(self.feedforward_in(self.feedforward_norm(x)), approximate=False)
        return x + dropout(self.feedforward_out(wide))


class Transformer(nnx.Module):
    """Sequences in, sequences out, in the frame of the layers of `qlstm_jax.nnx`; the formula is that of this module.

    layer = Transformer(3, 8, num_layers=2, rngs=nnx.Rngs(0))
    ys = layer(xs, seq_lengths=seq_lengths)               # (B, T, 3) to (B, T, 8)
    y = layer.last(xs, seq_lengths=seq_lengths)           # (B, 8)

    It has D·H + 3H + L·((4 + 2F)·H² + (9 + F)·H) parameters.

    Args:
        in_features: D.
        hidden_size: H, a multiple of num_heads, with rotary positions of twice as many.
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

    def __init__(
        self,
        in_features: int,
        hidden_size: int,
        *,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        num_heads: int = 4,
        feedforward: int = 4,
        positions: str = "rotary",
        causal: bool = False,
        dtype=None,
        param_dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        common.check_sizes(in_features=in_features, hidden_size=hidden_size, num_layers=num_layers)
        common.check_sizes(num_heads=num_heads, feedforward=feedforward)
        common.check_choice("positions", positions, POSITIONS)
        check_options(hidden_size, num_heads=num_heads, positions=positions, bidirectional=bidirectional)
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is {dropout!r}; expected a rate from 0 to below 1")
        self.in_features, self.hidden_size, self.output_size = in_features, hidden_size, hidden_size
        self.positions, self.bidirectional = positions, False
        options = {
            "dtype": jnp.dtype(jnp.float32 if dtype is None else dtype),
            "param_dtype": param_dtype,
            "rngs": rngs,
        }
        block = partial(Block, feedforward=feedforward, num_heads=num_heads, positions=positions, causal=causal)
        self.embed = nnx.Linear(in_features, hidden_size, **options)
        self.blocks = nnx.List([block(hidden_size, **options) for _ in range(num_layers)])
        self.norm = _norm(hidden_size, **options)
        self.dropout = nnx.Dropout(dropout, rngs=dropout_stream(rngs)) if dropout else None

    def __call__(self, xs, *, seq_lengths=None, initial_carry=None, return_carry=False, deterministic=None, rngs=None):
        """The outputs at every position.

        Args:
            xs: (B, T, D).
            seq_lengths: optional (B,) number of valid positions; what xs holds beyond is not read.
            initial_carry, return_carry: must be left out; recurrent layers have a carry.
            deterministic: whether dropout is off; default as set by `train()` and `eval()`.
            rngs: for dropout, an `nnx.Rngs` or a key; default those of the constructor.

        Returns:
            ys (B, T, H), 0 beyond `seq_lengths`.

        Raises:
            ValueError: if a shape does not fit, a length lies outside 0..T, or a carry is given or asked for.
        """
        if initial_carry is not None or return_carry:
            raise ValueError(
                "a transformer has no carry: it reads each sequence whole. Leave out initial_carry and return_carry, "
                "or take a recurrent layer of qlstm_jax.nnx."
            )
        xs, seq_lengths, valid = common.check_sequence(xs, seq_lengths, self.in_features)
        dropout = applied(self.dropout, deterministic, rngs)
        x = self.embed(xs)
        x = x.astype(common.accumulator(x.dtype))
        if self.positions == "sinusoidal":
            x = x + sinusoidal(x.shape[1], self.hidden_size)[None]
        for block in self.blocks:
            x = block(x, seq_lengths, dropout)
        ys = self.norm(x).astype(self.embed.dtype)
        return ys if valid is None else jnp.where(valid[:, :, None], ys, jnp.zeros((), ys.dtype))

    def last(self, xs, *, seq_lengths=None, deterministic=None, rngs=None):
        """The output at each row's last valid position, (B, H); zeros at length 0. Arguments are those of a call."""
        ys = self(xs, seq_lengths=seq_lengths, deterministic=deterministic, rngs=rngs)
        if ys.shape[1] == 0:
            return jnp.zeros((ys.shape[0], ys.shape[2]), ys.dtype)
        return common.last_valid(ys, seq_lengths)
