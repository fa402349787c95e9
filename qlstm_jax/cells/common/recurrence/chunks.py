"""A scan over tokens in chunks: what is made of all tokens of a chunk at once stays in the processor's cache."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

CHUNK_ROWS = 512  # tokens times rows of the batch in a chunk: measured on a CPU, and flat between 256 and 1,024
SHORTEST_CHUNK = 8  # tokens
# On a GPU nothing stays in a cache, and what takes the time is to start kernels: chunks are only there to bound the
# memory, and tokens are unrolled, whose copies and counters the compiler then joins.
GPU_CHUNK_ROWS = 2**16
GPU_UNROLL = 8  # tokens


def _on_gpu() -> bool:
    """Whether programs are made for a GPU by default. For another device they are as right, only slower."""
    return jax.default_backend() == "gpu"


def unroll() -> int:
    """Tokens in one turn of a scan over tokens."""
    return GPU_UNROLL if _on_gpu() else 1


def chunk_length(xs: Array) -> int:
    """Tokens in a chunk: all, or about as many as make CHUNK_ROWS rows, a divisor of T if there is one near."""
    steps, batch = xs.shape[:2]
    if not isinstance(steps, int):  # symbolic, under jax.export
        return steps
    rows = max(batch, 1) if isinstance(batch, int) else 32
    length = max((GPU_CHUNK_ROWS if _on_gpu() else CHUNK_ROWS) // rows, SHORTEST_CHUNK)
    if steps <= 2 * length:
        return steps
    near = sorted(range(length // 2 + 1, 2 * length), key=lambda n: abs(n - length))
    return next((n for n in near if steps % n == 0), length)


def in_chunks(
    body: Callable[..., tuple[Any, Any]],
    carry: Any,
    inputs: Any,
    length: int,
    *,
    each: Any = None,
    reverse: bool = False,
) -> tuple[Any, Any]:
    """Folds `body(carry, inputs, each) -> (carry, outputs)` over chunks of `length` tokens, and a shorter last one.

    Args:
        inputs: a pytree of (T, ...); the body gets (length, ...) of each, and gives outputs of that length.
        each: None, or an array with one row for each chunk.
    """
    steps = jax.tree.leaves(inputs)[0].shape[0]
    count, rest = divmod(steps, length)
    if count == 1 and not rest:
        return body(carry, inputs, None if each is None else each[0])
    whole = count * length

    def run_rest(carry: Any) -> tuple[Any, Any]:
        return body(carry, jax.tree.map(lambda a: a[whole:], inputs), None if each is None else each[count])

    outputs: list[Any] = []
    if rest and reverse:
        carry, last = run_rest(carry)
        outputs.append(last)
    cut = jax.tree.map(lambda a: a[:whole].reshape(count, length, *a.shape[1:]), inputs)
    scanned = cut, None if each is None else each[:count]
    carry, first = jax.lax.scan(lambda c, i: body(c, *i), carry, scanned, reverse=reverse)
    outputs.insert(0, jax.tree.map(lambda a: a.reshape(whole, *a.shape[2:]), first))
    if rest and not reverse:
        carry, last = run_rest(carry)
        outputs.append(last)
    return carry, outputs[0] if not rest else jax.tree.map(lambda *a: jnp.concatenate(a), *outputs)
