"""The kernel that runs back over all tokens, with the gradients of h and the states."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.experimental.pallas as pl
import jax.numpy as jnp
from jax import lax

from qlstm_jax.cells.common.recurrence.kernel import plan as common
from qlstm_jax.cells.common.recurrence.kernel.plan import Place, Plan, plgpu
from qlstm_jax.cells.common.recurrence.kernel.support import ROWS, TILE
from qlstm_jax.cells.common.recurrence.kernel.units import Parts


class Inputs(NamedTuple):
    """Of the backward kernel, float32 unless it says otherwise. None where there is none."""

    kernel: Any  # U as `kernel_layouts` has it
    weights: Any  # (N, weights, K)
    a: Any  # (T, N, M + S, K, B), as the forward kernel keeps them
    states: Any  # (T, N, states, K, B), likewise
    valid: Any  # (T, B), 0 or 1
    resets: Any  # (T, B), 0 or 1
    dhs: Any  # the gradient of hs (T, N, K, B), of any dtype
    dh: Any  # of the last h (N, K, B)
    dstates: Any  # of the last states (N, states, K, B)


class Outputs(NamedTuple):
    """Gradients. None where there is none. Arrays, refs within the kernel."""

    da: Any  # of pre-activations (T, N, M + S, K, B)
    dh: Any  # of the first h (N, K, B)
    dstates: Any  # of the first states (N, states, K, B)
    dweights: Any  # of the weights, of each sequence (N, weights, K, B)


def backward(
    plan: Plan,
    residuals: Callable[..., list[Parts]],
    pull: Callable[..., list[Parts]],
    inputs: Inputs,
    *,
    dtype: Any = jnp.bfloat16,
) -> Outputs:
    """Runs over all tokens from the last one.

    Args:
        residuals: Parts of weights, pre-activations and states, to Parts of what `pull` needs of them.
        pull: Parts of those, of the gradient of h and of those of the states, to Parts of the gradients of weights,
            pre-activations and states.
        dtype: of da as it is returned. In the kernel's product it is bfloat16.
    """
    outputs = Outputs(
        da=plan.tokens(plan.columns + plan.separate, dtype=dtype),
        dh=plan.carry(),
        dstates=plan.carry(plan.states) if plan.states else None,
        dweights=plan.carry(plan.weights) if plan.weights else None,
    )
    depth = plan.columns * plan.size
    scratch = [plgpu.SMEM((plan.groups, ROWS, depth), jnp.bfloat16), plgpu.SMEM((2, TILE, depth), jnp.bfloat16)]

    def body(inputs: list[Any], outputs: list[Any], *scratch: Any) -> None:
        _body(plan, residuals, pull, Inputs(*inputs), Outputs(*outputs), *scratch)

    return Outputs(*common.launch(plan, body, list(inputs), list(outputs), scratch))


def _body(
    plan: Plan,
    residuals: Any,
    pull: Any,
    inputs: Inputs,
    outputs: Outputs,
    kernel: Any,
    shared: Any,
    loaded: Any,
    ready: Any,
) -> None:
    place, columns, joined = Place(), plan.columns, plan.columns - plan.separate
    head, group = place.head, place.group
    plgpu.copy_gmem_to_smem(inputs.kernel.at[head, group], kernel.at[group], loaded.at[group])
    weights = [(place.row(inputs.weights, i),) for i in range(plan.weights)]

    def read(t: Any) -> Any:
        """What a token brings: it is read while the token after it is computed."""
        a = tuple(place.load(inputs.a, t, head, m) for m in range(columns + plan.separate))
        states = [place.load(inputs.states, t, head, i) for i in range(plan.states)]
        dy = place.load(inputs.dhs, t, head).astype(jnp.float32)
        return a, states, dy, place.mask(inputs.valid, t), place.mask(inputs.resets, t)

    def token(step: Any, carry: Any) -> Any:
        t, slot = plan.steps - 1 - step, lax.rem(step, 2)
        dh, dstates, dweights, (a, states, dy, ok, reset) = carry
        coming = read(jnp.maximum(t - 1, 0))
        rows = [a[:joined], a[joined:columns], a[columns:]] if plan.separate else [a]
        kept = residuals(*weights, *rows, *((s,) for s in states))
        given = [dh + dy, *dstates]
        given = common.where(ok, given, [jnp.zeros_like(d) for d in given])
        gradients = pull(*kept, *((d,) for d in given))
        dweights = [d + gradients[i][0] for i, d in enumerate(dweights)]
        rest = gradients[len(dweights) :]
        da = sum(rest[: len(rows)], ())
        for m, d in enumerate(da[:joined] + da[columns:]):
            common.share(shared.at[slot], pl.ds(m * plan.size + group * ROWS, ROWS), d)
        plgpu.commit_smem()
        plgpu.barrier_arrive(ready)
        for m, d in enumerate(da):
            place.store(outputs.da, d, t, head, m)
        plgpu.barrier_wait(ready)
        before = *common.products(kernel.at[group], shared.at[slot], 1), [d for (d,) in rest[len(rows) :]]
        dh, dstates = common.where(ok, common.restart(reset, before), (dh, dstates))
        return dh, dstates, dweights, coming

    dh = place.load(inputs.dh, head)
    dstates = [place.load(inputs.dstates, head, i) for i in range(plan.states)]
    start = dh, dstates, [jnp.zeros_like(dh)] * plan.weights, read(plan.steps - 1)
    plgpu.barrier_wait(loaded.at[group])
    dh, dstates, dweights, _ = lax.fori_loop(0, plan.steps, token, start)
    place.store(outputs.dh, dh, head)
    for ref, values in ((outputs.dstates, dstates), (outputs.dweights, dweights)):
        for i, value in enumerate(values):
            place.store(ref, value, head, i)
