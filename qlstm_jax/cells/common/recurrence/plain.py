"""The recurrence as a scan over tokens that JAX differentiates itself, in any mode."""

from typing import Any

import jax
from jaxtyping import Array

from qlstm_jax.cells.common.recurrence.operands import Gates, Layout, Operands, State, mask_outputs, restart, where


def run_token(gates: Gates[State], weights: Any, a: Any, ok: Array | None, old: Any, start: State) -> Any:
    """(h, state) after a token, from those before it and the state that it starts from."""
    h, state = gates(weights, a, start)
    return where(ok, (h.astype(old[0].dtype), state), old)


def run(gates: Gates[State], separate: int, operands: Operands) -> tuple[Any, Array]:
    """(carry, ys) of the operands."""
    layout = Layout(operands, separate)

    def token(carry: Any, inputs: Any) -> tuple[Any, Array]:
        z, ok, reset = inputs
        h, start = restart(reset, carry)
        carry = run_token(gates, operands.weights, layout.preactivations(z, h), ok, carry, start)
        return carry, carry[0]

    inputs = layout.project(operands.xs), layout.valid, layout.resets
    carry = layout.split_heads((operands.h, operands.state))
    if operands.xs.shape[0] == 1:  # a step: called without jit, a scan would be compiled each time
        carry, h = token(carry, jax.tree.map(lambda a: a[0], inputs))
        hs = h[None]
    else:
        carry, hs = jax.lax.scan(token, carry, inputs)
    return layout.merge_heads(carry), mask_outputs(operands.valid, layout.merge_heads(hs))
