"""What the two merges of the PR-LSTM paper (arXiv 2605.17108) share: an N-ary cell over children, and its refinements.

Merging is the binary cell, whose gates are z = [h_l; h_r] W + b, and then R unary cells, each with weights of its own,
whose gates are h W_r + b_r.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from qlstm_jax.cells import common
from qlstm_jax.cells.pr_lstm.merges.interface import Params, State
from qlstm_jax.cells.pr_lstm.merges.shared import draw

Cells = Sequence[Any]  # c (..., H) of each child, None for PR-RNN


@common.params_dataclass
class NaryParams(Params):
    """Weights; gates side by side in the order i, g, o, f_1, f_2. leaf_kernel is (D, 3H), merge_kernel (2H, 5H).

    Those of PR-RNN are (D, H) and (2H, H).
    """

    refine_kernel: Float[Array, "r h refine"]  # (R, H, 4H), rnn (R, H, H)
    refine_bias: Float[Array, "r refine"]
    norm_scale: Float[Array, "cells h"] | None = None  # γ (1 + R, H), of the binary cell and each refinement


def init(
    key: Key[Array, ""],
    input_size: int,
    hidden_size: int,
    *,
    gates: tuple[int, int, int],
    value: int,
    refinements: int,
    value_init: str,
    param_dtype: DTypeLike,
    **static: Any,
) -> NaryParams:
    """Kernels truncated normal of scale 1 / sqrt(fan_in), uncorrected as in the paper; biases 0.

    Args:
        key: a PRNG key.
        input_size: D.
        hidden_size: H.
        gates: of the leaf, the binary cell and a refinement.
        value: the place of the value among the gates, which value_init="identity" sets.
        refinements: R.
        value_init: "paper" or "identity".
        param_dtype: of the stored weights.
        static: the static fields of `Params`.
    """
    (leaf, merge, refine), h = gates, hidden_size
    k_leaf, k_merge, k_refine = jax.random.split(key, 3)
    merge_kernel = draw(k_merge, (2 * h, merge * h), param_dtype)
    refine_kernel = draw(k_refine, (refinements, h, refine * h), param_dtype)
    if value_init == "identity":
        same, columns = jnp.eye(h, dtype=param_dtype), slice(value * h, (value + 1) * h)
        merge_kernel = merge_kernel.at[:, columns].set(jnp.concatenate([same, same]) / 2)
        refine_kernel = refine_kernel.at[:, :, columns].set(same[None])
    return NaryParams(
        leaf_kernel=draw(k_leaf, (input_size, leaf * h), param_dtype),
        leaf_bias=jnp.zeros((leaf * h,), param_dtype),
        merge_kernel=merge_kernel,
        merge_bias=jnp.zeros((merge * h,), param_dtype),
        refine_kernel=refine_kernel,
        refine_bias=jnp.zeros((refinements, refine * h), param_dtype),
        **static,
    )


def refine(params: NaryParams, state: State, cell: Callable[[NaryParams, int, Array, Cells], State]) -> State:
    """The R refinements of a state; cell(params, number 1 .. R, gates, children's c) is one."""
    for r, (kernel, bias) in enumerate(zip(params.refine_kernel, params.refine_bias, strict=True), 1):
        state = cell(params, r, common.affine(state.h, kernel, bias, params.dtype), (state.c,))
    return state
