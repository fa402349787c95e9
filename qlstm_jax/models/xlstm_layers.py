"""What the xLSTM blocks are made of (arXiv 2405.04517, figures 9 and 10): their sizes, initial values, small layers.

C channels lie side by side, head after head. All results are float32 (or wider), whatever the activations are.
"""

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from qlstm_jax.cells import base

EPSILON = 1e-5


def slstm_positions(slstm_at: str | Sequence[int], num_blocks: int) -> tuple[int, ...]:
    """Which blocks of a stack are sLSTM blocks, counted from 0, in ascending order.

    Args:
        slstm_at: the positions themselves, (1, 3) or "1,3"; "" for none; "all"; or "a:b" for xLSTM[a:b], where of every
            a + b blocks the last b are sLSTM blocks. (The paper gives the ratio and places them by hand.)
        num_blocks: L.

    Raises:
        ValueError: if it is none of these, a position is not in 0..L−1 or given twice, or a + b does not divide L.
    """
    problem = (
        f"slstm_at is {slstm_at!r}; expected positions in 0..{num_blocks - 1} such as (0, 2) or '0,2', '', 'all', or "
        f"a ratio a:b whose sum divides num_blocks, which is {num_blocks}"
    )
    if isinstance(slstm_at, str) and slstm_at.count(":") == 1:
        parts = slstm_at.split(":")
        mlstms, slstms = (int(part) if part.strip().isdecimal() else -1 for part in parts)
        if min(mlstms, slstms) < 0 or mlstms + slstms == 0 or num_blocks % (mlstms + slstms):
            raise ValueError(problem)
        return tuple(n for n in range(num_blocks) if n % (mlstms + slstms) >= mlstms)
    if isinstance(slstm_at, str):
        parts = slstm_at.split(",") if slstm_at.strip() else []
        if slstm_at == "all":
            parts = map(str, range(num_blocks))
        slstm_at = [int(part) if part.strip().isdecimal() else -1 for part in parts]
    positions = tuple(sorted(slstm_at))
    if len(set(positions)) < len(positions) or any(not 0 <= n < num_blocks for n in positions):
        raise ValueError(problem)
    return positions


@dataclasses.dataclass(frozen=True, kw_only=True)
class StackConfig:
    """What the configs of all kinds of stack hold; one of a kind has `norm` and calls `_check`."""

    embedding_size: int  # H
    num_blocks: int  # L
    vocab_size: int | None = None  # V, of a language model
    num_heads: int = 4  # N
    dropout: float = 0.0  # rate on all that is added to the residual sum
    logit_cap: float | None = None  # a language model's logits are cap · tanh(logits / cap)
    chunk_size: int = 64  # tokens that an mLSTM takes at once; it changes the speed, not the result
    dtype: str = "float32"  # of activations
    param_dtype: str = "float32"

    def _check(self, sizes=(), factors=()):
        """Checks what all have, and the sizes and factors of these names; dtypes are kept as names."""
        sizes = ("embedding_size", "num_blocks", "num_heads", "chunk_size", *sizes)
        sizes += () if self.vocab_size is None else ("vocab_size",)
        base.check_sizes(**{name: getattr(self, name) for name in sizes})
        for name in (*factors, *(() if self.logit_cap is None else ("logit_cap",))):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected a number above 0")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout!r}; expected a rate from 0 to below 1")
        for name in ("dtype", "param_dtype"):
            object.__setattr__(self, name, jnp.dtype(getattr(self, name) or jnp.float32).name)

    def _check_divides(self, name, whole, size):
        if size % getattr(self, name) or size == 0:
            raise ValueError(f"{whole} is {size}; expected a multiple of {name}, which is {getattr(self, name)}")

    def layer_options(self, rngs) -> dict:
        """The options that layers share."""
        return {"dtype": jnp.dtype(self.dtype), "param_dtype": jnp.dtype(self.param_dtype), "rngs": rngs}


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
    feedforward_factor: float = 1.3  # of the sLSTM block's feed-forward
    feedforward_multiple: int = 64

    def __post_init__(self):
        sizes = ("conv_size", "projection_block", "inner_multiple", "feedforward_multiple")
        self._check(sizes, ("inner_factor", "feedforward_factor"))
        object.__setattr__(self, "slstm_at", slstm_positions(self.slstm_at, self.num_blocks))
        if self.slstm_at:
            self._check_divides("num_heads", "embedding_size", self.embedding_size)
        if len(self.slstm_at) < self.num_blocks:
            for name in ("num_heads", "projection_block"):
                self._check_divides(name, "the inner size of the mLSTM blocks", self.inner_size)

    @property
    def inner_size(self) -> int:
        """Channels inside an mLSTM block."""
        return rounded_up(self.inner_factor * self.embedding_size, self.inner_multiple)

    @property
    def feedforward_size(self) -> int:
        """Channels inside the feed-forward of an sLSTM block."""
        return rounded_up(self.feedforward_factor * self.embedding_size, self.feedforward_multiple)

    def norm(self):
        """A LayerNorm of the residual sum."""
        return HeadNorm(self.embedding_size, param_dtype=self.param_dtype)


def small_init(features: int):
    """N(0, 2 / (5 d)) with d = `features`, of embeddings and maps that read the residual sum (arXiv 1910.05895)."""
    return jax.nn.initializers.normal(math.sqrt(2 / (5 * features)))


