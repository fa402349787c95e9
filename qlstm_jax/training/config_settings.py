"""Settings as they are typed, KEY=VALUE: any key of a config, and a value of the type that the key has."""

import ast
import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from qlstm_jax.problems.config import ConfigError, get

WORDS = {"true": True, "false": False, "1": True, "0": False}


def parse(
    pairs: Iterable[str], base: ConfigDict, *, cell: str | None = None, taken: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Parses ["refinements=2", "train.batch_size=32"] to whole keys and typed values; for one key the last counts.

    A key is whole, "train.batch_size", or the last word of one: among the cell's own options, at the top, in model, in
    train, or in the section of the base's problem, looked for in that order.

    Args:
        pairs: KEY=VALUE each.
        base: the config whose keys and types count.
        cell: whose own options may be named by their last word.
        taken: whole keys that cannot be set here, to what sets them.

    Raises:
        ConfigError: for a key that does not exist, naming the nearest, or a value of another type.
    """
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"{pair!r} has no '='; expected KEY=VALUE, such as train.steps=100")
        key = _whole(base, key, cell)
        if key in (taken or {}):
            raise ConfigError(f"{key} cannot be set here; it is given by {(taken or {})[key]}")
        settings[key] = typed(get(base, key), key, value)
    return settings


def flat_keys(config: ConfigDict, prefix: str = "") -> list[str]:
    """Returns the dotted keys of a config."""
    keys: list[str] = []
    for name, value in config.items():
        keys += flat_keys(value, f"{prefix}{name}.") if isinstance(value, ConfigDict) else [prefix + name]
    return keys


def named(config: ConfigDict, last: str) -> list[str]:
    """Returns the dotted keys whose last word is `last`; first those of model, training and the config's problem."""
    order = ["model", "train", config.problem]
    keys = [k for k in flat_keys(config) if k.rpartition(".")[2] == last]
    return sorted(keys, key=lambda k: next((n for n, s in enumerate(order) if k == f"{s}.{last}"), len(order)))


def no_such_key(config: ConfigDict, key: str) -> ConfigError:
    """Returns the error for a dotted key that a config has not; names the nearest, or the keys of the section."""
    keys = flat_keys(config)
    section, _, last = key.rpartition(".")
    inside = [k for k in keys if k.startswith(f"{key}.")]
    if inside:
        return ConfigError(f"{key!r} is a section and no key; expected one of {', '.join(inside)}")
    # A slip in the key, the right word in another section, and a slip in that word.
    near = difflib.get_close_matches(key, keys, n=1, cutoff=0.75) or named(config, last)
    for word in difflib.get_close_matches(last, {k.rpartition(".")[2]: k for k in keys}, n=1, cutoff=0.75):
        near = near or named(config, word)
    if near:
        return ConfigError(f"there is no key {key!r}; did you mean {near[0]!r}?")
    siblings = [k for k in keys if section and k.rpartition(".")[0] == section]
    sections = [name for name, value in config.items() if isinstance(value, ConfigDict)]
    expected = "one of " if siblings else "SECTION.KEY, a section being one of "
    return ConfigError(f"there is no key {key!r}; expected {expected}{', '.join(siblings or sections)}")


def _whole(base: ConfigDict, key: str, cell: str | None) -> str:
    """Returns the dotted key that a user's key means."""
    keys = flat_keys(base)
    places = [""] if "." in key else [f"model.{cell}.", "", "model.", "train.", f"{base.problem}."]
    for place in places:
        if place + key in keys:
            return place + key
    raise no_such_key(base, key)


def typed(old: Any, key: str, value: str) -> Any:
    """Converts `value` to the type of `old`, the key's present value.

    Raises:
        ConfigError: for a value that is none of that type.
    """
    if isinstance(old, bool):
        if value.lower() not in WORDS:
            raise ConfigError(f"{key} is {value!r}; expected true or false")
        return WORDS[value.lower()]
    try:
        if isinstance(old, int | float | str):
            return type(old)(value)
        read = ast.literal_eval(value)
    except (ValueError, SyntaxError):
        read = None
    if old is None or (read is not None and isinstance(read, type(old))):
        return read
    kind = {int: "an integer", float: "a number"}.get(type(old), f"a {type(old).__name__}")
    raise ConfigError(f"{key} is {value!r}; expected {kind}, such as {old!r}")
