"""What all cells share: the params container, checks at the door, products in the right precision, initialisers."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from qlstm_jax.unroll import products, sequential


def static(**kwargs):
    """A dataclass field that travels in the treedef (an option) instead of as an array leaf."""
    return dataclasses.field(metadata={"static": True}, **kwargs)


def params_dataclass(cls):
    """Makes `cls` a frozen, keyword-only dataclass that is a pytree: arrays are leaves, `static()` fields are not.

    So `params` alone says everything about a cell: `jax.grad`, optimisers and checkpoints see the arrays, while
    the options, hashable, are part of what `jax.jit` specialises on.
    """
    return jax.tree_util.register_dataclass(dataclasses.dataclass(frozen=True, kw_only=True)(cls))


def accumulator(dtype):
    """The precision of gates and sums for activations of `dtype`: float32, or wider if the activations are."""
    return jnp.promote_types(dtype, jnp.float32)


def matmul(x, kernel, dtype):
    """`x @ kernel` with both operands in `dtype`, accumulated and returned in float32 or wider."""
    return products.matmul(x.astype(dtype), kernel.astype(dtype), accumulator(dtype))


def row(vector, ndim: int):
    """(H,) as (1, ..., 1, H) with `ndim` axes: broadcasting written out."""
    return vector.reshape((1,) * (ndim - 1) + vector.shape)


def affine(x, kernel, bias, dtype):
    """`x @ kernel + bias`, accumulated and returned in float32 or wider."""
    return matmul(x, kernel, dtype) + row(bias, x.ndim)


def lecun_normal(key, shape, dtype=jnp.float32):
    """Truncated normal of variance 1 / fan_in, as Flax's default for input kernels."""
    return jax.nn.initializers.lecun_normal()(key, shape, dtype)


def orthogonal(key, hidden_size: int, blocks: int, dtype=jnp.float32):
    """(H, blocks·H): one random orthogonal matrix for each gate, side by side; drawn in float32, whatever the dtype."""
    draw = partial(jax.nn.initializers.orthogonal(), shape=(hidden_size, hidden_size))
    return jnp.concatenate([draw(k) for k in jax.random.split(key, blocks)], axis=1).astype(dtype)


def chrono_bias(key, hidden_size: int, longest: int, dtype=jnp.float32):
    """(H,) biases log u, u uniform on 1 .. longest − 1, of gates that keep: with them a unit forgets in about u tokens.

    Chrono initialisation (Tallec and Ollivier 2018, arXiv 1804.11188): units of all time scales up to `longest`. A gate
    that lets in begins at the negative.

    Raises:
        ValueError: if longest is no integer from 3 on.
    """
    if isinstance(longest, bool) or not isinstance(longest, int) or longest < 3:
        raise ValueError(
            f"chrono is {longest!r}; expected the longest dependence in tokens, an integer from 3 on, or 0 for biases "
            "that are equal in all units"
        )
    return jnp.log(jax.random.uniform(key, (hidden_size,), minval=1, maxval=longest - 1)).astype(dtype)


def check_sizes(**sizes):
    """Raises ValueError unless every given size is a positive integer."""
    for name, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} is {value!r}; expected a positive integer")


def check_choice(name: str, value, choices):
    """Raises ValueError unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; expected one of {', '.join(map(repr, choices))}")


def check_step(x, input_size: int):
    """Raises ValueError unless `x` is one time step (B, D) with D the cell's input size."""
    if x.ndim != 2 or x.shape[1] != input_size:
        raise ValueError(
            f"x has shape {x.shape}; expected (batch, {input_size}), one time step of a cell made with "
            f"input_size={input_size}. For a whole sequence (batch, time, {input_size}) call unroll."
        )


def prepare(xs, lengths, input_size: int):
    """Checks a sequence and its lengths at the door of `unroll`.

    Args:
        xs: (B, T, D).
        lengths: None or (B,) integers in 0..T.
        input_size: D of the cell.

    Returns:
        (xs, lengths, valid): padding of `xs` set to 0 (so that whatever it held, NaN included, reaches neither value
        nor gradient), lengths as int32 clipped to 0..T, and the (B, T) mask. The last two are None without lengths.

    Raises:
        ValueError: for another shape, lengths that are no integers, or concrete lengths outside 0..T.
    """
    if xs.ndim != 3 or xs.shape[2] != input_size:
        raise ValueError(
            f"xs has shape {xs.shape}; expected (batch, time, {input_size}) for a cell made with "
            f"input_size={input_size}. For one time step (batch, {input_size}) call step."
        )
    if lengths is None:
        return xs, None, None
    batch, steps = xs.shape[:2]
    lengths = lengths if isinstance(lengths, jax.Array) else np.asarray(lengths)
    if lengths.shape != (batch,) or not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise ValueError(
            f"lengths is {lengths.dtype} of shape {lengths.shape}; expected integers of shape ({batch},), "
            "the number of valid positions in each row of xs"
        )
    if not isinstance(lengths, jax.core.Tracer) and batch:
        low, high = np.min(lengths), np.max(lengths)  # numpy: under jit, jax would trace even a constant
        if low < 0 or high > steps:
            raise ValueError(
                f"lengths run from {low} to {high}; expected 0..{steps}, as xs has {steps} positions a row. "
                "Pad xs, or clip the lengths."
            )
    lengths = jnp.clip(lengths.astype(jnp.int32), 0, steps)
    valid = sequential.valid_mask(lengths, steps)
    return jnp.where(valid[:, :, None], xs, jnp.zeros((), xs.dtype)), lengths, valid


def unroll(params, xs, lengths, carry, *, initial_carry, project, recur):
    """The `unroll` of a cell whose input product can be taken out of the recurrence.

    Args:
        params: of the cell; xs, lengths and carry: as given to the cell's own `unroll`.
        initial_carry: of the cell.
        project: (params, xs) -> pre-activations, taken for all positions at once, of time-major xs (T, B, D).
        recur: (params, carry, pre-activations of one position) -> (carry, y), the rest of the cell's step.
    """
    xs, _, valid = prepare(xs, lengths, params.input_kernel.shape[0])
    carry = initial_carry(params, xs.shape[0]) if carry is None else carry
    projected = project(params, sequential.time_major(xs))
    valid = None if valid is None else valid.T
    ys, carry = sequential.scan_time_major(partial(recur, params), carry, projected, valid=valid)
    return sequential.time_major(ys), carry
