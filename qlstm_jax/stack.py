"""Layers on layers and directions, as pure functions: what the NNX and the Linen layers share.

A call is that of `flax.nnx.RNN`: inputs (*batch, T, D), or (T, *batch, D) with time_major, to the outputs or, with
return_carry, (carry, outputs). The carry of one layer is that of its cell, of several a tuple with one for each.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from qlstm_jax.cells import common
from qlstm_jax.cells.common import Cell

Params = Any  # those of a cell
Directions = tuple[Params, ...]  # (forward,) or (forward, backward)
Between = Callable[[Array], Array]  # from the outputs of a layer to the inputs of the next, such as dropout


# What the gradient computes again, by name: "none" nothing; "layers" all of a layer from what goes into it, so that
# besides these inputs it holds what one layer needs at a time.
REMAT = ("none", "layers")


def _again(function: Callable[..., Any], remat: str) -> Callable[..., Any]:
    """Returns the function whose gradient computes again what `remat` names."""
    return function if remat == "none" else jax.checkpoint(function)


def check_stack(num_layers: int, dropout: float, **flags: bool) -> None:
    """Raises ValueError for a number of layers, a rate or flags that a sequence layer cannot have."""
    common.check_sizes(num_layers=num_layers)
    common.check_rates(dropout=dropout)
    common.check_flags(**flags)
    if dropout and num_layers == 1:
        warnings.warn("dropout acts between layers: with num_layers=1 it does nothing", UserWarning, stacklevel=3)


def check_has_carry(bidirectional: bool) -> None:
    """Raises ValueError where a bidirectional layer is asked for a carry."""
    if bidirectional:
        raise ValueError(
            "a bidirectional layer has no carry: its backward half starts from the end of the sequence, so that it "
            "cannot be continued. Leave out initial_carry and return_carry, or make the layer with bidirectional=False."
        )


def as_carry(cell: Cell, carry: Any, batch: tuple[int, ...]) -> Any:
    """`carry` as the cell's named tuple, for the batch axes `batch`; Flax's plain (c, h) or h becomes one.

    Raises:
        ValueError: if it is not a carry of this cell and batch.
    """
    if isinstance(carry, jax.Array) and len(cell.Carry._fields) == 1:
        carry = cell.Carry(carry)
    elif type(carry) is tuple and len(carry) == len(cell.Carry._fields) and not isinstance(carry[0], tuple):
        carry = cell.Carry(*carry)
    if not isinstance(carry, cell.Carry):
        raise ValueError(
            f"the carry is {common.kind(carry)}; expected {cell.__name__}.{cell.Carry.__name__}, "
            "made by initialize_carry or returned by an earlier call"
        )
    return check_batch(carry, batch)


def check_batch(carry: Any, batch: tuple[int, ...]) -> Any:
    """`carry`, if all that is in it are arrays whose first axes are `batch`.

    Raises:
        ValueError: if it holds another thing.
    """
    shapes = [getattr(a, "shape", None) for a in jax.tree.leaves(carry)]
    if any(shape is None or shape[: len(batch)] != batch for shape in shapes):
        raise ValueError(
            f"the carry's arrays have shapes {shapes}; expected {batch} as their first axes, the batch of the input"
        )
    return carry


def as_given_carry(carry: Any, given: Any) -> Any:
    """`carry` in the form of the one given, a plain tuple or array for a plain one, as a scan needs it."""
    if isinstance(given, jax.Array):
        return carry[0]
    return tuple(carry) if type(given) is tuple else carry


def _batch_of_step(split: tuple[Any, ...], _: dict[str, Any]) -> Any:
    """How the results of a step are split, from how x (*batch, D) is."""
    return PartitionSpec(*split[:-1])


def _batch_of_sequences(split: tuple[Any, ...], given: dict[str, Any]) -> Any:
    """How the carry is split, or a last output, from how inputs (*batch, T, D) or (T, *batch, D) are."""
    return PartitionSpec(*(split[1:-1] if given["time_major"] else split[:-2]))


def _batch_of_run(split: tuple[Any, ...], given: dict[str, Any]) -> Any:
    """How (carry, outputs) are split."""
    batch = _batch_of_sequences(split, given)
    return batch, PartitionSpec(None, *batch) if given["time_major"] else batch


@common.on_any_mesh("x", _batch_of_step)
def step(cell: Cell, params: Params, carry: Any, x: Float[Array, "*batch d"]) -> tuple[Any, Float[Array, "*batch h"]]:
    """One time step of a cell with any number of batch axes.

    Raises:
        TypeError: if x is not an array of real numbers.
        ValueError: if the carry is not one of this cell and batch.
    """
    batch = x.shape[:-1]
    start = _merge_batch(as_carry(cell, carry, batch), batch)
    end, y = cell.step(params, start, x.reshape(-1, x.shape[-1]))
    return as_given_carry(_split_batch(end, batch), carry), _split_batch(y, batch)


def check_inputs(inputs: Any, in_features: int | None = None) -> int:
    """D, the last axis of the inputs of a cell or layer, which must be in_features unless that is None.

    Raises:
        TypeError: if they are not an array of real numbers.
        ValueError: if they have no axes, or another number of features.
    """
    common.check_numbers("inputs", inputs)
    if not inputs.ndim or in_features not in (None, inputs.shape[-1]):
        features = "features" if in_features is None else in_features
        raise ValueError(
            f"inputs have shape {inputs.shape}; expected (..., {features}), one time step of a cell. For a whole "
            "sequence use Flax's RNN or a sequence layer."
        )
    size: int = inputs.shape[-1]
    return size


def check_input_shape(input_shape: Any, in_features: int | None = None) -> int:
    """D, the last number of the shape of one time step, which must be in_features unless that is None.

    Raises:
        ValueError: if it is no shape, or of another number of features.
    """
    last = "features" if in_features is None else in_features
    sizes = tuple(input_shape) if isinstance(input_shape, tuple | list) else ()
    if not sizes or in_features not in (None, sizes[-1]):
        raise ValueError(f"input_shape is {common.shown(input_shape)}; expected (..., {last}), that of a time step")
    for size in sizes:
        common.check_batch_size(size, "a size in input_shape")
    features: int = sizes[-1]
    return features


def initial_carry(cell: Cell, params: Params, input_shape: Sequence[int], **options: Any) -> Any:
    """The cell's initial carry for one time step of shape (*batch, D)."""
    batch = tuple(input_shape[:-1])
    return _split_batch(cell.initial_carry(params, math.prod(batch), **options), batch)


