"""A recurrence whose gates share their affine maps, with a gradient that takes U's part out of the backward scan.

    u_t = z_t + (h_{t-1} + s) U
    c_t, h_t = gates(weights, u_t, c_{t-1})           element by element

Plain differentiation of the scan adds to dU, as large as U, at each token, and keeps every gate. But with s U in z,
which is simply added, du_t = dz_t, and

    dU = Σ_t h_{t-1}ᵀ dz_t

is one product after the scan. Only u_t and c_{t-1} are stored: the backward scan computes the gates and h_t again, and
sums what reaches the weights, which are small.

Letters as in `qlstm_jax.cells.ql_lstm`; G·H is the width of U. "Wide" is float32, or wider if h is. The fast gradient
is for first derivatives in reverse mode; forward mode raises TypeError.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from qlstm_jax.cells import common


def plain(gates: Callable, kernel, weights, s, carry, z, valid=None):
    """The recurrence over time-major inputs, as a scan that JAX differentiates itself.

    Args:
        gates: (weights, u (B, G·H), c (B, H)) -> (c, h), all wide.
        kernel: U (H, G·H). The product with U is taken in h's dtype.
        weights: a pytree of arrays, small against u.
        s: (B, H) wide, or None for 0.
        carry: (c, h), each (B, H), c wide.
        z: (T, B, G·H), wide.
        valid: optional (T, B) booleans, true on one run of positions in each row. Where false, the carry stays and
            the output is 0.

    Returns:
        (carry, hs (T, B, H) in the dtype of the carry's h).
    """
    dtype = carry[1].dtype

    def token(carry, z):
        c, h = carry
        c, h = gates(weights, z + common.matmul(h if s is None else h + s, kernel, dtype), c)
        return (c, h.astype(dtype)), h.astype(dtype)

    return common.scan_time_major(token, carry, z, valid=valid)


def fast(gates: Callable, kernel, weights, s, carry, z, valid=None):
    """`plain` with the gradient of this module; s U, which no token changes, is added beforehand."""
    z = z if s is None else z + common.matmul(s, kernel, carry[1].dtype)[None]
    return _scan(gates, kernel, weights, carry, z, valid)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _scan(gates, kernel, weights, carry, z, valid):
    last, (hs, _) = _forward(gates, kernel, weights, carry, z, valid, store=False)
    return last, _mask(valid, hs)


def _choose(ok, new, old):
    return new if ok is None else common.where(ok, new, old)


def _mask(valid, hs):
    return hs if valid is None else jnp.where(valid[:, :, None], hs, jnp.zeros((), hs.dtype))


def _forward(gates, kernel, weights, carry, z, valid, *, store):
    """(carry, (h after each token, valid or not, and what else the gradient needs))."""
    dtype, wide = carry[1].dtype, z.dtype
    narrow = kernel.astype(dtype)

    def token(carry, inputs):
        c, h = carry
        z, ok = inputs
        u = z + jnp.matmul(h, narrow, preferred_element_type=wide)
        new_c, new_h = gates(weights, u, c)
        new = _choose(ok, (new_c, new_h.astype(dtype)), carry)
        return new, (new[1], (u, c) if store else None)

    return jax.lax.scan(token, carry, (z, valid))


def _scan_forward(gates, kernel, weights, carry, z, valid):
    last, (hs, stored) = _forward(gates, kernel, weights, carry, z, valid, store=True)
    return (last, _mask(valid, hs)), (kernel, weights, carry[1], stored, valid)


def _scan_backward(gates, residuals, cotangents):
    kernel, weights, first, stored, valid = residuals
    (dc, dh), dhs = cotangents
    dtype, wide = first.dtype, stored[0].dtype
    transposed = kernel.astype(dtype).astype(wide).T  # once, and not at each token

    def token(state, inputs):
        carry, sums = state
        (u, c), dh, ok = inputs
        given = carry[0], carry[1] + dh.astype(wide)
        given = _choose(ok, given, jax.tree.map(jnp.zeros_like, given))
        (_, h), pull = jax.vjp(gates, weights, u, c)
        d_weights, du, dc = pull(given)
        carry = _choose(ok, (dc, jnp.matmul(du, transposed)), carry)
        return (carry, jax.tree.map(jnp.add, sums, d_weights)), (du, h.astype(dtype))

    state = (dc, dh.astype(wide)), jax.tree.map(jnp.zeros_like, weights)
    ((dc, dh), sums), (dz, hs) = jax.lax.scan(token, state, (stored, dhs, valid), reverse=True)
    if valid is not None:  # before its first valid position, a row keeps the h that it began with
        hs = jnp.where(valid[:, :, None], hs, first[None])
    before = jnp.concatenate([first[None], hs])[: len(hs)].astype(wide)
    dkernel = common.kernel_gradient(before, dz)
    return dkernel.astype(kernel.dtype), sums, (dc, dh.astype(dtype)), dz, None


_scan.defvjp(_scan_forward, _scan_backward)
