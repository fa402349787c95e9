"""The recurrence's arguments: checked, made time-major, and handed to the way that runs it."""

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from qlstm_jax.cells.common.axes import varying_as
from qlstm_jax.cells.common.masks import time_major
from qlstm_jax.cells.common.products import accumulator
from qlstm_jax.cells.common.recurrence import fast, plain
from qlstm_jax.cells.common.recurrence.operands import Gates, Operands, State, Weights

Way: TypeAlias = Literal["fast", "plain", "kernel"]


def way_of(program: str, plain: bool) -> Way:
    """The way for what `common.choose` gives, "scan" or "kernel"."""
    if program == "kernel":
        return "kernel"
    return "plain" if plain else "fast"


def recurrence(
    gates: Gates[State],
    xs: Float[Array, "batch time features"],
    carry: tuple[Float[Array, "batch hidden"], State],
    *,
    recurrent_kernel: Float[Array, "... rows width"],
    input_kernel: Float[Array, "features gates"] | None = None,
    bias: Float[Array, "... gates"] | None = None,
    recurrent_bias: Float[Array, " separate"] | None = None,
    weights: Weights = (),
    separate: int = 0,
    valid: Bool[Array, "batch time"] | None = None,
    resets: Bool[Array, "batch time"] | None = None,
    way: Way = "fast",
) -> tuple[tuple[Float[Array, "batch hidden"], State], Float[Array, "batch time hidden"]]:
    """Runs a cell's recurrence over a batch of sequences; the formula stands at the top of this package.

    Args:
        gates: (weights, pre-activations, state) -> (h, state), element by element over batch and units: a row of
            pre-activations (B, G) and arrays (B, H) of state, all wide. With heads, (N, B, G / N) and (N, B, K).
        xs: (B, T, D), or without input_kernel the pre-activations (B, T, G) but for h U.
        carry: (h (B, H), state), from which to continue. The dtype of h is that of activations and products.
        recurrent_kernel: U (H, G); with heads (N, K, G / N), block-diagonal. A row of G pre-activations has the gates
            side by side and within a gate the heads, and is given to `gates` head by head.
        input_kernel: W (D, G), or None.
        bias: b (G,), or (B, G) for a bias of each sequence's own, or None.
        recurrent_bias: added to the last columns of h U where these are separate, or None.
        weights: a pytree of what `gates` needs besides, such as scales of each unit, small against a.
        separate: the last so many columns of a row are not added: `gates` gets three arrays instead of a row, the sum
            of the other columns of both products, the last columns of x W + b, and those of h U. The GRU's new gate
            takes the two apart.
        valid: optional (B, T) booleans, true on one run of positions in each row. Where false, the carry stays and the
            output is 0.
        resets: optional (B, T) booleans. Where true, h and the state are 0 before the token, and no gradient passes.
        way: "fast", "plain": the scan that JAX differentiates itself, slower, but in any mode, or "kernel".

    Returns:
        (carry, ys (B, T, H) in the dtype of h).

    Raises:
        TypeError: from JAX, where another way than the plain one is differentiated in forward mode: pass way="plain".
        NotImplementedError: for way="kernel", where the kernel cannot run this recurrence.
    """
    valid, resets = time_major((valid, resets))
    carry, ys = recurrence_time_major(
        gates,
        time_major(xs),
        carry,
        recurrent_kernel=recurrent_kernel,
        input_kernel=input_kernel,
        bias=bias,
        recurrent_bias=recurrent_bias,
        weights=weights,
        separate=separate,
        valid=valid,
        resets=resets,
        way=way,
    )
    return carry, time_major(ys)


def recurrence_time_major(
    gates: Gates[State],
    xs: Float[Array, "time batch features"],
    carry: tuple[Float[Array, "batch hidden"], State],
    *,
    recurrent_kernel: Float[Array, "... rows width"],
    input_kernel: Float[Array, "features gates"] | None = None,
    bias: Float[Array, "... gates"] | None = None,
    recurrent_bias: Float[Array, " separate"] | None = None,
    weights: Weights = (),
    separate: int = 0,
    valid: Bool[Array, "time batch"] | None = None,
    resets: Bool[Array, "time batch"] | None = None,
    way: Way = "fast",
) -> tuple[tuple[Float[Array, "batch hidden"], State], Float[Array, "time batch hidden"]]:
    """`recurrence` over xs (T, B, D) and masks (T, B), to outputs (T, B, H)."""
    if recurrent_kernel.ndim == 3 and separate:
        raise ValueError(
            f"separate is {separate} and the recurrent kernel has heads; expected no separate columns then"
        )
    if recurrent_bias is not None and not separate:
        raise ValueError("recurrent_bias is given and separate is 0; expected bias alone, as all columns are added")
    h, state = carry
    if xs.shape[0] == 0 or xs.shape[1] == 0:
        return carry, jnp.zeros((xs.shape[0], *h.shape), h.dtype)
    xs = xs.astype(accumulator(h.dtype) if input_kernel is None else h.dtype)
    if resets is not None and valid is not None:
        resets = resets & valid
    operands = Operands(recurrent_kernel, input_kernel, bias, recurrent_bias, weights, h, state, xs, valid, resets)
    operands = varying_as(operands, operands)
    run: Callable[..., Any] = (plain if way == "plain" else fast).run
    if way == "kernel":
        from qlstm_jax.cells.common.recurrence.kernel import gradient  # imports Pallas, which takes long

        run = gradient.run
    results: tuple[tuple[Array, State], Array] = run(gates, separate, operands)
    return results