def draw_carry(carry: Any, carry_init: Callable[..., Array] | None, key: Array | None) -> Any:
    """A carry of zeros with its floating-point arrays drawn by `carry_init(key, shape, dtype)`; None leaves it.

    Raises:
        ValueError: without a key to draw with.
    """
    if carry_init is None:
        return carry
    if key is None:
        raise ValueError("carry_init is given and rngs is None; expected rngs, an nnx.Rngs or a key, to draw with")
    common.check_key(key, "rngs")
    leaves, structure = jax.tree.flatten(carry)
    keys = jax.random.split(key, len(leaves))
    floats = [jnp.issubdtype(a.dtype, jnp.floating) for a in leaves]
    drawn = [
        carry_init(k, a.shape, a.dtype) if is_float else a for k, a, is_float in zip(keys, leaves, floats, strict=True)
    ]
    return jax.tree.unflatten(structure, drawn)


def _merge_batch(tree: Any, batch: tuple[int, ...]) -> Any:
    """(*batch, ...) to (B, ...). One axis stays as it is, for the compiler to split over devices."""
    if len(batch) == 1:
        return tree
    return jax.tree.map(lambda a: a.reshape(math.prod(batch), *a.shape[len(batch) :]), tree)


def _split_batch(tree: Any, batch: tuple[int, ...]) -> Any:
    """The inverse of `_merge_batch`."""
    return tree if len(batch) == 1 else jax.tree.map(lambda a: a.reshape(*batch, *a.shape[1:]), tree)