def wang_init(features: int, num_blocks: int):
    """N(0, (2 / (L √d))²) with d = `features` and L blocks, of maps that add to the residual sum."""
    return jax.nn.initializers.normal(2 / num_blocks / math.sqrt(features))


def conv_init(width: int):
    """Uniform in ±1/√W, of the convolution's kernel and bias: the fan-in of a channel is W."""

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -(width**-0.5), width**-0.5)

    return init


def gate_bias_init(key, num_heads: int, dtype=jnp.float32):
    """(2N,) of the mLSTM's gates: b_i ~ N(0, 0.1²), and b_f from 3 in the first head to 6 in the last."""
    input_gate = 0.1 * jax.random.normal(key, (num_heads,))
    return jnp.concatenate([input_gate, jnp.linspace(3.0, 6.0, num_heads)]).astype(dtype)


def rounded_up(size: float, multiple: int) -> int:
    """The least multiple that is not below `size`."""
    return math.ceil(size / multiple) * multiple


def linear(in_features: int, out_features: int, init, *, dtype, param_dtype, rngs) -> nnx.Linear:
    """A map without bias, its product taken in `dtype` and summed in float32."""
    return nnx.Linear(
        in_features,
        out_features,
        use_bias=False,
        kernel_init=init,
        dtype=dtype,
        param_dtype=param_dtype,
        preferred_element_type=base.accumulator(dtype),
        rngs=rngs,
    )


class HeadNorm(nnx.Module):
    """Normalises each head by itself, with one head LayerNorm: (x − mean) / √(variance + ε) ⊙ (offset + w).

    Args:
        features: C.
        num_heads: N, a divisor of C.
        centred: whether the mean is taken out; else with one head RMSNorm, x / √(mean of x² + ε) ⊙ (offset + w).
        offset: of the scale, 1 or 0; w starts at 1 − offset.
        epsilon: ε.
        param_dtype: of w.
    """

    def __init__(self, features, num_heads=1, *, centred=True, offset=1, epsilon=EPSILON, param_dtype=jnp.float32):
        self.scale = nnx.Param(jnp.full((features,), 1 - offset, param_dtype))
        self.num_heads, self.centred, self.offset, self.epsilon = num_heads, centred, offset, epsilon

    def __call__(self, x):
        """(..., C) to (..., C)."""
        heads = x.astype(base.accumulator(x.dtype))
        heads = heads.reshape(*x.shape[:-1], self.num_heads, x.shape[-1] // self.num_heads)
        if self.centred:
            heads = heads - jnp.mean(heads, axis=-1, keepdims=True)
        heads = heads * jax.lax.rsqrt(jnp.mean(heads**2, axis=-1, keepdims=True) + self.epsilon)
        return heads.reshape(x.shape) * base.row(self.offset + self.scale[...].astype(heads.dtype), x.ndim)


class HeadwiseLinear(nnx.Module):
    """G maps of each head to itself: a block-diagonal matrix each, without bias.

    Args:
        features: C.
        num_heads: N, a divisor of C; K = C / N.
        outputs: G.
        init: of the kernel (G, N, K, K), the last axis that of the output.
        dtype: of the products.
        param_dtype: of the kernel.
        rngs: for the kernel.
    """

    def __init__(self, features: int, num_heads: int, outputs: int, init, *, dtype, param_dtype, rngs):
        size = features // num_heads
        self.kernel = nnx.Param(init(rngs.params(), (outputs, num_heads, size, size), param_dtype))
        self.dtype = dtype

    def __call__(self, x):
        """(B, T, C) to (B, T, G·C), the G results side by side."""
        outputs, heads, size, _ = self.kernel.shape
        x, kernel = x.reshape(*x.shape[:2], heads, size).astype(self.dtype), self.kernel[...].astype(self.dtype)
        y = jnp.einsum("btnk,gnkj->btgnj", x, kernel, preferred_element_type=base.accumulator(self.dtype))
        return y.reshape(*y.shape[:2], outputs * heads * size)


class CausalConv(nnx.Module):
    """Depthwise convolution over time that sees what came before alone: y_t = Σ_w kernel_w ⊙ x_{t−W+1+w} + b.

    Args:
        features: C.
        width: W.
        param_dtype: of kernel (W, C) and bias (C,).
        rngs: for both.
    """

    def __init__(self, features: int, width: int, *, param_dtype, rngs):
        init = conv_init(width)
        self.kernel = nnx.Param(init(rngs.params(), (width, features), param_dtype))
        self.bias = nnx.Param(init(rngs.params(), (features,), param_dtype))

    def __call__(self, x, before, lengths=None):
        """A stretch of a stream.

        Args:
            x: (B, T, C), 0 beyond lengths.
            before: (B, W−1, C), the inputs before it, the oldest first; zeros at the start of a stream.
            lengths: None or (B,) number of valid positions.

        Returns:
            (y (B, T, C), the last W−1 valid inputs).
        """
        steps, wide = x.shape[1], base.accumulator(x.dtype)
        seen = jnp.concatenate([before.astype(x.dtype), x], axis=1)
        y = base.row(self.bias[...].astype(wide), 3)
        for shift, kernel in enumerate(self.kernel[...].astype(wide)):
            y = y + base.row(kernel, 3) * seen[:, shift : shift + steps].astype(wide)
        if lengths is None:
            return y, seen[:, steps:]
        index = lengths[:, None] + jnp.arange(before.shape[1], dtype=lengths.dtype)[None]
        return y, jnp.take_along_axis(seen, index[:, :, None], axis=1)
