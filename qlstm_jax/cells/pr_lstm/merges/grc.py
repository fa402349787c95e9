"""The gated recursive cell of Ordered Memory (Shen et al. 2019, arXiv 1910.13466) as a merge, on h (H,) without c.

    leaf    h = x W_leaf + b_leaf                                                W_leaf (D, H)
    gates   [f_l; f_r; i; u] = relu([h_l; h_r] W_1 + b_1) W_2 + b_2              W_1 (2H, 4H), W_2 (4H, 4H)
    merge   h = LayerNorm(σ(f_l) ⊙ h_l + σ(f_r) ⊙ h_r + σ(i) ⊙ u)

The paper's full text was not open to us: the form is that of public notes on it. There the cell joins what a stack
holds; here it is the node of a balanced tree, as in the comparison of arXiv 2605.26035. Ours are the affine leaf, which
is that of MLP-LDRU, the initial values, `forget_bias`, and the cosine distance in the penalty.
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

OPTIONS = ("forget_bias",)
HAS_CELL_STATE = False

distance = shared.cosine_distance


@common.params_dataclass
class GrcParams(Params):
    """Weights; leaf_kernel is (D, H), merge_kernel W_1 (2H, 4H), rows of the left child first."""

    gate_kernel: Float[Array, "merge gates"]  # W_2 (4H, 4H), columns in the order f_l, f_r, i, u
    gate_bias: Float[Array, " gates"]
    norm_scale: Float[Array, " h"]
    norm_bias: Float[Array, " h"]


def init(
    key: Key[Array, ""],
    input_size: int,
    hidden_size: int,
    *,
    forget_bias: float,
    param_dtype: DTypeLike,
    **static: Any,
) -> GrcParams:
    """Kernels truncated normal of scale 1 / sqrt(fan_in), biases 0, scales 1; options as in `pr_lstm.init`."""
    h, wide = hidden_size, 4 * hidden_size
    k_leaf, k_merge, k_gate = jax.random.split(key, 3)
    return GrcParams(
        leaf_kernel=draw(k_leaf, (input_size, h), param_dtype),
        leaf_bias=jnp.zeros((h,), param_dtype),
        merge_kernel=draw(k_merge, (2 * h, wide), param_dtype),
        merge_bias=jnp.zeros((wide,), param_dtype),
        gate_kernel=draw(k_gate, (wide, 4 * h), param_dtype),
        gate_bias=jnp.zeros((4 * h,), param_dtype).at[: 2 * h].set(forget_bias),
        norm_scale=jnp.ones((h,), param_dtype),
        norm_bias=jnp.zeros((h,), param_dtype),
        **static,
    )


def leaf(params: GrcParams, z: Float[Array, "*spans h"]) -> State:
    """The state of a token alone."""
    return State(h=z.astype(params.dtype), c=None)


def join(params: GrcParams, z: Float[Array, "*spans merge"], left: State, right: State) -> State:
    """The gated sum, normalised; z are the pre-activations of the gates' hidden layer."""
    gates = common.affine(jax.nn.relu(z), params.gate_kernel, params.gate_bias, params.dtype)
    f_left, f_right, i, u = jnp.split(gates, 4, axis=-1)
    left_h, right_h = (state.h.astype(u.dtype) for state in (left, right))
    h = jax.nn.sigmoid(f_left) * left_h + jax.nn.sigmoid(f_right) * right_h + jax.nn.sigmoid(i) * u
    return State(h=layer_norm(h, params.norm_scale, params.norm_bias).astype(params.dtype), c=None)
