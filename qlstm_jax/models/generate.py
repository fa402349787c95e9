"""Text from a language model: one call over the prompts, then one token at a time at constant memory."""

from functools import partial
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Key

from qlstm_jax.cells import common


@runtime_checkable
class LanguageModel(Protocol):
    """A model that `generate` draws from, such as `TokenModel` and `XLSTMLanguageModel`."""

    @property
    def has_carry(self) -> bool:
        """Whether it can read one token at a time."""

    def __call__(
        self, ids: Array, *, seq_lengths: Any = None, initial_carry: Any = None, return_carry: bool = False
    ) -> Any:
        """ids (B, T) to logits (B, T, V) or, with return_carry, (carry, logits)."""


def check_options(steps: int, *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> None:
    """Raises ValueError for options of `generate` that are out of range."""
    if not common.is_integer(steps) or steps < 1:
        raise ValueError(f"tokens is {common.shown(steps)}; expected an integer, 1 or more")
    if not common.is_number(temperature) or temperature < 0:
        raise ValueError(f"temperature is {common.shown(temperature)}; expected 0 (the most probable token) or more")
    check_filter(top_k, top_p)


def check_filter(top_k: int, top_p: float) -> None:
    """Raises ValueError for options of `filter_logits` that are out of range."""
    if not common.is_integer(top_k) or top_k < 0:
        raise ValueError(f"top_k is {common.shown(top_k)}; expected an integer, 0 (all) or more")
    if not common.is_number(top_p) or not 0 < top_p <= 1:
        raise ValueError(f"top_p is {common.shown(top_p)}; expected more than 0, up to 1 (all)")


def filter_logits(logits: Float[Array, "*rows v"], *, top_k: int = 0, top_p: float = 1.0) -> Float[Array, "*rows v"]:
    """Logits with -inf for the tokens that are not to be drawn.

    Args:
        logits: (..., V), divided by the temperature already.
        top_k: keep the k largest, of equals those with the lower index; 0 keeps all.
        top_p: of those, keep the fewest largest whose probabilities sum to top_p or more (nucleus sampling,
            arXiv 1904.09751, section 3.1); 1 keeps all.

    Raises:
        TypeError: if logits are no array of real numbers.
        ValueError: if they have no axes, or an option is out of range.
    """
    check_filter(top_k, top_p)
    common.check_numbers("logits", logits)
    if not logits.ndim:
        raise ValueError("logits is one number; expected (..., vocabulary)")
    vocab = logits.shape[-1]
    top_k = min(top_k or vocab, vocab)
    if top_k == vocab and top_p == 1:
        return logits
    order = jnp.argsort(-logits, axis=-1, stable=True)
    kept = jnp.broadcast_to(jnp.arange(vocab) < top_k, logits.shape)
    if top_p < 1:
        ranked = jnp.where(kept, jnp.take_along_axis(logits, order, axis=-1), -jnp.inf)
        chances = jax.nn.softmax(ranked, axis=-1)
        before = jnp.cumsum(chances, axis=-1) - chances  # of all more probable tokens
        kept &= before < top_p
    kept = jnp.take_along_axis(kept, jnp.argsort(order, axis=-1), axis=-1)
    return jnp.where(kept, logits, -jnp.inf)


def generate(
    model: LanguageModel,
    prompts: ArrayLike,
    seq_lengths: ArrayLike,
    steps: int,
    key: Key[Array, ""],
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    window: int | None = None,
) -> Int[Array, "batch steps"]:
    """Draws tokens from a model, each given all before it; each setting and shape is compiled once.

        p_t = softmax(filter(logits_t / temperature))

    A model with a carry reads the prompts in one call and then one token a step. One without, such as a Transformer,
    reads the last `window` tokens again in each step.

    Args:
        model: a `TokenModel` or `XLSTMLanguageModel`; dropout is off, whatever mode it is in.
        prompts: (B, P) integers, right padded.
        seq_lengths: (B,) number of valid positions, 1 to P.
        steps: tokens to draw.
        key: a PRNG key.
        temperature: 0 takes the most probable token, of equals the first.
        top_k, top_p: as for `filter_logits`; at temperature 0 they change nothing.
        window: tokens that a model without a carry sees; default P + steps, all of them.

    Returns:
        (B, steps) int32.

    Raises:
        TypeError: for a model, key, prompts or lengths that are none.
        ValueError: for an option out of range, prompts that do not fit the seq_lengths, an empty prompt, or a token
            that the model does not have.
    """
    check_options(steps, temperature=temperature, top_k=top_k, top_p=top_p)
    ids = common.as_array("prompts", prompts, "integers of shape (batch, P)")
    lengths = common.as_array("seq_lengths", seq_lengths, "integers of shape (batch,)")
    if not common.is_concrete(lengths):
        raise TypeError(
            "seq_lengths are not known under jit; expected numbers, as generate compiles what it needs itself"
        )
    lengths = np.asarray(lengths)
    if ids.ndim != 2 or lengths.shape != ids.shape[:1]:
        raise ValueError(f"prompts is {ids.shape} and seq_lengths {lengths.shape}; expected (batch, P) and (batch,)")
    if not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise ValueError(f"seq_lengths are {lengths.dtype}; expected integers")
    if lengths.size and not (lengths.min() >= 1 and lengths.max() <= ids.shape[1]):
        raise ValueError(f"seq_lengths run from {lengths.min()} to {lengths.max()}; expected 1..{ids.shape[1]}")
    window = ids.shape[1] + steps if window is None else window
    common.check_sizes(window=window)
    if isinstance(model, type) or not isinstance(model, LanguageModel) or not isinstance(model, nnx.Module):
        raise TypeError(f"model is {common.kind(model)}; expected a language model, such as a TokenModel")
    common.check_key(key)
    # A model may be one that does not say how many tokens it has.
    ids = common.check_ids("prompts", ids, getattr(model, "vocab_size", 2**31), seq_lengths=lengths)
    draw = _Draw(float(temperature), int(top_k), float(top_p))
    graphdef, state = nnx.split(model)
    keys = jax.random.split(key, steps)
    tokens: Array
    if model.has_carry:
        tokens = _continue(graphdef, state, ids, jnp.asarray(lengths), keys, draw=draw)
    else:
        tokens = _reread(graphdef, state, ids, jnp.asarray(lengths), keys, draw=draw, window=window)
    return tokens


class _Draw(NamedTuple):
    """How a token is drawn: hashable, a static argument of the compiled functions."""

    temperature: float
    top_k: int
    top_p: float

    def __call__(self, key: Key[Array, ""], logits: Float[Array, "batch v"]) -> Int[Array, " batch"]:
        """One token (B,) from logits (B, V)."""
        logits = logits.astype(jnp.float32)
        if self.temperature == 0:
            return jnp.argmax(logits, axis=-1).astype(jnp.int32)
        logits = filter_logits(logits / self.temperature, top_k=self.top_k, top_p=self.top_p)
        return jax.random.categorical(key, logits, axis=-1).astype(jnp.int32)


def _model(graphdef: nnx.GraphDef[nnx.Module], state: Any) -> LanguageModel:
    model = nnx.merge(graphdef, state)
    model.eval()
    return cast(LanguageModel, model)


@partial(jax.jit, static_argnums=0, static_argnames="draw")
def _continue(
    graphdef: nnx.GraphDef[nnx.Module],
    state: Any,
    prompts: Int[Array, "batch p"],
    seq_lengths: Int[Array, " batch"],
    keys: Key[Array, " steps"],
    *,
    draw: _Draw,
) -> Int[Array, "batch steps"]:
    """`generate` for a model with a carry."""
    carry, logits = _model(graphdef, state)(prompts, seq_lengths=seq_lengths, return_carry=True)
    first = draw(keys[0], common.at_position(logits, seq_lengths - 1))

    def step(carry_and_token: tuple[Any, Array], key: Array) -> tuple[tuple[Any, Array], Array]:
        carry, token = carry_and_token
        carry, logits = _model(graphdef, state)(token[:, None], initial_carry=carry, return_carry=True)
        token = draw(key, logits[:, 0])
        return (carry, token), token

    _, rest = jax.lax.scan(step, (carry, first), keys[1:])
    return jnp.concatenate([first[:, None], rest.T], axis=1)


@partial(jax.jit, static_argnums=0, static_argnames=("draw", "window"))
def _reread(
    graphdef: nnx.GraphDef[nnx.Module],
    state: Any,
    prompts: Int[Array, "batch p"],
    seq_lengths: Int[Array, " batch"],
    keys: Key[Array, " steps"],
    *,
    draw: _Draw,
    window: int,
) -> Int[Array, "batch steps"]:
    """`generate` for a model without a carry."""
    places = jnp.arange(window, dtype=jnp.int32)[None, :]
    count = jnp.minimum(seq_lengths, window).astype(jnp.int32)
    seen = jnp.minimum((seq_lengths - count)[:, None] + places, prompts.shape[1] - 1)
    last = jnp.take_along_axis(prompts.astype(jnp.int32), seen, axis=1)  # the last tokens of each prompt, left aligned

    def step(last_and_count: tuple[Array, Array], key: Array) -> tuple[tuple[Array, Array], Array]:
        last, count = last_and_count
        token = draw(key, common.at_position(_model(graphdef, state)(last, seq_lengths=count), count - 1))
        full = count == window
        last = jnp.where(full[:, None], jnp.roll(last, -1, axis=1), last)
        place = jnp.where(full, window - 1, count)
        last = jnp.where(places == place[:, None], token[:, None], last)
        return (last, place + 1), token

    _, tokens = jax.lax.scan(step, (last, count), keys)
    return tokens.T
