"""The gradient of a device's rows: of all at once, or piece by piece in the memory of one piece."""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array

from qlstm_jax.problems.base import Batch, Sums
from qlstm_jax.shardings import split_rows, split_weights

# (params, batch, carry, key of dropout) to a sum of losses, and beside it all sums and the next carry
Loss: TypeAlias = Callable[[Any, Batch, Any, Any], tuple[Array, tuple[Sums, Any]]]


def rounded(params: Any, dtype: str) -> Any:
    """Rounds parameters of floating point to bfloat16; for float32 they stay as they are.

    A gradient through this comes back in their own dtype.
    """
    if dtype == "float32":
        return params
    return jax.tree.map(lambda a: a.astype(dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a, params)


def gradient(loss: Loss, params: Any, batch: Batch, carry: Any, key: Any, pieces: int = 1) -> tuple[Any, Sums, Any]:
    """Computes the gradient of a sum of losses over rows, and the sums beside it.

    Args:
        loss: of some rows.
        params: what it is differentiated by.
        batch, carry: pytrees of (B, ...) arrays.
        key: of dropout; each piece has masks of its own.
        pieces: which divide B. Their gradients are added in the parameters' dtype, and only one piece's activations
            are held at a time: the sum over all rows, to rounding, where there is no dropout.

    Returns:
        (gradient, sums, carry (B, ...)).
    """
    if pieces == 1:
        grads, (sums, carry) = jax.grad(loss, has_aux=True)(params, batch, carry, key)
        return grads, sums, carry

    def piece(place: Any, rows: Any) -> tuple[Any, Any]:
        grads, (sums, carry) = jax.grad(loss, has_aux=True)(params, *rows, jax.random.fold_in(key, place))
        return (split_weights(grads), sums), carry

    def add(total: Any, place_and_rows: Any) -> tuple[Any, Any]:
        new, carry = piece(*place_and_rows)
        return jax.tree.map(jnp.add, total, new), carry

    xs = jnp.arange(pieces), deal((batch, carry), pieces)
    shapes, _ = jax.eval_shape(piece, *jax.tree.map(lambda a: a[0], xs))
    nothing = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)
    (grads, sums), carries = jax.lax.scan(add, (split_weights(nothing[0]), nothing[1]), xs)
    return grads, sums, gather(carries)


def deal(rows: Any, pieces: int) -> Any:
    """Makes (pieces, B / pieces, ...) of (B, ...), row by row in turn: rows that lie on one device are dealt there."""

    def dealt(a: Array) -> Array:
        return jnp.moveaxis(a.reshape(a.shape[0] // pieces, pieces, *a.shape[1:]), 1, 0)

    return jax.tree.map(dealt, rows)


def gather(pieces: Any) -> Any:
    """Undoes `deal`."""
    return split_rows(jax.tree.map(lambda a: jnp.moveaxis(a, 0, 1).reshape(-1, *a.shape[2:]), pieces))
