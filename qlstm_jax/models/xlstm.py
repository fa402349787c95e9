"""xLSTM (arXiv 2405.04517) and xLSTM 7B (arXiv 2503.13427) as a language model and as a sequence layer.

    logits = cap(stack(Embed(tokens)) W_head)               no bias; with tie_embedding W_head is the embedding
    ys = stack(xs W + b)

With an `MLSTM7BConfig` cap is 30 tanh(logits / 30), with an `XLSTMConfig` nothing. Each model reads a whole sequence at
once, or a token at a time by `step`, to the same result. The public names of xLSTM are imported from here.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, Integer

from qlstm_jax.cells import common
from qlstm_jax.models.sequence_layer import SequenceModule
from qlstm_jax.models.xlstm_7b import MLSTM7BBlock, MLSTM7BConfig, capped
from qlstm_jax.models.xlstm_blocks import MLSTMBlock, SLSTMBlock
from qlstm_jax.models.xlstm_config import XLSTMConfig, slstm_positions
from qlstm_jax.models.xlstm_layers import linear, small_init
from qlstm_jax.models.xlstm_stack import XLSTMStack, block_kind, check_config
from qlstm_jax.nnx.arguments import keeps_arguments
from qlstm_jax.nnx.checks import check_rngs
from qlstm_jax.nnx.dropout import applied, dropout_stream

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
    """Tokens in, the logits of the next token out; `qlstm_jax.models.generate` draws from it.

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

    @keeps_arguments
    def __init__(self, config: XLSTMConfig | MLSTM7BConfig, *, rngs: nnx.Rngs) -> None:
        check_config(config)
        check_rngs(rngs)
        if config.vocab_size is None:
            raise ValueError("vocab_size is None; expected the number of tokens of the language model")
        size, options = config.embedding_size, config.layer_options(rngs)
        self.config = config
        self.embed = nnx.Embed(config.vocab_size, size, embedding_init=small_init(size), **options)
        self.stack = XLSTMStack(config, rngs=rngs)
        self.embedding_dropout = (
            nnx.Dropout(config.embedding_dropout, rngs=dropout_stream(rngs)) if config.embedding_dropout else None
        )
        self.head = None if config.tie_embedding else linear(size, config.vocab_size, small_init(size), **options)

    @property
    def vocab_size(self) -> int:
        """V: tokens are 0..V−1."""
        size: int = self.embed.num_embeddings
        return size

    def initialize_carry(self, batch_size: int) -> tuple[Any, ...]:
        """The carry before the first token, a tuple with one for each block."""
        return self.stack.initialize_carry(batch_size)

    def __call__(
        self,
        tokens: Integer[ArrayLike, "batch time"],
        *,
        seq_lengths: Any = None,
        resets: Any = None,
        initial_carry: tuple[Any, ...] | None = None,
        return_carry: bool = False,
        deterministic: bool | None = None,
        rngs: nnx.Rngs | Array | None = None,
    ) -> Any:
        """The logits at every position, equal to folding `step`.

        Args:
            tokens: (B, T) integers in 0..V−1, beyond seq_lengths any.
            seq_lengths, resets, return_carry, deterministic, rngs: as of `XLSTMStack`.
            initial_carry: where to continue from; default `initialize_carry`.

        Returns:
            logits (B, T, V), float32, 0 beyond `seq_lengths`; with return_carry (carry, logits).

        Raises:
            TypeError: if tokens are no array of integers.
            ValueError: if they are not (B, T), a valid one lies outside 0..V−1, or as `XLSTMStack` does.
        """
        common.check_flags(return_carry=return_carry)
        ids = common.check_ids("tokens", tokens, self.vocab_size, seq_lengths=seq_lengths)
        # One key would give every place that drops the same masks.
        rngs = nnx.Rngs(rngs) if isinstance(rngs, jax.Array) else rngs
        result = self.stack(
            applied(self.embedding_dropout, deterministic, rngs)(self.embed(ids)),
            seq_lengths=seq_lengths,
            resets=resets,
            carry=initial_carry,
            return_carry=return_carry,
            deterministic=deterministic,
            rngs=rngs,
        )
        return (result[0], self._logits(result[1])) if return_carry else self._logits(result)

    def step(
        self, carry: tuple[Any, ...] | None, tokens: Integer[ArrayLike, " batch"], *, reset: ArrayLike | None = None
    ) -> tuple[tuple[Any, ...], Float[Array, "batch v"]]:
        """One token a row, (B,) integers to (carry, logits (B, V)), without dropout; `reset` as of `XLSTMStack.step`.

        Raises:
            TypeError: if tokens are no array of integers.
            ValueError: if they are not (B,), one lies outside 0..V−1, or the carry or the reset does not fit.
        """
        ids = common.check_ids("tokens", tokens, self.vocab_size, ("batch",))
        carry, y = self.stack.step(carry, self.embed(ids), reset=reset)
        return carry, self._logits(y)

    def _logits(self, ys: Float[Array, "*rows h"]) -> Float[Array, "*rows v"]:
        if self.head is None:
            dtype = self.config.dtype
            kernel, ys = self.embed.embedding[...].astype(dtype), ys.astype(dtype)
            logits = jnp.matmul(ys, kernel.T, preferred_element_type=common.accumulator(dtype))
        else:
            logits = self.head(ys)
        return capped(logits, self.config.logit_cap)


