"""The sizes and options of xLSTM stacks, and which of their blocks are sLSTM blocks (arXiv 2405.04517)."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, TypedDict

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from qlstm_jax.cells import common
from qlstm_jax.models.xlstm_layers import ACTIVATIONS, EPSILON, HeadNorm


class LayerOptions(TypedDict):
    """The options that all layers share."""

    dtype: jnp.dtype
    param_dtype: jnp.dtype
    rngs: nnx.Rngs


def slstm_positions(slstm_at: str | Sequence[int], num_blocks: int) -> tuple[int, ...]:
    """Which blocks of a stack are sLSTM blocks, counted from 0, in ascending order.

    Args:
        slstm_at: the positions themselves, (1, 3) or "1,3"; "" for none; "all"; or "a:b" for xLSTM[a:b], where of every
            a + b blocks the last b are sLSTM blocks. (The paper gives the ratio and places them by hand.)
        num_blocks: L.

    Raises:
        ValueError: if it is none of these, a position is not in 0..L−1 or given twice, or a + b does not divide L.
    """
    common.check_sizes(num_blocks=num_blocks)
    error = ValueError(
        f"slstm_at is {common.shown(slstm_at)}; expected positions in 0..{num_blocks - 1} such as (0, 2) or '0,2', "
        f"'', 'all', or a ratio a:b whose sum divides num_blocks, which is {num_blocks}"
    )
    if isinstance(slstm_at, str) and slstm_at.count(":") == 1:
        mlstms, slstms = _integers(slstm_at.split(":"))
        if min(mlstms, slstms) < 0 or mlstms + slstms == 0 or num_blocks % (mlstms + slstms):
            raise error
        return tuple(n for n in range(num_blocks) if n % (mlstms + slstms) >= mlstms)
    if slstm_at == "all":
        return tuple(range(num_blocks))
    places: Any = slstm_at
    if isinstance(places, str):
        places = _integers(places.split(",") if places.strip() else [])
    if not isinstance(places, Sequence) or not all(map(common.is_integer, places)):
        raise error
    if len(set(places)) < len(places) or any(not 0 <= n < num_blocks for n in places):
        raise error
    return tuple(sorted(places))


def _integers(parts: Sequence[str]) -> list[int]:
    """-1 for a part that is none."""
    return [int(part) if part.strip().isdecimal() else -1 for part in parts]


def rounded_up(size: float, multiple: int) -> int:
    """The smallest multiple that is at least `size`."""
    return math.ceil(size / multiple) * multiple


@dataclasses.dataclass(frozen=True, kw_only=True)
class StackConfig:
    """The sizes and options of all kinds of stack; a subclass has `norm` and calls `_check`."""

    embedding_size: int  # H
    num_blocks: int  # L
    vocab_size: int | None = None  # V, of a language model
    num_heads: int = 4  # N
    dropout: float = 0.0  # rate on all that is added to the residual sum
    embedding_dropout: float = 0.0  # rate on the embedded tokens of a language model
    tie_embedding: bool = False  # whether a language model's last map is its embedding
    final_norm: bool = True  # whether a norm follows the last block
    bias: bool = False  # of the linear maps: all of xLSTM 7B's and its norms', else those of the mLSTM blocks
    norm_eps: float = EPSILON  # ε of the norms
    logit_cap: float | None = None  # a language model's logits are cap · tanh(logits / cap)
    chunk_size: int = 64  # tokens that an mLSTM takes at once; it changes the speed, not the result
    dtype: DTypeLike = "float32"  # of activations; both are kept as names
    param_dtype: DTypeLike = "float32"

    def norm(self) -> HeadNorm:
        """A norm of the residual sum."""
        raise NotImplementedError

    def _check(self, sizes: tuple[str, ...] = (), factors: tuple[str, ...] = ()) -> None:
        """Checks the common fields, and the sizes and factors of these names; dtypes are kept as names."""
        sizes = ("embedding_size", "num_blocks", "num_heads", "chunk_size", *sizes)
        sizes += () if self.vocab_size is None else ("vocab_size",)
        common.check_sizes(**{name: getattr(self, name) for name in sizes})
        above = ("norm_eps", "logit_cap", *factors)  # None: there is none, where the field may be None
        common.check_above_zero(**{name: getattr(self, name) for name in above if getattr(self, name) is not None})
        common.check_rates(dropout=self.dropout, embedding_dropout=self.embedding_dropout)
        for name in ("dtype", "param_dtype"):
            value = getattr(self, name)
            common.check_dtypes(**{name: jnp.float32 if value is None else value})
            object.__setattr__(self, name, jnp.dtype(jnp.float32 if value is None else value).name)

    def _check_divides(self, name: str, whole: str, size: int) -> None:
        if size % getattr(self, name) or size == 0:
            raise ValueError(f"{whole} is {size}; expected a multiple of {name}, which is {getattr(self, name)}")

    def layer_options(self, rngs: nnx.Rngs) -> LayerOptions:
        """The options that layers share."""
        return LayerOptions(dtype=jnp.dtype(self.dtype), param_dtype=jnp.dtype(self.param_dtype), rngs=rngs)


@dataclasses.dataclass(frozen=True, kw_only=True)
class XLSTMConfig(StackConfig):
    """The sizes and options of a stack of the blocks of the first paper; defaults are those of the official code.

    Raises:
        ValueError: for a size, rate or option out of range, or sizes that do not divide each other.
    """

    slstm_at: str | Sequence[int] = ()  # see `slstm_positions`; kept as positions
    conv_size: int = 4  # W
    projection_block: int = 4  # rows of a block of W_q, W_k and W_v
    inner_factor: float = 2.0  # inner is this times H, rounded up
    inner_multiple: int = 64
    slstm_heads: int | None = None  # N of the sLSTM blocks; None for num_heads
    slstm_conv_size: int | None = None  # W of the sLSTM blocks, 0 for no convolution; None for conv_size
    slstm_function: str = "slstm"  # what their cell computes; there is no other yet
    slstm_norm_scale: bool = True  # whether the norm of their heads has a scale
    feedforward_factor: float | None = 1.3  # of their feed-forward; None for none
    feedforward_multiple: int = 64
    feedforward_bias: bool = False
    activation: str = "gelu"  # of the feed-forward, one of `xlstm_layers.ACTIVATIONS`

    def __post_init__(self) -> None:
        own = [name for name in ("slstm_heads", "slstm_conv_size") if getattr(self, name) is not None]
        own = [name for name in own if (name, getattr(self, name)) != ("slstm_conv_size", 0)]
        sizes = ("conv_size", "projection_block", "inner_multiple", "feedforward_multiple", *own)
        self._check(sizes, ("inner_factor", "feedforward_factor"))
        common.check_choice("activation", self.activation, ACTIVATIONS)
        common.check_choice("slstm_function", self.slstm_function, ("slstm",))
        object.__setattr__(self, "slstm_at", slstm_positions(self.slstm_at, self.num_blocks))
        if self.slstm_at:
            name = "num_heads" if self.slstm_heads is None else "slstm_heads"
            self._check_divides(name, "embedding_size", self.embedding_size)
        if len(self.slstm_at) < self.num_blocks:
            for name in ("num_heads", "projection_block"):
                self._check_divides(name, "the inner size of the mLSTM blocks", self.inner_size)

    @property
    def inner_size(self) -> int:
        """Channels inside an mLSTM block."""
        return rounded_up(self.inner_factor * self.embedding_size, self.inner_multiple)

    @property
    def feedforward_size(self) -> int:
        """Channels inside the feed-forward of an sLSTM block, 0 where there is none."""
        return rounded_up((self.feedforward_factor or 0) * self.embedding_size, self.feedforward_multiple)

    def heads(self, index: int) -> int:
        """N of the block at a position."""
        own = self.slstm_heads if index in self.slstm_at else None
        return self.num_heads if own is None else own

    def conv(self, index: int) -> int:
        """W of the block at a position, 0 where it has no convolution."""
        own = self.slstm_conv_size if index in self.slstm_at else None
        return self.conv_size if own is None else own

    def norm(self) -> HeadNorm:
        """A LayerNorm of the residual sum."""
        return HeadNorm(self.embedding_size, epsilon=self.norm_eps, param_dtype=self.param_dtype)