def batch_major(
    inputs: Array, seq_lengths: Any, resets: Any, in_features: int, time_major: bool
) -> tuple[common.Sequence, tuple[int, ...]]:
    """Inputs as sequences (B, T, D) with lengths (B,) and resets (B, T), and the batch axes that the caller has.

    Padding of the inputs is set to 0.

    Raises:
        TypeError: if the inputs are not an array of real numbers.
        ValueError: if a shape does not fit, or a length lies outside 0..T.
    """
    common.check_numbers("inputs", inputs)
    common.check_flags(time_major=time_major)
    expected = f"(time, *batch, {in_features})" if time_major else f"(*batch, time, {in_features})"
    if inputs.ndim < 2 or inputs.shape[-1] != in_features:
        raise ValueError(f"inputs have shape {inputs.shape}; expected {expected}, sequences of {in_features} features")
    inputs = jnp.moveaxis(inputs, 0, -2) if time_major else inputs
    batch, steps = inputs.shape[:-2], inputs.shape[-2]
    if seq_lengths is not None:
        seq_lengths = common.as_array("seq_lengths", seq_lengths, f"integers of shape {batch}")
        if seq_lengths.shape != batch:
            raise ValueError(
                f"seq_lengths has shape {seq_lengths.shape}; expected {batch}, the batch axes of the inputs: the "
                "number of valid positions of each sequence"
            )
        # Under jit even the reshaping of a constant is traced, and its values would be unknown.
        seq_lengths = np.asarray(seq_lengths) if common.is_concrete(seq_lengths) else seq_lengths
        seq_lengths = _merge_batch(seq_lengths, batch)
    if resets is not None:
        expected_shape = (steps, *batch) if time_major else (*batch, steps)
        resets = common.as_array("resets", resets, f"booleans of shape {expected_shape}")
        if resets.shape != expected_shape:
            raise ValueError(
                f"resets have shape {resets.shape}; expected {expected_shape}, a boolean for each position of inputs"
            )
        resets = _merge_batch(jnp.moveaxis(resets, 0, -1) if time_major else resets, batch)
    return common.check_sequence(_merge_batch(inputs, batch), seq_lengths, in_features, resets), batch


def as_given(ys: Array, batch: tuple[int, ...], time_major: bool) -> Array:
    """Outputs (B, T, H) in the axes that the caller has."""
    ys = _split_batch(ys, batch)
    return jnp.moveaxis(ys, -2, 0) if time_major else ys


@common.on_any_mesh("inputs", _batch_of_run)
def run(
    cell: Cell,
    layers: Sequence[Directions],
    inputs: Array,
    *,
    in_features: int,
    initial_carry: Any = None,
    seq_lengths: Any = None,
    resets: Any = None,
    time_major: bool = False,
    reverse: bool = False,
    keep_order: bool = False,
    between: Between = lambda xs: xs,
    remat: str = "none",
) -> tuple[Any, Array]:
    """A call of a sequence layer.

    Args:
        cell: the cell's module, or anything else that has its `unroll`.
        layers: for each layer the params of its directions.
        inputs: (*batch, T, D), or (T, *batch, D) with time_major.
        in_features: D.
        initial_carry: where to continue from; None at the start of a sequence.
        seq_lengths: None or (*batch,), the number of valid positions.
        resets: None or (*batch, T), or (T, *batch) with time_major: where a new sequence begins.
        time_major: whether time is the first axis of inputs and outputs.
        reverse: whether each sequence is read from its last valid position to its first.
        keep_order: whether a reversed layer's outputs stand in the order of the inputs, not in that of reading.
        between: maps the outputs of each layer but the last to the input of the next.
        remat: what the gradient computes again, of `REMAT`.

    Returns:
        (carry, outputs (*batch, T, H or 2H)), the carry the forward one.

    Raises:
        ValueError: if a shape or the carry does not fit, or a length lies outside 0..T.
    """
    common.check_flags(reverse=reverse, keep_order=keep_order)
    sequence, batch = batch_major(inputs, seq_lengths, resets, in_features, time_major)
    sequence = read_backward(sequence) if reverse else sequence
    starts = _carries(cell, initial_carry, len(layers), batch)
    ends, ys = _run(cell, layers, sequence, starts, between, remat)
    ys = common.reverse(ys, sequence.seq_lengths) if reverse and keep_order else ys
    given = [None] * len(layers) if initial_carry is None else [initial_carry] if len(layers) == 1 else initial_carry
    ends = [as_given_carry(_split_batch(end, batch), start) for end, start in zip(ends, given, strict=True)]
    return pack_carries(ends), as_given(ys, batch, time_major)


