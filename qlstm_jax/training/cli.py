"""What the command lines share: mistakes of the user end in one clear line, and interrupted runs in their own code."""

import sys
from collections.abc import Callable

from absl import flags, logging

from qlstm_jax.data.rows import DataError
from qlstm_jax.training.config import ConfigError
from qlstm_jax.training.loop import Diverged, Interrupted


def _parse(argv):
    """Parses flags; an unknown or ill-typed key of a config ends in one line that names the nearest key."""
    try:
        return flags.FLAGS(argv)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        given = [a for a in argv[1:] if a.startswith("--config")]
        reason = " ".join(str(error.args[0] if error.args else error).split())
        print(f"error: {' '.join(given)}: {reason}", file=sys.stderr)
        sys.exit(2)


def run(main: Callable, app):
    """Runs `main` under absl; ends with 1 for an error of config or data, 2 for flags, 3 for a loss that is not finite,
    130 for an interrupted run.
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

    app.run(guarded, flags_parser=_parse)
