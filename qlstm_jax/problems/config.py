"""Tools for checking configs: errors, rules for values, keys by name.

A section of a config is an `ml_collections.ConfigDict`. A problem declares its own as `defaults` and `rules`:

    rules = {"length": at_least(2), "mode": one_of("pixels", "clips"), "validation": fraction}
"""

import ast
import contextlib
import difflib
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from qlstm_jax.data.checks import check_shares
from qlstm_jax.data.rows import DataError

Rule = Callable[[Any], str | None]  # a value to what was expected instead, None where it is right


KEEP = "bring the run's own file back, or train anew in another --workdir"  # where what a run wrote is damaged


class ConfigError(ValueError):
    """A config that cannot be run."""


def positive(value: Any) -> str | None:
    """More than 0."""
    return None if value > 0 else "more than 0"


def not_negative(value: Any) -> str | None:
    """0 or more."""
    return None if value >= 0 else "0 or more"


def fraction(value: Any) -> str | None:
    """0 or more and less than 1."""
    return None if 0 <= value < 1 else "0 or more and less than 1"


def at_least(low: int) -> Rule:
    """`low` or more."""
    return lambda value: None if value >= low else f"{low} or more"


def one_of(*choices: Any) -> Rule:
    """One of `choices`; the message names the nearest."""
    return lambda value: None if value in choices else nearest(value, choices)


def check_rules(prefix: str, section: Any, rules: Mapping[str, Rule]) -> None:
    """Checks a section.

    Args:
        prefix: before the section's keys, "train." or "".
        section: of a config.
        rules: key to rule.

    Raises:
        ConfigError: naming the key, what it is and what was expected.
    """
    for key, rule in rules.items():
        problem = rule(get(section, key))
        if problem:
            expected = problem if "expected" in problem else f"expected {problem}"
            raise ConfigError(f"{prefix}{key} is {get(section, key)!r}; {expected}")


def check_lengths(name: str, section: Any) -> None:
    """Raises ConfigError unless the section's min_length and max_length hold a length."""
    low, high = section.min_length, section.max_length
    if not 1 <= low <= high:
        raise ConfigError(f"{name} lengths are {low}..{high}; expected 1 <= min_length <= max_length")


def check_split(name: str, section: Any) -> None:
    """Raises ConfigError unless the validation and test parts of a section leave something to train on."""
    try:
        check_shares(section.validation, section.test, section=f"{name}.")
    except DataError as error:
        raise ConfigError(str(error)) from error


def get(config: Any, key: str) -> Any:
    """Returns `config` at a dotted key."""
    for part in key.split("."):
        config = config[part]
    return config


def nearest(given: Any, names: Iterable[Any]) -> str:
    """Returns a hint for an error: the nearest of `names`, and all of them."""
    names = [str(n) for n in names]
    close = difflib.get_close_matches(str(given), names, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}expected one of {', '.join(names)}"


@contextlib.contextmanager
def as_flags(section: str, *options: str) -> Iterator[None]:
    """Lets the data's errors name flags, --config.text.text_column=review, where they name text_column='review'.

    Args:
        section: of the config.
        options: keywords of what reads the data, which are keys of that section.
    """
    value = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\.\.\."""
    try:
        yield
    except DataError as error:
        given = re.compile(rf"\b({'|'.join(options)})=({value})")
        raise DataError(given.sub(lambda found: _flag(section, *found.groups()), str(error))) from error


def _flag(section: str, option: str, shown: str) -> str:
    value = shown if shown == "..." else shlex.quote(ast.literal_eval(shown))
    return f"--config.{section}.{option}={value}"


def run_exists(workdir: str | Path) -> bool:
    """Returns whether there is a run in this folder. Its config is the last file that it writes before it trains.

    Other files may be left from a start that was cut off, of another config.
    """
    return (Path(workdir) / "config.json").exists()
