"""xLSTM (arXiv 2405.04517) and xLSTM 7B (2503.13427): the stack as a language model and as a sequence layer.

    logits = cap(stack(Embed(tokens)) W_head)               no bias, not tied to the embedding
    ys = stack(xs W + b)

With an `MLSTM7BConfig` cap is 30 tanh(logits / 30), with an `XLSTMConfig` nothing. Each model reads a whole sequence at
once, or a token at a time by `step`, to the same result. What belongs to xLSTM is imported from here.
"""

import jax.numpy as jnp
from flax import nnx

from qlstm_jax.cells import common
from qlstm_jax.models.xlstm_7b import MLSTM7BBlock, MLSTM7BConfig, capped
from qlstm_jax.models.xlstm_blocks import MLSTMBlock, SLSTMBlock
from qlstm_jax.models.xlstm_config import XLSTMConfig, slstm_positions
from qlstm_jax.models.xlstm_layers import linear, small_init
from qlstm_jax.models.xlstm_stack import XLSTMStack, block_kind

__all__ = [
    "XLSTM",
    "MLSTM7BBlock",
    "MLSTM7BConfig",
    "MLSTMBlock",
    "SLSTMBlock",
    "XLSTMConfig",
    "XLSTMLanguageModel",
    "XLSTMStack",
    "block_kind",
    "slstm_positions",
]


class XLSTMLanguageModel(nnx.Module):
    """Tokens in, the logits of the next token out; `qlstm_jax.models.generate` writes with it.

    config = XLSTMConfig(vocab_size=256, embedding_size=64, num_blocks=8, slstm_at="7:1")
    model = XLSTMLanguageModel(config, rngs=nnx.Rngs(0))
    carry, logits = model(tokens, return_carry=True)        # (B, T) to (B, T, 256)
    carry, logits = model.step(carry, token)                # one more token, (B,) to (B, 256)

    Args:
        config: sizes and options, vocab_size among them; its class says which blocks, norm and cap.
        rngs: for the initial parameters (stream "params") and the dropout (stream "dropout").

    Raises:
        ValueError: if the config has no vocab_size.
    """

    has_carry = True

    def __init__(self, config: XLSTMConfig | MLSTM7BConfig, *, rngs: nnx.Rngs):
        if config.vocab_size is None:
            raise ValueError("vocab_size is None; expected the number of tokens of the language model")
        size, options = config.embedding_size, config.layer_options(rngs)
        self.config = config
        self.embed = nnx.Embed(config.vocab_size, size, embedding_init=small_init(size), **options)
        self.stack = XLSTMStack(config, rngs=rngs)
        self.head = linear(size, config.vocab_size, small_init(size), **options)

    def initialize_carry(self, batch_size: int) -> tuple:
        """The carry before the first token, a tuple with one for each block."""
        return self.stack.initialize_carry(batch_size)

    def __call__(
        self, tokens, *, seq_lengths=None, initial_carry=None, return_carry=False, deterministic=None, rngs=None
    ):
        """The logits at every position, equal to folding `step`.

        Args:
            tokens: (B, T) integers in 0..V−1, beyond seq_lengths any.
            seq_lengths, return_carry, deterministic, rngs: as of `XLSTMStack`.
            initial_carry: where to continue from; default `initialize_carry`.

        Returns:
            logits (B, T, V), float32, 0 beyond `seq_lengths`; with return_carry (carry, logits).

        Raises:
            ValueError: if tokens are not (B, T) integers, or for what `XLSTMStack` refuses.
        """
        self._check(tokens, 2, "(batch, time)")
        options = {"seq_lengths": seq_lengths, "carry": initial_carry, "deterministic": deterministic, "rngs": rngs}
        carry, ys = self.stack(self.embed(tokens), return_carry=True, **options)
        return (carry, self._logits(ys)) if return_carry else self._logits(ys)

    def step(self, carry, tokens):
        """One token a row, (B,) integers to (carry, logits (B, V)), without dropout.

        Raises:
            ValueError: if tokens are not (B,) integers, or the carry does not fit.
        """
        self._check(tokens, 1, "(batch,)")
        carry, y = self.stack.step(carry, self.embed(tokens))
        return carry, self._logits(y)

    def _logits(self, ys):
        return self.head(ys) if self.config.logit_cap is None else capped(self.head(ys), self.config.logit_cap)

    def _check(self, tokens, ndim, axes):
        if tokens.ndim != ndim or not jnp.issubdtype(tokens.dtype, jnp.integer):
            raise ValueError(f"tokens is {tokens.dtype} of shape {tokens.shape}; expected integers of shape {axes}")