def pack_carries(carries: Sequence[Any]) -> Any:
    """The carry of a stack: that of its one layer, or a tuple with one for each."""
    return carries[0] if len(carries) == 1 else tuple(carries)


def _carries(cell: Cell, carry: Any, num_layers: int, batch: tuple[int, ...]) -> list[Any]:
    """The carry of each layer for a merged batch, None where a sequence starts."""
    if carry is None:
        return [None] * num_layers
    if num_layers > 1 and (type(carry) is not tuple or len(carry) != num_layers):
        raise ValueError(f"initial_carry is {common.kind(carry)}; expected a tuple of {num_layers}, one for each layer")
    carries = [carry] if num_layers == 1 else carry
    return [_merge_batch(as_carry(cell, c, batch), batch) for c in carries]


def read_backward(sequence: common.Sequence) -> common.Sequence:
    """The same sequences, read from their last valid position to their first."""
    xs, seq_lengths, valid, resets = sequence
    resets = None if resets is None else common.reversed_resets(resets, seq_lengths)
    return common.Sequence(common.reverse(xs, seq_lengths), seq_lengths, valid, resets)


def _run(
    cell: Cell,
    layers: Sequence[Directions],
    sequence: common.Sequence,
    starts: Sequence[Any],
    between: Between,
    remat: str,
) -> tuple[list[Any], Array]:
    ends = []
    xs, seq_lengths, _, resets = sequence
    for number, ((forward, *backward), start) in enumerate(zip(layers, starts, strict=True)):
        xs = between(xs) if number else xs
        unroll = _again(partial(cell.unroll, seq_lengths=seq_lengths, resets=resets), remat)
        end, ys = unroll(forward, xs, carry=start)
        if backward:
            back = read_backward(sequence._replace(xs=xs))
            unroll = _again(partial(cell.unroll, seq_lengths=seq_lengths, resets=back.resets), remat)
            _, zs = unroll(backward[0], back.xs)
            ys = jnp.concatenate([ys, common.reverse(zs, seq_lengths)], axis=-1)
        xs = ys
        ends.append(end)
    return ends, xs


@common.on_any_mesh("inputs", _batch_of_sequences)
def last(
    cell: Cell,
    layers: Sequence[Directions],
    inputs: Array,
    *,
    in_features: int,
    seq_lengths: Any = None,
    resets: Any = None,
    time_major: bool = False,
    between: Between = lambda xs: xs,
    remat: str = "none",
) -> Array:
    """The output of `run` at the last position that each direction reads, (*batch, H or 2H); zeros at length 0."""
    sequence, batch = batch_major(inputs, seq_lengths, resets, in_features, time_major)
    *below, top = layers
    if below:
        xs = between(_run(cell, below, sequence, [None] * len(below), between, remat)[1])
        sequence = sequence._replace(xs=xs)
    read = [sequence, read_backward(sequence)] if len(top) > 1 else [sequence]
    outputs = [
        _again(partial(cell.last, seq_lengths=s.seq_lengths, resets=s.resets), remat)(params, s.xs)
        for params, s in zip(top, read, strict=True)
    ]
    joined: Array = _split_batch(jnp.concatenate(outputs, axis=-1) if len(top) > 1 else outputs[0], batch)
    return joined
