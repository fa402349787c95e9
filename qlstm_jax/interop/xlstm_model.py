"""What the two official xLSTM codes have in common: a stack of blocks, a norm, an embedding and a last map."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float
from numpy.typing import ArrayLike

from qlstm_jax.interop import checks, entries
from qlstm_jax.interop.entries import Entry
from qlstm_jax.models.xlstm import MLSTM7BConfig, XLSTMLanguageModel, XLSTMStack
from qlstm_jax.models.xlstm_config import XLSTMConfig

HEAD = "lm_head.weight"

Config = XLSTMConfig | MLSTM7BConfig
Kind = TypeVar("Kind")
Module = TypeVar("Module", bound=nnx.Module)


class Outer(NamedTuple):
    """The official names of the parameters outside of the blocks."""

    embedding: str
    stack: str  # prefix of the names of the stack in a language model
    norm: str


def checked_config(config: object, kind: type[Kind], other: str) -> Kind:
    """The config; raises ValueError unless it is of this kind. Those of the other kind are for the function `other`."""
    if not isinstance(config, kind):
        raise ValueError(f"config is a {type(config).__name__}; expected a {kind.__name__}; see also {other}")
    return config


def model_from(
    source: str,
    state_dict: Mapping[str, ArrayLike],
    config: Config,
    outer: Outer,
    block: Callable[[int], list[Entry]],
) -> XLSTMLanguageModel | XLSTMStack:
    """A language model, or if the config has no vocab_size a stack, its names and shapes checked.

    Args:
        source: what the weights should be, for the message.
        state_dict: mapping from name to array.
        config: sizes and options.
        outer: names.
        block: from a block's index to its entries.
    """
    table = _table(config, outer, block)
    given = dict(state_dict)
    head = given.pop(HEAD, None) if config.tie_embedding else None
    arrays = checks.checked(source, given, entries.shapes(table))
    if head is not None and not np.array_equal(checks.as_numpy(HEAD, head), arrays[outer.embedding]):
        raise ValueError(
            f"{HEAD} is not {outer.embedding}, but tie_embedding is True; expected False for these weights"
        )
    kind: Any = XLSTMStack if config.vocab_size is None else XLSTMLanguageModel
    model: XLSTMLanguageModel | XLSTMStack = made(kind, config, entries.read(table, arrays))
    return model


def state_dict_of(
    model: XLSTMLanguageModel | XLSTMStack, outer: Outer, block: Callable[[int], list[Entry]]
) -> dict[str, Float[np.ndarray, "..."]]:
    """The inverse of `model_from`."""
    flat = nnx.to_flat_state(nnx.state(model, nnx.Param))
    parameters = {".".join(map(str, path)): variable[...] for path, variable in flat}
    arrays = entries.write(_table(model.config, outer, block), parameters)
    if model.config.tie_embedding and model.config.vocab_size is not None:
        arrays[HEAD] = arrays[outer.embedding].copy()
    return arrays


def made(kind: type[Module], config: Config, tree: Mapping[str, object], **options: Any) -> Module:
    """A module with the parameters of `tree`; none is initialized, so that nothing is in memory twice."""
    build: Callable[..., Module] = kind
    module = nnx.eval_shape(lambda: build(config, rngs=nnx.Rngs(params=0), **options))
    nnx.update(module, jax.tree.map(lambda a: jnp.array(a, config.param_dtype), tree))
    return module


def _table(config: Config, outer: Outer, block: Callable[[int], list[Entry]]) -> list[Entry]:
    """The entries of a language model or of a stack."""
    size, vocabulary = config.embedding_size, config.vocab_size
    stack: list[Entry] = []
    for index in range(config.num_blocks):
        stack += entries.moved(block(index), f"blocks.{index}.", f"blocks.{index}.")
    if config.final_norm:
        stack += [entries.same("norm.scale", f"{outer.norm}.weight", size)]
        if isinstance(config, MLSTM7BConfig) and config.bias:
            stack += [entries.same("norm.bias", f"{outer.norm}.bias", size)]
    if vocabulary is None:
        return stack
    table = [entries.same("embed.embedding", outer.embedding, vocabulary, size)]
    if not config.tie_embedding:
        table += [entries.linear("head.kernel", {HEAD: vocabulary}, size)]
    return table + entries.moved(stack, "stack.", outer.stack)
