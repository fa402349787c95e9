"""The weights of a PR-LSTM or PR-RNN and how they are drawn; `qlstm_jax.cells.pr_lstm.cell` has the formula."""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from qlstm_jax.cells import common

GATES = {"lstm": (3, 5, 4), "rnn": (1, 1, 1)}  # gates of the leaf, the merge and a refinement


@common.params_dataclass
class Params:
    """Weights; gates side by side in the order i, g, o, f_1, f_2."""

    leaf_kernel: Float[Array, "d leaf"]  # (D, 3H), rnn (D, H)
    leaf_bias: Float[Array, " leaf"]
    merge_kernel: Float[Array, "children merge"]  # (2H, 5H), rnn (2H, H): rows of the left child first
    merge_bias: Float[Array, " merge"]
    refine_kernel: Float[Array, "r h refine"]  # (R, H, 4H), rnn (R, H, H)
    refine_bias: Float[Array, "r refine"]
    norm_scale: Float[Array, "cells h"] | None = None  # γ (1 + R, H), of the binary cell and each refinement
    cell: str = common.static(default="lstm")
    remat: bool = common.static(default=False)
    dtype: str = common.static(default="float32")

    @property
    def input_size(self) -> int:
        """D."""
        return self.leaf_kernel.shape[0]

    @property
    def hidden_size(self) -> int:
        """H."""
        return self.merge_kernel.shape[0] // 2


def init(
    key: Key[Array, ""],
    input_size: int,
    hidden_size: int,
    *,
    refinements: int = 1,
    cell: str = "lstm",
    norm: str = "none",
    value_init: str = "paper",
    forget_bias: float = 0.0,
    remat: bool = False,
    dtype: DTypeLike = "float32",
    param_dtype: DTypeLike = "float32",
) -> Params:
    """Draws parameters: kernels truncated normal of scale 1 / sqrt(fan_in), uncorrected as in the paper; biases 0.

    norm, value_init and forget_bias are not in the paper; by default they change nothing.

    Args:
        key: a PRNG key.
        input_size: D.
        hidden_size: H.
        refinements: R, unary cells after each binary one (the paper's 0R, 1R, 2R).
        cell: "lstm" for PR-LSTM or "rnn" for PR-RNN.
        norm: "rms" divides each cell's new c by its root mean square, times γ, before h is taken from it.
        value_init: "identity" starts with values g that are the mean of the children's h (a refinement's: h itself).
        forget_bias: initial value of the forget gates' biases.
        remat: whether the backward pass recomputes the merges' gates instead of storing them: less memory, more time.
        dtype: of activations and products; gates, sums and c are float32 whatever it is.
        param_dtype: of the stored weights.

    Raises:
        TypeError: if `key` is no PRNG key.
        ValueError: for a dtype of no real numbers, a size that is not a positive integer, negative refinements, an
            unknown cell, norm or value_init, or a norm or forget bias of PR-RNN, which has no c.
    """
    common.check_init(key, dtype, param_dtype, input_size=input_size, hidden_size=hidden_size)
    common.check_choice("cell", cell, ("lstm", "rnn"))
    common.check_choice("norm", norm, ("none", "rms"))
    common.check_choice("value_init", value_init, ("paper", "identity"))
    common.check_counts(refinements=refinements)
    common.check_finite(forget_bias=forget_bias)
    common.check_flags(remat=remat)
    if cell == "rnn" and (norm != "none" or forget_bias):
        raise ValueError(f"norm is {norm!r} and forget_bias {forget_bias!r}; expected 'none' and 0 with cell='rnn'")
    leaf, merge, refine = GATES[cell]
    h = hidden_size
    k_leaf, k_merge, k_refine = jax.random.split(key, 3)
    merge_kernel = _draw(k_merge, (2 * h, merge * h), param_dtype)
    refine_kernel = _draw(k_refine, (refinements, h, refine * h), param_dtype)
    if value_init == "identity":
        same, value = jnp.eye(h, dtype=param_dtype), slice(h, 2 * h) if cell == "lstm" else slice(0, h)
        merge_kernel = merge_kernel.at[:, value].set(jnp.concatenate([same, same]) / 2)
        refine_kernel = refine_kernel.at[:, :, value].set(same[None])
    return Params(
        leaf_kernel=_draw(k_leaf, (input_size, leaf * h), param_dtype),
        leaf_bias=jnp.zeros((leaf * h,), param_dtype),
        merge_kernel=merge_kernel,
        merge_bias=jnp.zeros((merge * h,), param_dtype).at[3 * h :].set(forget_bias),
        refine_kernel=refine_kernel,
        refine_bias=jnp.zeros((refinements, refine * h), param_dtype).at[:, 3 * h :].set(forget_bias),
        norm_scale=jnp.ones((1 + refinements, h), param_dtype) if norm == "rms" else None,
        cell=cell,
        remat=bool(remat),
        dtype=jnp.dtype(dtype).name,
    )


def _draw(key: Key[Array, ""], shape: tuple[int, ...], dtype: DTypeLike) -> Float[Array, "..."]:
    scale: float = shape[-2] ** -0.5
    return (scale * jax.random.truncated_normal(key, -2.0, 2.0, shape)).astype(dtype)
