"""What the command lines share: mistakes of the user end in one clear line, and interrupted runs in their own code."""

import sys
from collections.abc import Callable, Mapping
from functools import partial

from absl import app, flags, logging

from qlstm_jax.data.rows import DataError
from qlstm_jax.training import config_files
from qlstm_jax.training.config import ConfigError
from qlstm_jax.training.faults import WriteError
from qlstm_jax.training.loop import Diverged, Interrupted

CODES: dict[type[Exception], int] = {ConfigError: 1, DataError: 1, WriteError: 1, Diverged: 3, Interrupted: 130}


def _find_config(argv: list[str]) -> list[str]:
    """The arguments, with the file of --config in place of the name of a packaged config."""
    result = list(argv)
    for place, argument in enumerate(argv):
        if argument in ("--config", "-config") and place + 1 < len(argv):
            result[place + 1] = _config_file(argv[place + 1])
        elif argument.startswith(("--config=", "-config=")):
            flag, _, text = argument.partition("=")
            result[place] = f"{flag}={_config_file(text)}"
    return result


def _config_file(text: str) -> str:
    path, argument = config_files.resolve(text)
    config_files.allow_imports(path)
    return f"{path}:{argument}" if argument else str(path)


def _parse(defaults: Mapping[str, object], argv: list[str]) -> list[str]:
    """Parses flags; an unknown or ill-typed key of a config ends in one line that names the nearest key.

    A config file by default cannot be given where its flag is defined: its keys would be read, and their mistakes
    shown as a traceback, before `main` starts.
    """
    given = {a.lstrip("-").split("=")[0] for a in argv[1:]}
    missing = [f"--{name}={value}" for name, value in defaults.items() if name not in given]
    try:
        rest: list[str] = flags.FLAGS(_find_config([argv[0], *missing, *argv[1:]]))
        return rest
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(CODES[ConfigError])
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        keys = [a for a in argv[1:] if a.startswith("--config")]
        cause = error.args[0] if error.args and isinstance(error.args[0], Exception) else error
        reason = " ".join(str(cause.args[0] if cause.args else cause).split())
        print(f"error: {' '.join(keys)}: {reason}", file=sys.stderr)
        sys.exit(2)


def _describe(module: str) -> None:
    """Gives --help the docstring and the flags of a program's module, also where another file is `__main__`."""
    main = sys.modules["__main__"]
    main.__doc__ = main.__doc__ or sys.modules[module].__doc__
    for flag in flags.FLAGS.flags_by_module_dict().get(module, []):
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)


def run(main: Callable[[list[str]], None], *, module: str, defaults: Mapping[str, object] | None = None) -> None:
    """Runs `main` under absl; ends with 1 for an error of config or data, 2 for flags, 3 for a loss that is not finite,
    130 for a run that SIGINT interrupted, 143 for SIGTERM.

    Args:
        main: reads `flags.FLAGS`.
        module: the name of the module that defines the program's flags.
        defaults: values of flags that the command line does not give.
    """

    def guarded(argv: list[str]) -> None:
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)  # orbax writes a page for each checkpoint
        try:
            main(argv)
        except tuple(CODES) as error:
            kind = next(k for k in CODES if isinstance(error, k))
            print(f"{'stopped' if kind is Interrupted else 'error'}: {error}", file=sys.stderr)
            sys.exit(error.code if isinstance(error, Interrupted) else CODES[kind])

    _describe(module)
    app.run(guarded, flags_parser=partial(_parse, defaults or {}))
