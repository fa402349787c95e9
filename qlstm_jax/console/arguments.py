"""The arguments of the programs: argparse, whose mistakes are told in one line that names what was meant.

Settings of a config are typed in the same way everywhere, --set KEY=VALUE, as often as wanted.
"""

import argparse
import difflib
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from ml_collections import ConfigDict

from qlstm_jax.console.outcome import UsageError
from qlstm_jax.data.rows import NOT_TEXT
from qlstm_jax.problems.config import ConfigError
from qlstm_jax.training import config as configs
from qlstm_jax.training import config_settings

DOTTED = "--config."


class Parser(argparse.ArgumentParser):
    """A program's arguments, with --set and --debug among them.

    Args:
        program: how the program was started.
        description: what it does.
        dotted: whether settings can be given as --config.KEY=VALUE too.
    """

    def __init__(self, program: str, description: str | None, *, dotted: bool = False) -> None:
        form = argparse.RawDescriptionHelpFormatter
        super().__init__(prog=program, description=description, formatter_class=form, allow_abbrev=False)
        self.dotted = dotted
        self.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="keys of a config")
        self.add_argument("--debug", action="store_true", help="show the traceback of an error")

    def error(self, message: str) -> NoReturn:
        """A mistake in the arguments."""
        raise UsageError(f"{message} (see --help)")

    def read(self, argv: Sequence[str]) -> argparse.Namespace:
        """The arguments.

        Raises:
            UsageError: for a flag or word that has no place among them.
        """
        # Python 3.11 does not find an optional word behind options but by the intermixed form.
        args, rest = self.parse_known_intermixed_args(self._undotted(argv))
        if rest:
            self.error(self._not_known(rest[0]))
        return args

    def _undotted(self, argv: Sequence[str]) -> list[str]:
        """The arguments with --config.KEY=VALUE, --config.KEY VALUE, --config.KEY and --noconfig.KEY as --set's."""
        if not self.dotted:
            return list(argv)
        result: list[str] = []
        words = iter([*argv, "--"])
        word = next(words)
        while True:
            following = next(words, None)
            if following is None:
                return result
            if word.startswith("--noconfig."):
                word = f"--set={word.removeprefix('--no')}=false"
            elif word.startswith(DOTTED):
                pair = word.removeprefix("--")
                if "=" not in pair:
                    alone = following.startswith("--")
                    pair = f"{pair}={'true' if alone else following}"
                    following = following if alone else next(words)
                word = f"--set={pair}"
            result.append(word)
            word = following

    def _not_known(self, word: str) -> str:
        """Returns the message for a flag or word that has no place."""
        if not word.startswith("-"):
            key = word.partition("=")[0]
            if "=" in word and f"--{key}" in self._option_string_actions:
                return f"{word!r} is no flag; did you mean --{word}?"
            hint = f"did you mean --set {word}?" if "=" in word else "expected --NAME=VALUE"
            return f"{word!r} is no flag; {hint}"
        name, equals, value = word.partition("=")
        flags = [f for f in self._option_string_actions if f.startswith("--")]
        key, plain = name.lstrip("-").removeprefix("config."), configs.default()
        near = difflib.get_close_matches(f"--{name.lstrip('-')}", flags, n=1, cutoff=0.8)
        whole = [key] if key in config_settings.flat_keys(plain) else config_settings.named(plain, key)
        if whole and not near:
            return f"there is no flag {name}; did you mean --set {whole[0]}{equals or '='}{value}?"
        near = near or difflib.get_close_matches(f"--{name.lstrip('-')}", flags, n=1)
        hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(sorted(flags))}"
        return f"there is no flag {name}; {hint}"


def check_text(flag: str, text: str | None) -> None:
    """Raises UsageError for an argument that should be text and holds bytes that are none."""
    if text is not None and NOT_TEXT.search(text):
        raise UsageError(f"{flag} is {text[:40]!r}, which holds bytes that are not UTF-8; expected text in UTF-8")


def settings_of(
    args: argparse.Namespace, base: ConfigDict, *, taken: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The settings that a program was given: whole keys of `base`, typed; of two for a key the later counts.

    Args:
        args: what `Parser.read` gave.
        base: the config whose keys and types count.
        taken: as for `config_settings.parse`.

    Raises:
        UsageError: for a key that does not exist, or a value of another type; it names the key as it was typed.
    """
    found: dict[str, Any] = {}
    for pair in args.set:
        dotted = pair.startswith("config.")
        whole = pair.removeprefix("config.")
        try:
            if dotted and whole.partition("=")[0] not in config_settings.flat_keys(base):
                raise config_settings.no_such_key(base, whole.partition("=")[0])
            found |= config_settings.parse([whole], base, taken=taken)
        except ConfigError as error:
            raise UsageError(f"{DOTTED if dotted else '--set '}{whole}: {error}") from error
    return found
