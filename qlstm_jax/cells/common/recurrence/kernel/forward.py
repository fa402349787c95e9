"""The kernel that runs a recurrence over all tokens."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from qlstm_jax.cells.common.recurrence.kernel import plan as common
from qlstm_jax.cells.common.recurrence.kernel.plan import Place, Plan, plgpu
from qlstm_jax.cells.common.recurrence.kernel.support import ROWS, TILE
from qlstm_jax.cells.common.recurrence.kernel.units import Parts


class Inputs(NamedTuple):
    """Of the forward kernel, float32 unless it says otherwise. None where there is none."""

    kernel: Any  # Uᵀ as `kernel_layouts` has it
    z: Any  # x W (T, N, M, K, B)
    bias: Any  # (N, M, K), or (N, M, K, B)
    recurrent_bias: Any  # (N, S, K) for S separate columns
    weights: Any  # (N, weights, K)
    h: Any  # (N, K, B)
    states: Any  # (N, states, K, B)
    valid: Any  # (T, B), 0 or 1
    resets: Any  # (T, B), 0 or 1


class Outputs(NamedTuple):
    """Of the forward kernel. None where there is none. Arrays, refs within the kernel."""

    hs: Any  # (T, N, K, B) in the dtype of h, after each token, valid or not
    h: Any  # (N, K, B), float32
    states: Any  # (N, states, K, B)
    kept_a: Any  # (T, N, M + S, K, B), pre-activations
    kept_states: Any  # (T, N, states, K, B), before each token


def forward(plan: Plan, gates: Callable[..., list[Parts]], inputs: Inputs, *, keep: bool) -> Outputs:
    """Runs over all tokens.

    Args:
        gates: Parts of each weight, of the pre-activations and of each state, to Parts of h and of each state.
        keep: whether to return what the gradient needs.
    """
    outputs = Outputs(
        hs=plan.tokens(dtype=plan.dtype),
        h=plan.carry(),
        states=plan.carry(plan.states) if plan.states else None,
        kept_a=plan.tokens(plan.columns + plan.separate) if keep else None,
        kept_states=plan.tokens(plan.states) if keep and plan.states else None,
    )
    scratch = [plgpu.SMEM((plan.groups, plan.columns * ROWS, plan.size), plan.dtype)]
    scratch.append(plgpu.SMEM((2, TILE, plan.size), plan.dtype))

    def body(inputs: list[Any], outputs: list[Any], *scratch: Any) -> None:
        _body(plan, gates, Inputs(*inputs), Outputs(*outputs), *scratch)

    return Outputs(*common.launch(plan, body, list(inputs), list(outputs), scratch))


def _body(
    plan: Plan, gates: Any, inputs: Inputs, outputs: Outputs, kernel: Any, shared: Any, loaded: Any, ready: Any
) -> None:
    place, columns, joined = Place(), plan.columns, plan.columns - plan.separate
    head, group = place.head, place.group
    plgpu.copy_gmem_to_smem(inputs.kernel.at[head, group], kernel.at[group], loaded.at[group])
    bias = [place.row(inputs.bias, m) for m in range(columns)]
    extra: list[Any] = [0] * plan.separate
    if inputs.recurrent_bias is not None:
        extra = [place.row(inputs.recurrent_bias, m) for m in range(plan.separate)]
    weights = [(place.row(inputs.weights, i),) for i in range(plan.weights)]

    def read(t: Any) -> tuple[list[Array], Array | None, Array | None]:
        """What a token brings: it is read while the token before is computed."""
        z = [place.load(inputs.z, t, head, m) for m in range(columns)]
        return z, place.mask(inputs.valid, t), place.mask(inputs.resets, t)

    def share(slot: Any, h: Array) -> None:
        common.share(shared.at[slot], place.rows, h)
        plgpu.commit_smem()
        plgpu.barrier_arrive(ready)

    def token(t: Any, carry: Any) -> Any:
        h, states, (z, ok, reset) = carry
        coming = read(jnp.minimum(t + 1, plan.steps - 1))
        plgpu.barrier_wait(ready)
        u = common.products(kernel.at[group], shared.at[lax.rem(t, 2)], columns)
        z = [a + b for a, b in zip(z, bias, strict=True)]
        rows = [tuple(z[m] + u[m] for m in range(joined))]
        if plan.separate:
            rows += [tuple(z[joined:]), tuple(a + b for a, b in zip(u[joined:], extra, strict=True))]
        start = common.restart(reset, states)
        new_h, *new_states = (a for (a,) in gates(*weights, *rows, *((s,) for s in start)))
        h, states = common.where(ok, (new_h.astype(plan.dtype), new_states), (h, states))
        share(lax.rem(t + 1, 2), common.restart(coming[2], h))
        place.store(outputs.hs, h, t, head)
        if outputs.kept_a is not None:
            for m, a in enumerate(sum(rows, ())):
                place.store(outputs.kept_a, a, t, head, m)
            for i, s in enumerate(start):
                place.store(outputs.kept_states, s, t, head, i)
        return h, states, coming

    first = read(0)
    h = place.load(inputs.h, head).astype(plan.dtype)
    states = [place.load(inputs.states, head, i) for i in range(plan.states)]
    share(0, common.restart(first[2], h))
    plgpu.barrier_wait(loaded.at[group])
    h, states, _ = lax.fori_loop(0, plan.steps, token, (h, states, first))
    plgpu.barrier_wait(ready)
    place.store(outputs.h, h, head)
    for i, s in enumerate(states):
        place.store(outputs.states, s, head, i)
