"""Initialisers and small layers of the xLSTM blocks (arXiv 2405.04517, figures 9 and 10).

The C channels of all heads are side by side, head after head. All results are float32 (or wider) whatever the
activations are.
"""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Key

from qlstm_jax.cells import common

EPSILON = 1e-5


def small_init(features: int) -> Initializer:
    """N(0, 2 / (5 d)) with d = `features`, of embeddings and maps that read the residual sum (arXiv 1910.05895)."""
    return jax.nn.initializers.normal(math.sqrt(2 / (5 * features)))


def wang_init(features: int, num_blocks: int) -> Initializer:
    """N(0, (2 / (L √d))²) with d = `features` and L blocks, of maps that add to the residual sum."""
    return jax.nn.initializers.normal(2 / num_blocks / math.sqrt(features))


def conv_init(
    key: Key[Array, ""], shape: tuple[int, ...], width: int, dtype: DTypeLike = jnp.float32
) -> Float[Array, "..."]:
    """Uniform in ±1/√W, for the convolution's kernel and bias: the fan-in of a channel is W."""
    bound = width**-0.5
    return jax.random.uniform(key, shape, dtype, -bound, bound)


def gate_bias_init(key: Key[Array, ""], num_heads: int, dtype: DTypeLike = jnp.float32) -> Float[Array, " gates"]:
    """(2N,) of the mLSTM's gates: b_i ~ N(0, 0.1²), and b_f from 3 in the first head to 6 in the last."""
    input_gate = 0.1 * jax.random.normal(key, (num_heads,))
    return jnp.concatenate([input_gate, jnp.linspace(3.0, 6.0, num_heads)]).astype(dtype)


# The functions of a feed-forward, by their names in the official code.
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": partial(jax.nn.gelu, approximate=False),
    "relu": jax.nn.relu,
    "relu^2": lambda x: jnp.square(jax.nn.relu(x)),
    "sigmoid": jax.nn.sigmoid,
    "swish": jax.nn.silu,
    "selu": jax.nn.selu,
}


def linear(
    in_features: int,
    out_features: int,
    init: Initializer,
    *,
    bias: bool = False,
    dtype: DTypeLike,
    param_dtype: DTypeLike,
    rngs: nnx.Rngs,
) -> nnx.Linear:
    """A map, its product taken in `dtype` and summed in float32."""
    return nnx.Linear(
        in_features,
        out_features,
        use_bias=bias,
        kernel_init=init,
        dtype=dtype,
        param_dtype=param_dtype,
        preferred_element_type=common.accumulator(dtype),
        rngs=rngs,
    )


