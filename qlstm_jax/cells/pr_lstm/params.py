"""How the weights of a PR-LSTM are drawn: its options are the keywords of `init`, which the merge's own `init` reads.

`qlstm_jax.cells.pr_lstm.merges` has the formulas.
"""

import inspect
from typing import Any

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Key

from qlstm_jax.cells import common
from qlstm_jax.cells.pr_lstm.merges import MERGES, Params


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

    norm, value_init and forget_bias are in no paper; by default they change nothing. An option that a merge does not
    have must be at its default.

    Args:
        key: a PRNG key.
        input_size: D.
        hidden_size: H.
        refinements: R, unary cells after each binary one in "lstm" and "rnn" (the paper's 0R, 1R, 2R), feed-forwards
            in "ldru".
        cell: the merge: "lstm" for PR-LSTM, "rnn" for PR-RNN, "ldru" for MLP-LDRU, "grc" for the gated recursive cell.
        norm: "rms" divides each new c of "lstm" by its root mean square, times γ, before h is taken from it.
        value_init: "identity" starts "lstm" and "rnn" with values that are the mean of the children's h (a
            refinement's: h itself).
        forget_bias: initial value of the biases of the forget gates of "lstm" and "grc".
        remat: whether the backward pass recomputes the merges instead of storing their parts: less memory, more time.
        dtype: of activations and products; gates, sums and c are float32 whatever it is.
        param_dtype: of the stored weights.

    Raises:
        TypeError: if `key` is no PRNG key.
        ValueError: for a dtype of no real numbers, a size that is not a positive integer, negative refinements, an
            unknown cell, norm or value_init, or an option that the merge does not have.
    """
    common.check_init(key, dtype, param_dtype, input_size=input_size, hidden_size=hidden_size)
    common.check_choice("cell", cell, MERGES)
    common.check_choice("norm", norm, ("none", "rms"))
    common.check_choice("value_init", value_init, ("paper", "identity"))
    common.check_counts(refinements=refinements)
    common.check_finite(forget_bias=forget_bias)
    common.check_flags(remat=remat)
    rule = MERGES[cell]
    given: dict[str, Any] = {
        "refinements": refinements,
        "norm": norm,
        "value_init": value_init,
        "forget_bias": forget_bias,
    }
    for name in given.keys() - set(rule.OPTIONS):
        default = inspect.signature(init).parameters[name].default
        if given[name] != default:
            raise ValueError(f"{name} is {given[name]!r}; expected {default!r}, as cell={cell!r} has no such option")
    options = {name: given[name] for name in rule.OPTIONS}
    static = {"cell": cell, "remat": bool(remat), "dtype": jnp.dtype(dtype).name}
    return rule.init(key, input_size, hidden_size, param_dtype=param_dtype, **static, **options)
