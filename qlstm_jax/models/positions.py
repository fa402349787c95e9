"""Position encodings of attention: three schemes, computed for as many positions as a sequence has."""

import jax.numpy as jnp
from jaxtyping import Array, Float

POSITIONS = ("none", "sinusoidal", "rotary", "alibi")
BASE = 10_000.0


def _angles(steps: int, features: int) -> Float[Array, "time pairs"]:
    """(T, ⌈F/2⌉) float32: t · 10000^(−2i/F) for position t and pair i."""
    frequencies = BASE ** (-jnp.arange(0, features, 2, dtype=jnp.float32) / features)
    return jnp.outer(jnp.arange(steps, dtype=jnp.float32), frequencies)


def sinusoidal(steps: int, features: int) -> Float[Array, "time features"]:
    """(T, F): sin(t / 10000^(2i/F)) in channel 2i and its cosine in channel 2i + 1 (arXiv 1706.03762, section 3.5)."""
    angles = _angles(steps, features)
    pairs = jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1)
    return pairs.reshape(steps, 2 * angles.shape[1])[:, :features]


def rotate(x: Float[Array, "batch time heads k"]) -> Float[Array, "batch time heads k"]:
    """Rotary positions on x (B, T, N, K), K even (arXiv 2104.09864, equation 34).

        (x_i, x_{i+K/2}) rotated by the angle t · 10000^(−2i/K)

    so that q_s·k_t depends on t − s alone. Pairs are channels of the two halves, not neighbours.
    """
    angles = _angles(x.shape[1], x.shape[3])[None, :, None]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)


def alibi(steps: int, num_heads: int) -> Float[Array, "heads time time"]:
    """(N, T, T): −2^(−8n/N) · |i − j| for head n = 1..N, to add to the scores (arXiv 2108.12409, section 3).

    With a causal mask this is the paper's bias; without, it is the same on both sides.
    """
    slopes = 2.0 ** (-8.0 * jnp.arange(1, num_heads + 1, dtype=jnp.float32) / num_heads)
    t = jnp.arange(steps, dtype=jnp.float32)
    return -slopes[:, None, None] * jnp.abs(t[:, None] - t[None, :])[None]