class XLSTM(SequenceModule):
    """Sequences in, sequences out, called as the layers of `qlstm_jax.nnx`: a linear map and an `XLSTMStack`.

    layer = XLSTM(3, 64, num_layers=2, slstm_at="1", rngs=nnx.Rngs(0))
    carry, ys = layer(xs, return_carry=True)                # (B, T, 3) to (B, T, 64)
    y = layer.last(xs, seq_lengths=seq_lengths)             # (B, 64)

    The carry is a tuple with one for each block.

    Args:
        in_features: D, features of the input.
        hidden_features: H, features of the output; with sLSTM blocks a multiple of num_heads.
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

    has_carry = True

    @keeps_arguments
    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        slstm_at: str = "",
        num_heads: int = 4,
        chunk_size: int = 64,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        common.check_sizes(in_features=in_features, hidden_features=hidden_features, num_layers=num_layers)
        common.check_flags(bidirectional=bidirectional)
        common.check_dtypes(dtype=jnp.float32 if dtype is None else dtype, param_dtype=param_dtype)
        check_rngs(rngs)
        if bidirectional:
            raise ValueError("bidirectional is True; expected False: an xLSTM reads forward, so that it has a carry")
        config = XLSTMConfig(
            embedding_size=hidden_features,
            num_blocks=num_layers,
            slstm_at=slstm_at,
            num_heads=num_heads,
            dropout=dropout,
            chunk_size=chunk_size,
            dtype=jnp.dtype(jnp.float32 if dtype is None else dtype).name,
            param_dtype=jnp.dtype(param_dtype).name,
        )
        self.in_features, self.hidden_features, self.output_size = in_features, hidden_features, hidden_features
        self.bidirectional = False
        self.embed = nnx.Linear(in_features, hidden_features, **config.layer_options(rngs))
        self.stack = XLSTMStack(config, rngs=rngs)

    def initialize_carry(self, batch_size: int) -> tuple[Any, ...]:
        """The carry before the first token, a tuple with one for each block."""
        return self.stack.initialize_carry(batch_size)

    def _read(
        self,
        sequence: common.Sequence,
        carry: Any,
        deterministic: bool | None,
        rngs: nnx.Rngs | Array | None,
        *,
        return_carry: bool,
    ) -> tuple[tuple[Any, ...] | None, Float[Array, "batch time h"]]:
        result = self.stack(
            self.embed(sequence.xs),
            seq_lengths=sequence.seq_lengths,
            resets=sequence.resets,
            carry=carry,
            return_carry=return_carry,
            deterministic=deterministic,
            rngs=rngs,
        )
        return result if return_carry else (None, result)
