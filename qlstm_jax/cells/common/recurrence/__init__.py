"""The recurrence of a sequential cell, one product and elementwise gates a token, with a gradient of its own.

    a_t      = x_t W + b + h_{t-1} U                  W, b, U: what JAX calls kernels and bias
    h_t, s_t = gates(weights, a_t, s_{t-1})           element by element

A cell is its `gates`; the rest is here. `recurrence` has three ways to the same values: the plain scan over tokens,
which JAX differentiates in any mode, and two for reverse mode (`jax.grad`, `jax.vjp`), the fast scan and, on an NVIDIA
GPU, a kernel (`kernel`). What makes the fast one fast:

- Plain differentiation adds to dU, as large as U, at each token. But as a_t is a sum, da_t is the gradient of both
  products, and dU = Σ_t h_{t-1}ᵀ da_t, dW = Σ_t x_tᵀ da_t and dx_t = da_t Wᵀ are products over many tokens at once.
- For the gradient only a_t, s_{t-1} and h_t are kept. `gates` is differentiated again, for many tokens at once, into
  its linear part at each (`jax.vjp` under `jax.vmap`); the backward scan applies these and multiplies by Uᵀ. Where the
  linear part is no larger than a_t and s_{t-1}, as that of a lone tanh, it is kept in their place.
- The sequence is run in chunks: what is needed of all tokens of a chunk at once (products with W, linear parts, da)
  exists for one chunk at a time and stays in the processor's cache. New memory is what costs most on a CPU: the
  operating system clears each page of it, in more time than it takes to fill it with a product.
- The scan carries a_t, not x_t W: XLA on a CPU has vector code for gates that are slices of a row in a buffer, but not
  where it must compute the row, indexed by time, within the same loop.

`benchmarks/recurrent.py` measures it. Letters as in the package: B batch, T time, D input, H hidden, N heads of
K units; G is the width of a row of pre-activations, such as 4H. "Wide" is float32, or wider if h is.
"""

from qlstm_jax.cells.common.recurrence.engine import Way, recurrence, recurrence_time_major, way_of
from qlstm_jax.cells.common.recurrence.kernel.support import refusal as kernel_refusal

__all__ = ["Way", "kernel_refusal", "recurrence", "recurrence_time_major", "way_of"]
