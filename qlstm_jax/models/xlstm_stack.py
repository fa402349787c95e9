"""A stack of blocks of xLSTM (arXiv 2405.04517) or of xLSTM 7B (2503.13427): x = block(x) for each; ys = norm(x), or x.

An `XLSTMConfig` gives blocks of `qlstm_jax.models.xlstm_blocks` and LayerNorm, an `MLSTM7BConfig` the block of
`qlstm_jax.models.xlstm_7b` and RMSNorm.
"""

from collections.abc import Sequence
from typing import Any

import jax
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from qlstm_jax.cells import common
from qlstm_jax.models.xlstm_7b import MLSTM7BBlock, MLSTM7BConfig
from qlstm_jax.models.xlstm_blocks import MLSTMBlock, SLSTMBlock
from qlstm_jax.models.xlstm_config import XLSTMConfig
from qlstm_jax.nnx.arguments import keeps_arguments
from qlstm_jax.nnx.checks import check_rngs, check_source

Block = MLSTMBlock | SLSTMBlock | MLSTM7BBlock


def block_kind(config: XLSTMConfig | MLSTM7BConfig, index: int) -> type[Block]:
    """The class of the block at a position in the stack, counted from 0."""
    if isinstance(config, MLSTM7BConfig):
        return MLSTM7BBlock
    return SLSTMBlock if index in config.slstm_at else MLSTMBlock


def check_config(config: Any) -> None:
    """Raises TypeError unless `config` is that of an `XLSTMStack`."""
    if not isinstance(config, XLSTMConfig | MLSTM7BConfig):
        raise TypeError(f"config is {common.kind(config)}; expected an XLSTMConfig or an MLSTM7BConfig")


class XLSTMStack(nnx.Module):
    """A stack of blocks and a final norm: xs (B, T, H) to (B, T, H).

    config = XLSTMConfig(embedding_size=64, num_blocks=8, slstm_at="7:1")
    stack = XLSTMStack(config, rngs=nnx.Rngs(0))
    carry, ys = stack(xs, return_carry=True)
    carry, y = stack.step(carry, x)                         # one more token, x (B, 64)

    Args:
        config: sizes and options; its class says which blocks and which norm.
        rngs: for the initial parameters (stream "params") and the dropout (stream "dropout").
    """

    @keeps_arguments
    def __init__(self, config: XLSTMConfig | MLSTM7BConfig, *, rngs: nnx.Rngs) -> None:
        check_config(config)
        check_rngs(rngs)
        self.config = config
        kinds: list[Any] = [block_kind(config, n) for n in range(config.num_blocks)]
        self.blocks: nnx.List[Block] = nnx.List([kind(config, index=n, rngs=rngs) for n, kind in enumerate(kinds)])
        self.norm = config.norm() if config.final_norm else None

    def initialize_carry(self, batch_size: int) -> tuple[Any, ...]:
        """The carry before the first token, a tuple with one for each block."""
        return tuple(block.initialize_carry(batch_size) for block in self.blocks)

    def __call__(
        self,
        xs: Float[Array, "batch time h"],
        *,
        seq_lengths: Any = None,
        resets: Any = None,
        carry: tuple[Any, ...] | None = None,
        return_carry: bool = False,
        deterministic: bool | None = None,
        rngs: nnx.Rngs | Array | None = None,
    ) -> Any:
        """The outputs at every position, equal to folding `step`.

        Args:
            xs: (B, T, H).
            seq_lengths: optional (B,) number of valid positions; nothing beyond is read.
            resets: optional (B, T) booleans, true where a new sequence begins: each is read as if alone.
            carry: where to continue from; default `initialize_carry`.
            return_carry: whether to return the carry after each row's last valid position too.
            deterministic: whether dropout is off; default as set by `train()` and `eval()`.
            rngs: for dropout, an `nnx.Rngs` or a key; default those of the constructor.

        Returns:
            ys (B, T, H), 0 beyond `seq_lengths`; with return_carry (carry, ys).

        Raises:
            ValueError: if a shape or the carry does not fit, or a length lies outside 0..T.
        """
        common.check_flags(return_carry=return_carry)
        xs, lengths, valid, resets = common.check_sequence(xs, seq_lengths, self.config.embedding_size, resets)
        check_source(rngs, "dropout", unused=not self.config.dropout)
        # One key would give every block the same masks.
        rngs = nnx.Rngs(rngs) if isinstance(rngs, jax.Array) else rngs
        ends = []
        for block, start in self._with_carries(carry):
            result = block(
                xs,
                seq_lengths=lengths,
                resets=resets,
                carry=start,
                return_carry=return_carry,
                deterministic=deterministic,
                rngs=rngs,
            )
            end, xs = result if return_carry else (None, result)
            ends.append(end)
        ys = common.zero_padding(self._normed(xs), valid)
        return (tuple(ends), ys) if return_carry else ys

    def step(
        self, carry: tuple[Any, ...] | None, x: Float[Array, "batch h"], *, reset: ArrayLike | None = None
    ) -> tuple[tuple[Any, ...], Float[Array, "batch h"]]:
        """One token, x (B, H) to (carry, y (B, H)), without dropout.

        Where `reset`, None or (B,) booleans, a new sequence begins, and the carry is dropped.

        Raises:
            ValueError: if x, the carry or the reset does not fit.
        """
        ends = []
        for block, start in self._with_carries(carry):
            end, x = block.step(start, x, reset=reset)
            ends.append(end)
        return tuple(ends), self._normed(x)

    def _normed(self, x: Float[Array, "*rows h"]) -> Float[Array, "*rows h"]:
        normed: Array = x if self.norm is None else self.norm(x)
        return normed.astype(self.config.dtype)

    def _with_carries(self, carry: Any) -> Sequence[tuple[Any, Any]]:
        """Each block with its carry, None at the start of a sequence."""
        if carry is None:
            carry = (None,) * len(self.blocks)
        if type(carry) is not tuple or len(carry) != len(self.blocks):
            raise ValueError(
                f"the carry is {common.kind(carry)}; expected a tuple of {len(self.blocks)}, one carry for each block"
            )
        return list(zip(self.blocks, carry, strict=True))
