"""The block of xLSTM 7B (arXiv 2503.13427, section 3): an mLSTM without convolution, then a feed-forward.

    u = RMS(x);  q, k = u W_q, u W_k;  v = u W_v           heads of K = H / 2N and V = H / N
    ĩ, f̃ = cap(u W_g + b_g),  cap(a) = 15 tanh(a / 15)      a number for each head
    x = x + (σ(u W_o) ⊙ HeadNorm(memory(q, k, v, ĩ, f̃))) W_down
    [g, p] = RMS(x) W_in;  x + (swish(g) ⊙ p) W_out

with `memory` of `qlstm_jax.cells.mlstm.matrix_memory`, run in chunks by `qlstm_jax.cells.mlstm.chunked`. RMS and
HeadNorm have no bias, and their scale is w. Norms, gates, states and the residual sum are float32 (or wider). The stack
and the language model are `XLSTMStack` and `XLSTMLanguageModel` of `qlstm_jax.models.xlstm`, given an `MLSTM7BConfig`.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from qlstm_jax.cells import common
from qlstm_jax.cells.mlstm import matrix_memory
from qlstm_jax.cells.mlstm.matrix_memory import State
from qlstm_jax.models.xlstm_config import StackConfig, rounded_up
from qlstm_jax.models.xlstm_layers import HeadNorm, linear, small_init, wang_init
from qlstm_jax.models.xlstm_residual import Dropout, Masks, ResidualBlock, read_memory

EPSILON = 1e-6
INPUT_GATE_BIAS = -10.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class MLSTM7BConfig(StackConfig):
    """The sizes and options of a stack of these blocks; defaults are those of the official code.

    The model of the paper: MLSTM7BConfig(vocab_size=50304, embedding_size=4096, num_blocks=32).

    Raises:
        ValueError: for a size, rate or option out of range, or sizes that do not divide each other.
    """

    num_heads: int = 8  # N
    norm_eps: float = EPSILON
    logit_cap: float | None = 30.0
    gate_cap: float | None = 15.0
    key_factor: float = 0.5  # channels of all queries, as a multiple of H
    value_factor: float = 1.0  # channels of all values
    feedforward_factor: float = 8 / 3  # channels of the feed-forward are this times H, rounded up
    feedforward_multiple: int = 64

    def __post_init__(self) -> None:
        self._check(("feedforward_multiple",), ("key_factor", "value_factor", "feedforward_factor", "gate_cap"))
        for name, size in (("value", self.value_size), ("key", self.key_size)):
            self._check_divides("num_heads", f"{name}_factor * embedding_size", size)

    @property
    def key_size(self) -> int:
        """Channels of the queries of all heads."""
        return int(self.key_factor * self.embedding_size)

    @property
    def value_size(self) -> int:
        """Channels of the values of all heads."""
        return int(self.value_factor * self.embedding_size)

    @property
    def feedforward_size(self) -> int:
        """Channels inside the feed-forward."""
        # Truncated first: with the official 2.6667 for 8/3, 64.0008 must not become the next multiple of 64.
        return rounded_up(int(self.feedforward_factor * self.embedding_size), self.feedforward_multiple)

    def norm(self) -> HeadNorm:
        """An RMSNorm of the residual sum."""
        return self.head_norm(self.embedding_size, 1, centred=False)

    def head_norm(self, features: int, num_heads: int, *, centred: bool = True) -> HeadNorm:
        """A norm of this config's options."""
        return HeadNorm(
            features,
            num_heads,
            centred=centred,
            offset=0,
            epsilon=self.norm_eps,
            bias=self.bias,
            param_dtype=self.param_dtype,
        )


def capped(x: Float[Array, "..."], cap: float | None) -> Float[Array, "..."]:
    """cap · tanh(x / cap): x where it is small, never beyond ±cap; for None x itself."""
    return x if cap is None else cap * jnp.tanh(x / cap)


class MLSTM7BBlock(ResidualBlock[MLSTM7BConfig, State]):
    """The block of this module; the carry is a `mlstm.Carry`.

    block = MLSTM7BBlock(MLSTM7BConfig(embedding_size=64, num_blocks=1, num_heads=4), rngs=nnx.Rngs(0))
    carry, ys = block(xs, return_carry=True)                # (B, T, 64) to (B, T, 64)
    carry, y = block.step(carry, x)                         # one more token, x (B, 64)
    """

    def _build(self, config: MLSTM7BConfig, index: int, rngs: nnx.Rngs) -> None:
        size, wide, options = config.embedding_size, config.feedforward_size, config.layer_options(rngs)
        values = config.value_size
        small, wang = small_init(size), wang_init(size, config.num_blocks)
        self.norm = config.norm()
        # W_q, W_k, W_v and W_o side by side: one product of one input.
        self.inputs = linear(size, 2 * config.key_size + 2 * values, small, bias=config.bias, **options)
        forget = jnp.linspace(3.0, 6.0, config.num_heads)
        self.gate_kernel = nnx.Param(jnp.zeros((size, 2 * config.num_heads), config.param_dtype))
        bias = jnp.concatenate([jnp.full_like(forget, INPUT_GATE_BIAS), forget])
        self.gate_bias = nnx.Param(bias.astype(config.param_dtype))
        self.head_norm = config.head_norm(values, config.num_heads)
        self.down = linear(values, size, wang, bias=config.bias, **options)
        self.feedforward_norm = config.norm()
        self.feedforward_in = linear(size, 2 * wide, small, bias=config.bias, **options)
        self.feedforward_out = linear(wide, size, wang, bias=config.bias, **options)

    def initialize_carry(self, batch_size: int) -> State:
        """The carry before the first token: all zero."""
        config = self.config
        keys, values = config.key_size // config.num_heads, config.value_size // config.num_heads
        return matrix_memory.zero_state(batch_size, config.num_heads, keys, values, config.dtype)

    def _read(
        self,
        x: Float[Array, "batch time h"],
        carry: State,
        masks: Masks,
        dropout: Dropout,
        *,
        one_token: bool = False,
    ) -> tuple[State, Float[Array, "batch time h"]]:
        config, keys = self.config, self.config.key_size
        u = self.norm(x)
        *qkv, o = jnp.split(self.inputs(u), [keys, 2 * keys, 2 * keys + config.value_size], axis=-1)
        gates = capped(common.affine(u, self.gate_kernel[...], self.gate_bias[...], config.dtype), config.gate_cap)
        inputs = [a.reshape(*a.shape[:2], config.num_heads, a.shape[2] // config.num_heads) for a in qkv]
        q, k, v = (a.astype(config.dtype) for a in inputs)
        carry, h = read_memory(q, k, v, gates, carry, masks, config.chunk_size, one_token)
        x = x + dropout(self.down(jax.nn.sigmoid(o) * self.head_norm(h.reshape(o.shape))))
        g, p = jnp.split(self.feedforward_in(self.feedforward_norm(x)), 2, axis=-1)
        return carry, x + dropout(self.feedforward_out(jax.nn.silu(g) * p))
