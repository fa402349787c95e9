"""The arrays of a recurrence by unit, as the kernels have them: (N, ..., K, T, B), with B padded to whole tiles."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from qlstm_jax.cells.common.recurrence.kernel import units
from qlstm_jax.cells.common.recurrence.kernel.plan import Plan
from qlstm_jax.cells.common.recurrence.kernel.support import TILE, shape_of


class Frame:
    """The layout of a recurrence's arrays by unit; none of them is changed but in shape and padding."""

    def __init__(self, gates: Callable[..., Any], separate: int, operands: Any):
        self.gates, self.operands, self.rank = gates, operands, operands.recurrent_kernel.ndim
        self.heads, self.size, self.columns = shape_of(operands.recurrent_kernel)
        self.separate = separate // (self.heads * self.size)
        self.steps, self.batch = operands.xs.shape[:2]
        self.padded = -(-self.batch // TILE) * TILE
        self.dtype = operands.h.dtype

    def plan(self) -> Plan:
        """What the kernels are made for."""
        return Plan(
            heads=self.heads,
            columns=self.columns,
            size=self.size,
            steps=self.steps,
            batch=self.padded,
            separate=self.separate,
            states=len(jax.tree.leaves(self.operands.state)),
            weights=len(jax.tree.leaves(self.operands.weights)),
            dtype=jnp.dtype(self.dtype),
        )

    def examples(self) -> tuple[Any, Any, Any]:
        """Weights, pre-activations and state of one unit of one sequence."""

        def row(width: int) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((*(1,) * (self.rank - 1), width), jnp.float32)

        weights = jax.tree.map(lambda w: jax.ShapeDtypeStruct((1,) * w.ndim, jnp.float32), self.operands.weights)
        state = jax.tree.map(lambda _: row(1), self.operands.state)
        if not self.separate:
            return weights, row(self.columns), state
        joined = self.columns - self.separate
        return weights, (row(joined), row(self.separate), row(self.separate)), state

    def by_unit_gates(self) -> Callable[..., Any]:
        """`gates` of arrays by unit."""
        return units.by_unit(self.gates, *self.examples())

    def by_unit_linear_part(self) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """`gates` differentiated by unit: what its linear part is made of, and that part."""

        def pull_of(weights: Any, a: Any, state: Any) -> Any:
            return jax.vjp(self.gates, weights, a, state)[1]

        def apply(pull: Any, dh: Any, dstate: Any) -> Any:
            return pull((dh, dstate))

        examples = self.examples()
        pull = jax.eval_shape(pull_of, *examples)
        return units.by_unit(pull_of, *examples), units.by_unit(apply, pull, *jax.eval_shape(self.gates, *examples))

    def carry(self, a: Array) -> Array:
        """(B, H) to (N, K, B), float32."""
        return self._pad(a.astype(jnp.float32).T).reshape(self.heads, self.size, self.padded)

    def carry_back(self, a: Array) -> Array:
        """The inverse of `carry`."""
        return a.reshape(self.heads * self.size, self.padded)[:, : self.batch].T

    def states(self, state: Any) -> Array | None:
        """A pytree of (B, H) to (N, states, K, B)."""
        leaves = [self.carry(s) for s in jax.tree.leaves(state)]
        return jnp.stack(leaves, axis=1) if leaves else None

    def states_back(self, a: Array | None) -> Any:
        """The inverse of `states`."""
        tree = jax.tree.structure(self.operands.state)
        return jax.tree.unflatten(tree, [] if a is None else [self.carry_back(a[:, i]) for i in range(a.shape[1])])

    def row(self, a: Array) -> Array:
        """(G,) to (N, M, K), or (B, G) to (N, M, K, B), float32: gates side by side and within a gate the heads."""
        a = a.astype(jnp.float32).reshape(*a.shape[:-1], -1, self.heads, self.size)
        return a.swapaxes(0, 1) if a.ndim == 3 else self._pad(a.transpose(2, 1, 3, 0))

    def row_back(self, a: Array) -> Array:
        """The inverse of `row`."""
        if a.ndim == 3:
            return a.swapaxes(0, 1).reshape(-1)
        return a[..., : self.batch].transpose(3, 1, 0, 2).reshape(self.batch, -1)

    def tokens(self, a: Array) -> Array:
        """(T, B, G) to (T, N, M, K, B)."""
        a = a.reshape(*a.shape[:2], -1, self.heads, self.size)
        return self._pad(a.transpose(0, 3, 2, 4, 1))

    def tokens_back(self, a: Array) -> Array:
        """The inverse of `tokens`."""
        return a[..., : self.batch].transpose(0, 4, 2, 1, 3).reshape(a.shape[0], self.batch, -1)

    def weights(self) -> Array | None:
        """(N, weights, K)."""
        leaves = jax.tree.leaves(self.operands.weights)
        rows = [w.astype(jnp.float32).reshape(self.heads, self.size) for w in leaves]
        return jnp.stack(rows, axis=1) if rows else None

    def weights_back(self, a: Array | None) -> Any:
        """The inverse of `weights`."""
        leaves, tree = jax.tree.flatten(self.operands.weights)
        return jax.tree.unflatten(tree, [] if a is None else [a[:, i].reshape(w.shape) for i, w in enumerate(leaves)])

    def kernel(self) -> Array:
        """U (N, K, M, K), the last axis that of the pre-activations' units."""
        kernel: Array = self.operands.recurrent_kernel
        return kernel.reshape(self.heads, self.size, self.columns, self.size)

    def mask(self, a: Array | None) -> Array | None:
        """(T, B) booleans to numbers."""
        return None if a is None else self._pad(a.astype(jnp.float32))

    def _pad(self, a: Array) -> Array:
        """The last axis, B, to whole tiles."""
        return jnp.pad(a, [(0, 0)] * (a.ndim - 1) + [(0, self.padded - self.batch)])
