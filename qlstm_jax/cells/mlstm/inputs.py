"""State and inputs of the matrix memory: types, checks of their shapes, and padding that changes nothing.

Axes: B batch, T time, N heads, K key size, V value size.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Bool, Float

from qlstm_jax.cells import common

# Stands for log 0. Finite, so that differences of it are numbers, and exp of it is 0 with gradient 0.
LOG_ZERO = -1e30


class State(NamedTuple):
    """The state between two tokens; C and n are those of the equations, times exp(−m)."""

    C: Float[Array, "batch heads k v"]
    n: Float[Array, "batch heads k"]
    m: Float[Array, "batch heads"]


class Inputs(NamedTuple):
    """A sequence as `prepare` returns it: log σ(f̃) for f̃, and padding that adds nothing and forgets nothing."""

    q: Float[Array, "batch time heads k"]
    k: Float[Array, "batch time heads k"]
    v: Float[Array, "batch time heads v"]
    i: Float[Array, "batch time heads"]
    log_f: Float[Array, "batch time heads"]


def zero_state(batch: int, heads: int, key_size: int, value_size: int, dtype: DTypeLike = jnp.float32) -> State:
    """The state before the first token: zeros, float32 or wider."""
    dtype = common.accumulator(dtype)
    shape = batch, heads, key_size
    return State(C=jnp.zeros((*shape, value_size), dtype), n=jnp.zeros(shape, dtype), m=jnp.zeros(shape[:2], dtype))


def log_sigmoid(f: Float[Array, "*rows"]) -> Float[Array, "*rows"]:
    """log σ(f̃), float32 or wider."""
    return jax.nn.log_sigmoid(f.astype(common.accumulator(f.dtype)))


def check_inputs(
    q: Array,
    k: Array,
    v: Array,
    i: Array,
    f: Array,
    state: State | None = None,
    seq_lengths: ArrayLike | None = None,
    resets: ArrayLike | None = None,
) -> State:
    """The initial state, `state` or zeros, after the shapes have been checked.

    Raises:
        ValueError: naming the first that does not fit.
    """
    if q.ndim != 4:
        raise ValueError(f"q has shape {q.shape}; expected (batch, time, heads, key size)")
    batch, steps, heads, key_size = q.shape
    value_size = v.shape[-1]
    expected: dict[str, tuple[ArrayLike | None, tuple[int, ...]]] = {
        "k": (k, q.shape),
        "v": (v, (batch, steps, heads, value_size)),
        "i": (i, (batch, steps, heads)),
        "f": (f, (batch, steps, heads)),
        "seq_lengths": (seq_lengths, (batch,)),
        "resets": (resets, (batch, steps)),
    }
    if state is None:
        state = zero_state(batch, heads, key_size, value_size, v.dtype)
    else:
        expected["state.C"] = state.C, (batch, heads, key_size, value_size)
        expected["state.n"] = state.n, (batch, heads, key_size)
        expected["state.m"] = state.m, (batch, heads)
    for name, (array, shape) in expected.items():
        if array is not None and jnp.shape(array) != shape:
            raise ValueError(f"{name} has shape {jnp.shape(array)}; expected {shape}, as q has shape {q.shape}")
    return state


def prepare(
    q: Float[Array, "batch time heads k"],
    k: Float[Array, "batch time heads k"],
    v: Float[Array, "batch time heads v"],
    i: Float[Array, "batch time heads"],
    f: Float[Array, "batch time heads"],
    state: State,
    seq_lengths: ArrayLike | None,
    resets: ArrayLike | None,
) -> tuple[Inputs, Bool[Array, "batch time"] | None, Bool[Array, "batch time"] | None]:
    """The `Inputs` in the state's precision, the resets without those in padding, and the (B, T) mask or None."""
    valid = None if seq_lengths is None else common.valid_mask(jnp.asarray(seq_lengths), q.shape[1])
    q, k, v, i, f = (common.zero_padding(a, valid).astype(state.C.dtype) for a in (q, k, v, i, f))
    log_f = log_sigmoid(f)
    if valid is not None:
        i, log_f = jnp.where(valid[:, :, None], i, LOG_ZERO), common.zero_padding(log_f, valid)
    inputs = Inputs(q=q, k=k, v=v, i=i, log_f=log_f)
    return inputs, None if resets is None else common.zero_padding(jnp.asarray(resets), valid), valid


def hide_constants(state: State, x: Inputs) -> State:
    """The same state, or its cotangent, made to depend on x, so that XLA does not know where it is constant.

    XLA on a CPU (jaxlib 0.10.2 to 0.12) may combine a product with zeros that it knows of with sums of the other
    factor, and then reads uninitialised memory. The first state is such zeros, and so is the cotangent of a last state
    that is not used, where a loop over chunks has a single iteration. Where x starts with NaN, the state becomes NaN.
    """
    k, v = (a[:, 0] == a[:, 0] for a in (x.k, x.v))
    nan = jnp.full((1,) * 4, jnp.nan, x.k.dtype)
    return state._replace(
        C=jnp.where(k[..., None] & v[..., None, :], state.C, nan), n=jnp.where(k, state.n, nan[..., 0])
    )