class HeadNorm(nnx.Module):
    """Normalises each head by itself, with one head LayerNorm: (x − mean) / √(variance + ε) ⊙ (offset + w) + b.

    Args:
        features: C.
        num_heads: N, a divisor of C.
        centred: whether the mean is taken out; else with one head RMSNorm, x / √(mean of x² + ε) ⊙ (offset + w) + b.
        offset: of the scale, 1 or 0; w starts at 1 − offset.
        epsilon: ε.
        scale: whether it has w; else the result is not scaled.
        bias: whether it has b.
        param_dtype: of w and b.
    """

    def __init__(
        self,
        features: int,
        num_heads: int = 1,
        *,
        centred: bool = True,
        offset: int = 1,
        epsilon: float = EPSILON,
        scale: bool = True,
        bias: bool = False,
        param_dtype: DTypeLike = jnp.float32,
    ) -> None:
        self.scale = nnx.Param(jnp.full((features,), 1 - offset, param_dtype)) if scale else None
        self.bias = nnx.Param(jnp.zeros((features,), param_dtype)) if bias else None
        self.num_heads, self.centred, self.offset, self.epsilon = num_heads, centred, offset, epsilon

    def __call__(self, x: Float[Array, "*rows c"]) -> Float[Array, "*rows c"]:
        """Float32 or wider."""
        heads = x.astype(common.accumulator(x.dtype))
        heads = heads.reshape(*x.shape[:-1], self.num_heads, x.shape[-1] // self.num_heads)
        if self.centred:
            heads = heads - jnp.mean(heads, axis=-1, keepdims=True)
        heads = heads * jax.lax.rsqrt(jnp.mean(heads**2, axis=-1, keepdims=True) + self.epsilon)
        y = heads.reshape(x.shape)
        if self.scale is not None:
            y = y * common.row(self.offset + self.scale[...].astype(y.dtype), x.ndim)
        return y if self.bias is None else y + common.row(self.bias[...].astype(y.dtype), x.ndim)


class HeadwiseLinear(nnx.Module):
    """G maps of each head to itself: a block-diagonal matrix each.

    Args:
        features: C.
        num_heads: N, a divisor of C; K = C / N.
        outputs: G.
        init: of the kernel (G, N, K, K), the last axis that of the output.
        bias: whether there is one, (G·C,).
        dtype: of the products.
        param_dtype: of kernel and bias.
        rngs: for the kernel.
    """

    def __init__(
        self,
        features: int,
        num_heads: int,
        outputs: int,
        init: Initializer,
        *,
        bias: bool = False,
        dtype: DTypeLike,
        param_dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        size = features // num_heads
        self.kernel = nnx.Param(init(rngs.params(), (outputs, num_heads, size, size), param_dtype))
        self.bias = nnx.Param(jnp.zeros((outputs * features,), param_dtype)) if bias else None
        self.dtype = dtype

    def __call__(self, x: Float[Array, "batch time c"]) -> Float[Array, "batch time outputs"]:
        """(B, T, C) to (B, T, G·C), the G results side by side."""
        outputs, heads, size, _ = self.kernel.shape
        x, kernel = x.reshape(*x.shape[:2], heads, size).astype(self.dtype), self.kernel[...].astype(self.dtype)
        y = jnp.einsum("btnk,gnkj->btgnj", x, kernel, preferred_element_type=common.accumulator(self.dtype))
        y = y.reshape(*y.shape[:2], outputs * heads * size)
        return y if self.bias is None else y + common.row(self.bias[...].astype(y.dtype), 3)


class CausalConv(nnx.Module):
    """Causal depthwise convolution over time: y_t = Σ_w kernel_w ⊙ x_{t−W+1+w} + b, x of before the sequence 0.

    Args:
        features: C.
        width: W.
        param_dtype: of kernel (W, C) and bias (C,).
        rngs: for both.
    """

    def __init__(self, features: int, width: int, *, param_dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.kernel = nnx.Param(conv_init(rngs.params(), (width, features), width, param_dtype))
        self.bias = nnx.Param(conv_init(rngs.params(), (features,), width, param_dtype))

    def __call__(
        self,
        x: Float[Array, "batch time c"],
        before: Float[Array, "batch w c"],
        seq_lengths: Int[Array, " batch"] | None = None,
        resets: Bool[Array, "batch time"] | None = None,
    ) -> tuple[Float[Array, "batch time c"], Float[Array, "batch w c"]]:
        """Part of a stream.

        Args:
            x: (B, T, C), 0 beyond seq_lengths.
            before: (B, W−1, C), the inputs before it, the oldest first; zeros at the start of a stream.
            seq_lengths: None or (B,) number of valid positions.
            resets: None or (B, T) booleans, true where a new sequence begins; false beyond seq_lengths.

        Returns:
            (y (B, T, C), the last W−1 valid inputs; of them, those before the last reset are 0).
        """
        steps, wide = x.shape[1], common.accumulator(x.dtype)
        seen = jnp.concatenate([before.astype(x.dtype), x], axis=1)
        number = None if resets is None else _sequence_number(resets, before.shape[1])
        y = common.row(self.bias[...].astype(wide), 3)
        for shift, kernel in enumerate(self.kernel[...].astype(wide)):
            tap = seen[:, shift : shift + steps]
            if number is not None:
                tap = common.zero_padding(tap, number[:, shift : shift + steps] == number[:, before.shape[1] :])
            y = y + common.row(kernel, 3) * tap.astype(wide)
        if number is not None:
            seen = common.zero_padding(seen, number == number[:, -1:])
        if seq_lengths is None:
            return y, seen[:, steps:]
        index = seq_lengths[:, None] + jnp.arange(before.shape[1], dtype=seq_lengths.dtype)[None]
        return y, jnp.take_along_axis(seen, index[:, :, None], axis=1)


def _sequence_number(resets: Bool[Array, "batch time"], before: int) -> Int[Array, "batch positions"]:
    """How many sequences have begun in the row by each position, and 0 for `before` positions ahead of it."""
    return jnp.pad(jnp.cumsum(resets, axis=1, dtype=jnp.int32), ((0, 0), (before, 0)))
