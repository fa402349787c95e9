"""A gated sum over time by an associative scan of logarithms: the recurrence of the cells whose gates see no state.

    h_t = exp(log_keep_t) ⊙ h_{t−1} + exp(log_add_t)

Positions combine associatively: of two neighbouring spans, the factors multiply and the earlier sum is scaled by the
later factor. In logarithms nothing overflows or vanishes on the way, whatever the length.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from qlstm_jax.cells.common.checks import check_known_length

# The logarithm of nothing. Finite, so that differences of it are numbers, and exp of it is 0 with gradient 0.
NEVER = -1e30


def gated_sum(
    log_keep: Float[Array, "batch time hidden"],
    log_add: Float[Array, "batch time hidden"],
    start: Float[Array, "batch hidden"],
    valid: Bool[Array, "batch time"] | None = None,
    resets: Bool[Array, "batch time"] | None = None,
) -> tuple[Float[Array, "batch hidden"], Float[Array, "batch time hidden"]]:
    """h at every position, in log2(T) parallel levels.

    Args:
        log_keep: logarithm of the factor of the sum so far, 0 or less.
        log_add: logarithm of the term added.
        start: h before the first position.
        valid: where false, h stays and the output is 0.
        resets: where true, h is 0 before the term is added.

    Returns:
        (h after each row's last valid position, h at each position).
    """
    check_known_length(log_keep.shape[1])
    if log_keep.shape[1] == 0:
        return start, log_keep
    if valid is not None:
        log_keep = jnp.where(valid[:, :, None], log_keep, 0)
        log_add = jnp.where(valid[:, :, None], log_add, NEVER)
    if resets is not None:
        log_keep = jnp.where(resets[:, :, None], NEVER, log_keep)

    def join(earlier: tuple[Array, Array], later: tuple[Array, Array]) -> tuple[Array, Array]:
        return earlier[0] + later[0], jnp.logaddexp(earlier[1] + later[0], later[1])

    log_factor, log_sum = jax.lax.associative_scan(join, (log_keep, log_add), axis=1)
    hs = jnp.exp(log_factor) * start[:, None] + jnp.exp(log_sum)
    return hs[:, -1], hs if valid is None else jnp.where(valid[:, :, None], hs, 0)


def log_positive(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """log g(x) with g(x) = x + 1/2 where x ≥ 0, else σ(x): positive and continuous (arXiv 2410.01201, appendix B.3)."""
    return jnp.where(x >= 0, jnp.log(jnp.maximum(x, 0) + 0.5), -jax.nn.softplus(-x))
