"""The kernels over a run of tokens, with a gradient of all but U: for a cell that takes U's over many runs at once."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from qlstm_jax.cells.common.recurrence.kernel import backward, forward
from qlstm_jax.cells.common.recurrence.kernel.plan import Plan
from qlstm_jax.cells.common.recurrence.kernel.units import Parts


class Program(NamedTuple):
    """What the kernels are made of."""

    plan: Plan
    gates: Callable[..., list[Parts]]
    residuals: Callable[..., list[Parts]]
    pull: Callable[..., list[Parts]]


class Arrays(NamedTuple):
    """What they run over; None where there is none."""

    z: Array  # (T, N, M, K, B)
    bias: Array  # (N, M, K, B)
    weights: Array | None  # (N, weights, K)
    h: Array  # (N, K, B), float32
    states: Array | None  # (N, states, K, B)
    valid: Array | None  # (T, B), 0 or 1


Outputs = tuple[Array, Array, Array | None]


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def run(program: Program, kernels: tuple[Array, Array], arrays: Arrays) -> Outputs:
    """(hs (T, N, K, B) after each token, valid or not, and the last h and states) with U in `kernel_layouts`."""
    return _forward(program, kernels, arrays, keep=False)[0]


def _forward(program: Program, kernels: tuple[Array, Array], arrays: Arrays, *, keep: bool) -> tuple[Outputs, Any]:
    inputs = forward.Inputs(kernel=kernels[0], recurrent_bias=None, resets=None, **arrays._asdict())
    outputs = forward.forward(program.plan, program.gates, inputs, keep=keep)
    return (outputs.hs, outputs.h, outputs.states), (outputs.kept_a, outputs.kept_states)


def _run_forward(program: Program, kernels: tuple[Array, Array], arrays: Arrays) -> tuple[Outputs, Any]:
    outputs, kept = _forward(program, kernels, arrays, keep=True)
    return outputs, (kernels[1], arrays.weights, arrays.valid, kept)


def _run_backward(program: Program, residuals: Any, cotangents: Outputs) -> tuple[None, Arrays]:
    kernel, weights, valid, (a, states) = residuals
    dhs, dh, dstates = cotangents
    inputs = backward.Inputs(kernel, weights, a, states, valid, None, dhs, dh, dstates)
    results = backward.backward(program.plan, program.residuals, program.pull, inputs, dtype=jnp.float32)
    return None, Arrays(
        z=results.da,
        bias=jnp.sum(results.da, axis=0),
        weights=None if results.dweights is None else jnp.sum(results.dweights, axis=-1),
        h=results.dh,
        states=results.dstates,
        valid=None if valid is None else jnp.zeros_like(valid),
    )


run.defvjp(_run_forward, _run_backward)
