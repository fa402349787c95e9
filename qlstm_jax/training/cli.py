"""What the command lines share: mistakes of the user end in one clear line, and interrupted runs in their own code."""

import sys
from collections.abc import Callable
from functools import partial

from absl import flags, logging

from qlstm_jax.data.rows import DataError
from qlstm_jax.training.config import ConfigError
from qlstm_jax.training.loop import Diverged, Interrupted


def _parse(defaults, argv):
    """Parses flags; an unknown or ill-typed key of a config ends in one line that names the nearest key.

    A config file by default cannot be given where its flag is defined: its keys would be read, and their mistakes
    shown as a traceback, while the program is imported.
    """
    given = {a.lstrip("-").split("=")[0] for a in argv[1:]}
    missing = {name: value for name, value in defaults.items() if name not in given}
    argv = [argv[0], *(f"--{name}={value}" for name, value in missing.items()), *argv[1:]]
    try:
        return flags.FLAGS(argv)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        keys = [a for a in argv[1 + len(missing) :] if a.startswith("--config")]
        cause = error.args[0] if error.args and isinstance(error.args[0], Exception) else error
        reason = " ".join(str(cause.args[0] if cause.args else cause).split())
        print(f"error: {' '.join(keys)}: {reason}", file=sys.stderr)
        sys.exit(2)


def run(main: Callable, app, *, defaults=None):
    """Runs `main` under absl; ends with 1 for an error of config or data, 2 for flags, 3 for a loss that is not finite,
    130 for an interrupted run. `defaults` are values of flags that the command line does not give.
    """
    codes = {ConfigError: 1, DataError: 1, Diverged: 3, Interrupted: 130}

    def guarded(argv):
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)  # orbax writes a page for each checkpoint
        try:
            main(argv)
        except tuple(codes) as error:
            kind = next(k for k in codes if isinstance(error, k))
            print(f"{'stopped' if kind is Interrupted else 'error'}: {error}", file=sys.stderr)
            sys.exit(codes[kind])

    app.run(guarded, flags_parser=partial(_parse, defaults or {}))
