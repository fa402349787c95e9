"""Parameters that are not trained, named by their paths as the table of a run shows them, "layer.cells.0.bias"."""

from fnmatch import fnmatchcase
from typing import Any

import jax
from jax.tree_util import KeyPath

from qlstm_jax.training.config import ConfigError


def name_of(path: KeyPath[Any]) -> str:
    """Returns the dotted name of a leaf, whatever the containers on the way to it."""
    return ".".join(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path)


def frozen(params: Any, patterns: str) -> Any:
    """Returns which parameters are frozen: a pytree of bools in the structure of `params`.

    Args:
        params: of a model.
        patterns: separated by commas, as of file names: "embedding*" or "*.bias"; "layer" is all below it.

    Raises:
        ConfigError: for a pattern that no parameter has, or if nothing is left to train.
    """
    wanted = [pattern.strip() for pattern in patterns.split(",") if pattern.strip()]
    names = [name_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    for pattern in wanted:
        if not any(_fits(name, pattern) for name in names):
            raise ConfigError(f"train.freeze names {pattern!r}, which no parameter has; there are {', '.join(names)}")
    if all(any(_fits(name, pattern) for pattern in wanted) for name in names):
        raise ConfigError(f"train.freeze is {patterns!r}, which is every parameter; expected some to be left to train")
    return jax.tree_util.tree_map_with_path(lambda path, _: any(_fits(name_of(path), p) for p in wanted), params)


def _fits(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


def hold(params: Any, patterns: str) -> Any:
    """Returns the parameters, of which those that are frozen have no gradient."""
    if not patterns:
        return params
    return jax.tree.map(lambda a, held: jax.lax.stop_gradient(a) if held else a, params, frozen(params, patterns))
