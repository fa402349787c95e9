"""A recurrence with a slow state that changes only at the ends of blocks of L tokens: a scan within a scan."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from qlstm_jax.cells import common
from qlstm_jax.cells.common.checks import Sequence

Carry = TypeVar("Carry")
# (carry, tokens (≤ L, B, ...), valid (≤ L, B) or None, reset (B,) or None) -> (carry, outputs (≤ L, B, ...))
Block = Callable[[Carry, Array, Array | None, Array | None], tuple[Carry, Array]]
BEYOND = 2**31 - 1  # more than any place
Position = Int[Array, " batch"] | None


def unroll(
    block: Block[Carry], carry: Carry, sequence: Sequence, *, block_size: int, position: Position = None
) -> tuple[Carry, Float[Array, "batch time hidden"]]:
    """A whole sequence, block by block, from the start of a stream or from anywhere in it.

    Args:
        block: runs tokens that lie in one block of every row.
        carry: where to begin, a pytree of (B, ...) arrays.
        sequence: as `cells.common.check_sequence` returns it.
        block_size: L.
        position: None at the start of a stream; else (B,), the place of each row in its block, 0..L-1.

    Returns:
        (carry, ys), the outputs (B, T, ...).
    """
    xs, seq_lengths, valid, resets = sequence
    steps = xs.shape[1]
    if resets is not None:
        return _unroll_with_resets(block, carry, sequence, block_size, position)
    if position is None:
        return _scan(block, carry, xs, valid, None, block_size)
    if steps < block_size:
        return _scan(block, carry, xs, valid, None, 1)
    # Rows are moved to the right by their place in the block, which aligns their blocks.
    xs, valid = common.shift_right(xs, seq_lengths, position, steps + block_size - 1)
    carry, ys = _scan(block, carry, xs, valid, None, block_size)
    return carry, common.shift_left(ys, position, steps)


def _unroll_with_resets(
    block: Block[Carry], carry: Carry, sequence: Sequence, block_size: int, position: Position
) -> tuple[Carry, Float[Array, "batch time hidden"]]:
    """Pieces laid out so that each begins with a block, if they fit twice the blocks; else one token at a time.

    A gradient keeps what each way needs, also of those not taken: all but the first are computed again in its place.
    """
    xs, seq_lengths, valid, resets = sequence
    steps = xs.shape[1]
    by_token = partial(_scan, block, block_size=1)
    if resets is None or steps <= block_size:
        return by_token(carry, xs, valid, resets)
    blocks = -(-steps // block_size)
    widths = [block_size * (count + 1) for count in (blocks + blocks // 4, 2 * blocks)]
    target, needed = _layout(seq_lengths, resets, block_size, position)
    every = jnp.ones(resets.shape, bool) if valid is None else valid

    def by_block(width: int, carry: Carry, xs: Array, valid: Any, resets: Any) -> tuple[Carry, Array]:
        laid = common.scatter((xs, every, resets), target, width)
        carry, ys = _scan(block, carry, *laid, block_size=block_size)
        return carry, common.zero_padding(common.gather(ys, target), valid)

    again = [jax.checkpoint(way) for way in (partial(by_block, widths[1]), by_token)]
    ways: list[Callable[..., Any]] = [partial(by_block, widths[0]), *again]
    way = sum(jnp.any(needed > width).astype(jnp.int32) for width in widths)
    result: tuple[Carry, Array] = jax.lax.switch(way, ways, carry, xs, valid, resets)
    return result


def _layout(
    seq_lengths: Int[Array, " batch"] | None, resets: Bool[Array, "batch time"], block_size: int, position: Position
) -> tuple[Int[Array, "batch time"], Int[Array, " batch"]]:
    """Where each token is laid, and how many places a row takes.

    Padding is laid beyond all places. The first piece of a row that continues begins within a block.
    """
    steps = resets.shape[1]
    t = jnp.arange(steps, dtype=jnp.int32)[None, :]
    pieces = common.find_pieces(resets, seq_lengths)
    before = jnp.zeros_like(pieces.start)
    if position is not None:
        before = jnp.where((pieces.start == 0) & ~resets[:, :1], position[:, None], 0)
    blocks = jnp.where(pieces.is_first, -(-(pieces.length + before) // block_size), 0)
    first = block_size * (jnp.cumsum(blocks, axis=1) - blocks)
    target = jnp.take_along_axis(first, pieces.start, axis=1) + before + t - pieces.start
    if seq_lengths is not None:
        target = jnp.where(t < seq_lengths[:, None], target, BEYOND)
    return target, block_size * jnp.sum(blocks, axis=1)


def _scan(
    block: Block[Carry], carry: Carry, xs: Array, valid: Array | None, resets: Array | None, block_size: int
) -> tuple[Carry, Float[Array, "batch time hidden"]]:
    """Folds `block` over the blocks of sequences (B, T, ...); resets count at the first token of a block alone."""
    whole = common.time_major((xs, valid, resets))
    carry = common.varying_as(carry, (xs, carry))
    steps = xs.shape[1]

    def run(carry: Carry, part: Any) -> tuple[Carry, Array]:
        xs, valid, resets = part
        return block(carry, xs, valid, None if resets is None else resets[0])

    if not isinstance(steps, int):
        return _scan_symbolic(run, carry, whole, steps, block_size)
    full = steps - steps % block_size
    parts = []
    blocks = jax.tree.map(lambda a: a[:full].reshape(full // block_size, block_size, *a.shape[1:]), whole)
    if full:  # without jit a scan over nothing is refused
        carry, ys = jax.lax.scan(run, carry, blocks)
        parts.append(ys.reshape(full, *ys.shape[2:]))
    if full < steps:
        carry, rest = run(carry, jax.tree.map(lambda a: a[full:], whole))
        parts.append(rest)
    return carry, common.time_major(parts[0] if len(parts) == 1 else jnp.concatenate(parts))


def _scan_symbolic(
    run: Callable[[Carry, Any], tuple[Carry, Array]], carry: Carry, whole: Any, steps: Any, block_size: int
) -> tuple[Carry, Float[Array, "batch time hidden"]]:
    """The fold over a number of tokens that is a symbol, under `jax.export`: the last block is filled up."""
    xs, valid, resets = whole
    valid = jnp.ones(xs.shape[:2], bool) if valid is None else valid
    count = -(-steps // block_size)

    def cut(a: Array) -> Array:
        more = count * block_size - steps
        return jnp.pad(a, [(0, more)] + [(0, 0)] * (a.ndim - 1)).reshape(count, block_size, *a.shape[1:])

    carry, ys = jax.lax.scan(run, carry, jax.tree.map(cut, (xs, valid, resets)))
    ys = ys.reshape(count * block_size, *ys.shape[2:])
    return carry, common.time_major(jax.lax.slice_in_dim(ys, 0, steps))
