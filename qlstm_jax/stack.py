"""A stack of recurrent layers as pure functions: what the NNX and the Linen modules share."""

import math
import warnings

import jax
import jax.numpy as jnp

from qlstm_jax.cells import common


def check_stack(num_layers: int, dropout: float):
    """Raises ValueError for a number of layers or a rate that a sequence layer cannot have."""
    common.check_sizes(num_layers=num_layers)
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout is {dropout!r}; expected a rate from 0 to below 1")
    if dropout and num_layers == 1:
        warnings.warn("dropout acts between layers: with num_layers=1 it does nothing", UserWarning, stacklevel=3)


def refuse_carry(bidirectional: bool):
    """Raises ValueError where a bidirectional layer is asked for a carry."""
    if bidirectional:
        raise ValueError(
            "a bidirectional layer has no carry: its backward half starts from the end of the sequence, so that it "
            "cannot be continued. Leave out initial_carry and return_carry, or make the layer with bidirectional=False."
        )


def check_carry(functions, carry, batch: tuple[int, ...]):
    """Raises ValueError unless `carry` is one of the cell `functions` for the batch axes `batch`."""
    if not isinstance(carry, functions.Carry):
        raise ValueError(
            f"the carry is a {type(carry).__name__}; expected {functions.__name__}.{functions.Carry.__name__}, "
            "made by initialize_carry or returned by an earlier call"
        )
    shapes = [a.shape for a in jax.tree.leaves(carry)]
    if any(shape[: len(batch)] != batch for shape in shapes):
        raise ValueError(
            f"the carry's arrays have shapes {shapes}; expected {batch} as their first axes, the batch of the input"
        )


def step(functions, params, carry, x):
    """One time step of a cell with any number of batch axes: x (..., D) to (carry, y (..., H)).

    Raises:
        ValueError: if the carry is not one of this cell and batch.
    """
    batch = x.shape[:-1]
    check_carry(functions, carry, batch)
    flat = jax.tree.map(lambda a: a.reshape(-1, *a.shape[len(batch) :]), carry)
    carry, y = functions.step(params, flat, x.reshape(-1, x.shape[-1]))
    return jax.tree.map(lambda a: a.reshape(*batch, *a.shape[1:]), (carry, y))


def initial_carry(functions, params, input_shape: tuple[int, ...], **options):
    """The cell's initial carry for an input (..., D) with any number of batch axes."""
    batch = tuple(input_shape[:-1])
    carry = functions.initial_carry(params, math.prod(batch), **options)
    return jax.tree.map(lambda a: a.reshape(*batch, *a.shape[1:]), carry)


def run(functions, layers, xs, seq_lengths, carry, between):
    """Reads sequences with a stack of layers, each the `unroll` of a cell, or of two in opposite directions.

    Args:
        functions: the cell's module in `qlstm_jax.cells`, or what else has its `unroll`.
        layers: for each layer the params of its directions, (forward,) or (forward, backward).
        xs: (B, T, D).
        seq_lengths: None or (B,), as `common.check_sequence` returns them.
        carry: None or one carry for each layer.
        between: maps the outputs of each layer but the last to the input of the next.

    Returns:
        (carry, ys): the forward carries, one for each layer, and (B, T, H or 2H).

    Raises:
        ValueError: if the carry does not fit.
    """
    if carry is None:
        carry = (None,) * len(layers)
    elif not isinstance(carry, tuple) or hasattr(carry, "_fields") or len(carry) != len(layers):
        raise ValueError(f"initial_carry is {carry!r:.80}; expected a tuple of {len(layers)}, one carry for each layer")
    else:
        for start in carry:
            check_carry(functions, start, xs.shape[:1])
    ends = []
    for number, ((forward, *backward), start) in enumerate(zip(layers, carry, strict=True)):
        xs = between(xs) if number else xs
        end, ys = functions.unroll(forward, xs, seq_lengths=seq_lengths, carry=start)
        if backward:
            _, zs = functions.unroll(backward[0], common.reverse(xs, seq_lengths), seq_lengths=seq_lengths)
            ys = jnp.concatenate([ys, common.reverse(zs, seq_lengths)], axis=-1)
        xs = ys
        ends.append(end)
    return tuple(ends), xs


def run_last(functions, layers, xs, seq_lengths, between):
    """The output of `run` at the last position that each direction reads, (B, H or 2H); zeros at length 0."""
    *below, top = layers
    if below:
        xs = between(run(functions, below, xs, seq_lengths, None, between)[1])
    inputs = [xs, common.reverse(xs, seq_lengths)] if len(top) > 1 else [xs]
    outputs = [_final(functions, params, x, seq_lengths) for params, x in zip(top, inputs, strict=True)]
    return jnp.concatenate(outputs, axis=-1) if len(top) > 1 else outputs[0]


def _final(functions, params, xs, seq_lengths):
    if hasattr(functions, "reduce"):
        return functions.reduce(params, xs, seq_lengths=seq_lengths).h
    _, ys = functions.unroll(params, xs, seq_lengths=seq_lengths)
    return common.last_valid(ys, seq_lengths)