class XLSTM(nnx.Module):
    """Sequences in, sequences out, in the frame of the layers of `qlstm_jax.nnx`: a linear map and an `XLSTMStack`.

    layer = XLSTM(3, 64, num_layers=2, slstm_at="1", rngs=nnx.Rngs(0))
    carry, ys = layer(xs, return_carry=True)                # (B, T, 3) to (B, T, 64)
    y = layer.last(xs, seq_lengths=seq_lengths)                     # (B, 64)

    Args:
        in_features: D.
        hidden_size: H; with sLSTM blocks a multiple of num_heads.
        num_layers: blocks.
        bidirectional: must be False.
        dropout: rate on all that is added to the residual sum: on after `train()`, off after `eval()`.
        slstm_at: which blocks are sLSTM blocks: "" for none, "all", "0,2", or a ratio "7:1"; see `slstm_positions`.
        num_heads: N.
        chunk_size: tokens that an mLSTM takes at once; it changes the speed, not the result.
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
        slstm_at: str = "",
        num_heads: int = 4,
        chunk_size: int = 64,
        dtype=None,
        param_dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        common.check_sizes(in_features=in_features, hidden_size=hidden_size, num_layers=num_layers)
        if bidirectional:
            raise ValueError("bidirectional is True; expected False: an xLSTM reads forward, and its carry goes on")
        config = XLSTMConfig(
            embedding_size=hidden_size,
            num_blocks=num_layers,
            slstm_at=slstm_at,
            num_heads=num_heads,
            dropout=dropout,
            chunk_size=chunk_size,
            dtype=dtype,
            param_dtype=param_dtype,
        )
        self.in_features, self.hidden_size, self.output_size = in_features, hidden_size, hidden_size
        self.bidirectional = False
        self.embed = nnx.Linear(in_features, hidden_size, **config.layer_options(rngs))
        self.stack = XLSTMStack(config, rngs=rngs)

    def initialize_carry(self, batch_size: int) -> tuple:
        """The carry before the first token, a tuple with one for each block."""
        return self.stack.initialize_carry(batch_size)

    def __call__(self, xs, *, seq_lengths=None, initial_carry=None, return_carry=False, deterministic=None, rngs=None):
        """The outputs at every position.

        Args:
            xs: (B, T, D).
            seq_lengths, return_carry, deterministic, rngs: as of `XLSTMStack`.
            initial_carry: where to continue from, a tuple with one carry for each block.

        Returns:
            ys (B, T, H), 0 beyond `seq_lengths`; with return_carry (ys, carry).

        Raises:
            ValueError: if a shape or carry does not fit, or a length lies outside 0..T.
        """
        xs, seq_lengths, _ = common.check_sequence(xs, seq_lengths, self.in_features)
        options = {"return_carry": return_carry, "deterministic": deterministic, "rngs": rngs}
        return self.stack(self.embed(xs), seq_lengths=seq_lengths, carry=initial_carry, **options)

    def last(self, xs, *, seq_lengths=None, deterministic=None, rngs=None):
        """The output at each row's last valid position, (B, H); zeros at length 0. Arguments are those of a call."""
        ys = self(xs, seq_lengths=seq_lengths, deterministic=deterministic, rngs=rngs)
        if ys.shape[1] == 0:
            return jnp.zeros((ys.shape[0], ys.shape[2]), ys.dtype)
        return common.last_valid(ys, seq_lengths)
