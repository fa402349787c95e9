"""A head-wise recurrence over time, with a gradient that takes the recurrent kernel's part out of the backward scan.

    a_t = z_t + y_{t-1} R                             R block-diagonal over heads
    y_t, state_t = pointwise(a_t, state_{t-1})

Plain differentiation of the scan adds to dR, as large as R, at each token. But as z is simply added, da_t = dz_t, and

    dR = Σ_t y_{t-1}ᵀ dz_t

is one product after the scan. The backward scan keeps dz alone, and computes `pointwise` again from a_t and
state_{t-1} instead of storing what is inside. Heads stand before the batch, and each gate is an array of its own: the
recurrent product is one batched matmul, and no token slices or pads a row of gates.

Letters as in the package; G is the number of gates. A state is a tuple of arrays, their precision "wide": float32 or
wider. Only reverse-mode differentiation is defined.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def scan(pointwise: Callable, kernel, carry, z, valid=None):
    """Runs the recurrence over a whole sequence.

    Args:
        pointwise: (G arrays of gate pre-activations, state) -> (y, *next state), element by element, all wide.
        kernel: R (N, K, G·K), N heads of size K = H / N; the gates of a head side by side.
        carry: (y, *state), each (B, H). The product y R is taken in y's dtype.
        z: (B, T, G·H), wide, what is added to y R; gates side by side, and within a gate the heads.
        valid: optional (B, T) booleans, true and then false along T. Where false, the carry stays and the output is 0.

    Returns:
        (carry, ys (B, T, H) in the dtype of the carry's y).
    """
    carry, (ys, _) = _forward(pointwise, kernel, carry, z, valid, store=False)
    return _merge(carry), _merge_time(ys)


def _split(tree, heads):
    """(B, H) to (N, B, K), each array of a pytree."""
    return jax.tree.map(lambda a: a.reshape(a.shape[0], heads, -1).swapaxes(0, 1), tree)


def _merge(tree):
    """The inverse of `_split`."""
    return jax.tree.map(lambda a: a.swapaxes(0, 1).reshape(a.shape[1], -1), tree)


def _split_time(a, heads):
    """(B, T, H) to (T, N, B, K)."""
    return a.reshape(*a.shape[:2], heads, a.shape[2] // heads).transpose(1, 2, 0, 3)


def _merge_time(a):
    """The inverse of `_split_time`."""
    a = a.transpose(2, 0, 1, 3)
    return a.reshape(*a.shape[:2], a.shape[2] * a.shape[3])


def _by_token(valid):
    """(B, T) to (T, 1, B, 1), or None."""
    return None if valid is None else valid.T[:, None, :, None]


def _where(ok, new, old):
    """`new` where `ok` (1, B, 1), or everywhere if that is None; pytrees of (N, B, K)."""
    return new if ok is None else jax.tree.map(lambda n, o: jnp.where(ok, n, o), new, old)


def _forward(pointwise, kernel, carry, z, valid, *, store):
    """(carry, (ys, what the gradient needs)), with time and heads first."""
    heads, size, width = kernel.shape
    dtype, wide = carry[0].dtype, z.dtype
    narrow = kernel.astype(dtype)
    gates = tuple(_split_time(gate, heads) for gate in jnp.split(z, width // size, axis=-1))

    def token(carry, inputs):
        z, ok = inputs
        y, *state = carry
        sums = jnp.split(jnp.matmul(y, narrow, preferred_element_type=wide), len(z), axis=-1)
        a = tuple(z_j + s_j for z_j, s_j in zip(z, sums, strict=True))
        new_y, *new_state = pointwise(a, tuple(state))
        new = (new_y.astype(dtype), *new_state)
        out = _where(ok, new[0], jnp.zeros_like(y))
        return _where(ok, new, carry), (out, (a, tuple(state)) if store else None)

    return jax.lax.scan(token, _split(tuple(carry), heads), (gates, _by_token(valid)))


def _scan_forward(pointwise, kernel, carry, z, valid):
    last, (ys, stored) = _forward(pointwise, kernel, carry, z, valid, store=True)
    return (_merge(last), _merge_time(ys)), (kernel, carry[0], ys, stored, valid)


def _scan_backward(pointwise, residuals, cotangents):
    kernel, first_y, ys, stored, valid = residuals
    heads, dtype, wide = kernel.shape[0], first_y.dtype, stored[0][0].dtype
    (dy, *dstate), dys = _split(cotangents[0], heads), _split_time(cotangents[1], heads)
    transposed = kernel.astype(dtype).astype(wide).swapaxes(1, 2)  # (N, G·K, K), once and not at each token

    def token(carry, inputs):
        (a, state), dy_t, ok = inputs
        given = (carry[0] + dy_t.astype(wide), *carry[1:])
        given = _where(ok, given, jax.tree.map(jnp.zeros_like, given))
        da, dstate = jax.vjp(pointwise, a, state)[1](given)
        dy = jnp.matmul(jnp.concatenate(da, axis=-1), transposed)
        return _where(ok, (dy, *dstate), carry), da

    inputs = stored, dys, _by_token(valid)
    (dy, *dstate), dz = jax.lax.scan(token, (dy.astype(wide), *dstate), inputs, reverse=True)
    before = jnp.concatenate([_split(first_y, heads)[None], ys])[: ys.shape[0]].astype(wide)
    dkernel = jnp.concatenate([jnp.einsum("tnbk,tnbj->nkj", before, d) for d in dz], axis=-1)
    dz = jnp.concatenate([_merge_time(d) for d in dz], axis=-1)
    return dkernel.astype(kernel.dtype), _merge((dy.astype(dtype), *dstate)), dz, None


scan.defvjp(_scan_forward, _scan_backward)
