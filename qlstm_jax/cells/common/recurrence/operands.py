"""What a recurrence is given, and the layout in which a scan over tokens has it."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from qlstm_jax.cells.common.heads import heads_to_rows, rows_to_heads
from qlstm_jax.cells.common.products import accumulator, matmul

State = TypeVar("State")  # a pytree of wide arrays (B, H); () where a cell has none but h
Weights: TypeAlias = Any  # a pytree of arrays
# The pre-activations that `gates` gets: a row, or with `separate` (joined, input, recurrent), see `recurrence`.
Row = Float[Array, "*batch width"]
Preactivations = Row | tuple[Row, Row, Row]
Gates = Callable[[Any, Any, State], tuple[Array, State]]


class Operands(NamedTuple):
    """The arrays of a recurrence, time-major."""

    recurrent_kernel: Array  # U (H, G) or (N, K, G / N)
    input_kernel: Array | None  # W (D, G); None if xs are the pre-activations
    bias: Array | None  # (G,) or (B, G)
    recurrent_bias: Array | None  # (separate,)
    weights: Any
    h: Array  # (B, H) in the dtype of activations
    state: Any
    xs: Array  # (T, B, D) in the dtype of activations, or (T, B, G) wide
    valid: Array | None  # (T, B) booleans
    resets: Array | None  # (T, B) booleans


class Layout:
    """The operands in the dtypes and layouts of the scan over tokens, and the sums that make pre-activations."""

    def __init__(self, operands: Operands, separate: int):
        kernel, self.dtype = operands.recurrent_kernel, operands.h.dtype
        self.wide = accumulator(self.dtype)
        self.heads = kernel.shape[0] if kernel.ndim == 3 else 0
        self.separate = separate
        self.kernel = kernel.astype(self.dtype)
        self.input_kernels = None if operands.input_kernel is None else self.split(operands.input_kernel)
        self.bias: tuple[Array, ...] | None = None
        if operands.bias is not None:
            self.bias = self.split(jnp.atleast_2d(operands.bias).astype(self.wide))
        self.recurrent_bias: Array | None = None
        if operands.recurrent_bias is not None:
            self.recurrent_bias = operands.recurrent_bias.astype(self.wide)[None]
        self.valid, self.resets = self.by_token(operands.valid), self.by_token(operands.resets)

    def split(self, row: Array) -> tuple[Array, ...]:
        """The columns that are added and, if any, those that are separate."""
        return (row[..., : -self.separate], row[..., -self.separate :]) if self.separate else (row,)

    def project(self, xs: Array) -> tuple[Array, ...]:
        """x W of any number of tokens, or xs themselves: (T, B, G), or with heads x W + b (T, N, B, G / N)."""
        if self.input_kernels is None:
            z = self.split(xs)
        else:
            z = tuple(matmul(xs, kernel, self.dtype) for kernel in self.input_kernels)
        if not self.heads:
            return z  # b is added later, at no cost, to the sum with h U
        joined: tuple[Array, ...] = self.split_heads((z[0] if self.bias is None else z[0] + self.bias[0][None],))
        return joined

    def preactivations(self, z: tuple[Array, ...], h: Array) -> Any:
        """What `gates` gets of one token."""
        u = self.split(jnp.matmul(h, self.kernel, preferred_element_type=self.wide))
        if self.bias is not None and not self.heads:
            z = tuple(a + b for a, b in zip(z, self.bias, strict=True))
        if not self.separate:
            return z[0] + u[0]
        return z[0] + u[0], z[1], u[1] if self.recurrent_bias is None else u[1] + self.recurrent_bias

    def by_token(self, mask: Array | None) -> Array | None:
        """(T, B) to (T, B, 1), or with heads (T, 1, B, 1)."""
        if mask is None:
            return None
        return mask[:, None, :, None] if self.heads else mask[:, :, None]

    def split_heads(self, tree: Any) -> Any:
        """(..., B, H) to (..., N, B, K) with heads, each array of a pytree."""
        if not self.heads:
            return tree
        split: Any = jax.tree.map(lambda a: rows_to_heads(a, self.heads, self.kernel.shape[1]), tree)
        return split

    def merge_heads(self, tree: Any) -> Any:
        """The inverse of `split_heads`, for rows of gates too."""
        return jax.tree.map(lambda a: heads_to_rows(a, self.kernel.shape[1]), tree) if self.heads else tree


def where(ok: Array | None, new: Any, old: Any) -> Any:
    """`new` where `ok`, a token's mask, else `old`; None is true everywhere."""
    return new if ok is None else jax.tree.map(lambda n, o: jnp.where(ok, n, o), new, old)


def restart(reset: Array | None, tree: Any) -> Any:
    """0 where `reset`."""
    return tree if reset is None else jax.tree.map(lambda a: jnp.where(reset, jnp.zeros((), a.dtype), a), tree)


def mask_outputs(valid: Array | None, ys: Array) -> Array:
    """Outputs (T, B, H), 0 where not `valid` (T, B)."""
    return ys if valid is None else jnp.where(valid[:, :, None], ys, jnp.zeros((), ys.dtype))
