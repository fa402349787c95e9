"""The merge of MLP-LDRU, the Log-Depth Recurrent Unit (arXiv 2605.26035), on states h (H,) without c.

    leaf    h = x W_leaf + b_leaf                                                W_leaf (D, H)
    gates   [g_l; g_r] = gelu([h_l; h_r] W_1 + b_1) W_2 + b_2                    W_1 (2H, 4H), W_2 (4H, 2H)
    value   v = (g_l ⊙ h_l) V_l + (g_r ⊙ h_r) V_r + b_v                          V_l, V_r (H, H), I at the start
    h_0     = LayerNorm_0(v W_o + b_o)                                           W_o (H, H)
    h_r     = LayerNorm_r(h_{r-1} + gelu(h_{r-1} A_r + a_r) B_r + b_r)           A_r (H, 4H), B_r (4H, H); r = 1 .. R

The merge gives h_R; R is `refinements`, 1 in the paper, and 0 leaves the feed-forward out. All levels of the tree share
the weights. The gates are not squashed: where they are 1 and V = I, the merge is the sum of the two spans, which is
associative, and it is from there that it learns.

The paper's full text was not open to us: the form is that of public notes on it (the MLP of the gates with one hidden
layer, V = I at the start, W_o, a residual feed-forward with LayerNorm, the cosine distance in the penalty). Ours are
gelu, in its tanh form; a LayerNorm before the feed-forward and one after it; its width 4H; the initial values; one bias
b_v, as b_l and b_r would only be added. The paper's dropout is left to the model around the layer.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from qlstm_jax.cells import common
from qlstm_jax.cells.pr_lstm.merges import shared
from qlstm_jax.cells.pr_lstm.merges.interface import Params, State
from qlstm_jax.cells.pr_lstm.merges.shared import draw, layer_norm

OPTIONS = ("refinements",)
HAS_CELL_STATE = False

distance = shared.cosine_distance


@common.params_dataclass
class LdruParams(Params):
    """Weights; leaf_kernel is (D, H), merge_kernel W_1 (2H, 4H). Rows and columns of the left child come first."""

    gate_kernel: Float[Array, "merge children"]  # W_2 (4H, 2H)
    gate_bias: Float[Array, " children"]
    value_kernel: Float[Array, "children h"]  # V_l above V_r, (2H, H)
    value_bias: Float[Array, " h"]
    output_kernel: Float[Array, "h h"]  # W_o
    output_bias: Float[Array, " h"]
    refine_kernel: Float[Array, "r h refine"]  # A (R, H, 4H)
    refine_bias: Float[Array, "r refine"]
    refine_output_kernel: Float[Array, "r refine h"]  # B (R, 4H, H)
    refine_output_bias: Float[Array, "r h"]
    norm_scale: Float[Array, "norms h"]  # (1 + R, H)
    norm_bias: Float[Array, "norms h"]


def init(
    key: Key[Array, ""],
    input_size: int,
    hidden_size: int,
    *,
    refinements: int,
    param_dtype: DTypeLike,
    **static: Any,
) -> LdruParams:
    """Kernels truncated normal of scale 1 / sqrt(fan_in) except V = I; biases 0, scales 1.

    Options are those of `pr_lstm.init`.
    """
    h, wide, r = hidden_size, 4 * hidden_size, refinements
    keys = jax.random.split(key, 6)
    same = jnp.eye(h, dtype=param_dtype)

    def zeros(*shape: int) -> Array:
        return jnp.zeros(shape, param_dtype)

    return LdruParams(
        leaf_kernel=draw(keys[0], (input_size, h), param_dtype),
        leaf_bias=zeros(h),
        merge_kernel=draw(keys[1], (2 * h, wide), param_dtype),
        merge_bias=zeros(wide),
        gate_kernel=draw(keys[2], (wide, 2 * h), param_dtype),
        gate_bias=zeros(2 * h),
        value_kernel=jnp.concatenate([same, same]),
        value_bias=zeros(h),
        output_kernel=draw(keys[3], (h, h), param_dtype),
        output_bias=zeros(h),
        refine_kernel=draw(keys[4], (r, h, wide), param_dtype),
        refine_bias=zeros(r, wide),
        refine_output_kernel=draw(keys[5], (r, wide, h), param_dtype),
        refine_output_bias=zeros(r, h),
        norm_scale=jnp.ones((1 + r, h), param_dtype),
        norm_bias=zeros(1 + r, h),
        **static,
    )


def leaf(params: LdruParams, z: Float[Array, "*spans h"]) -> State:
    """The state of a token alone."""
    return State(h=z.astype(params.dtype), c=None)


def join(params: LdruParams, z: Float[Array, "*spans merge"], left: State, right: State) -> State:
    """Gates, the gated sum, then the feed-forwards; z are the pre-activations of the gates' hidden layer."""
    dtype = params.dtype
    gates = common.affine(jax.nn.gelu(z), params.gate_kernel, params.gate_bias, dtype)
    gate_left, gate_right = jnp.split(gates, 2, axis=-1)
    v_left, v_right = jnp.split(params.value_kernel, 2)
    value = common.affine(gate_left * left.h.astype(gate_left.dtype), v_left, params.value_bias, dtype)
    value = value + common.matmul(gate_right * right.h.astype(gate_right.dtype), v_right, dtype)
    h = common.affine(value, params.output_kernel, params.output_bias, dtype)
    h = layer_norm(h, params.norm_scale[0], params.norm_bias[0])
    for r in range(len(params.refine_bias)):
        hidden = common.affine(h, params.refine_kernel[r], params.refine_bias[r], dtype)
        new = common.affine(jax.nn.gelu(hidden), params.refine_output_kernel[r], params.refine_output_bias[r], dtype)
        h = layer_norm(h + new, params.norm_scale[r + 1], params.norm_bias[r + 1])
    return State(h=h.astype(dtype), c=None)
