"""Trains a model: qlstm-train --config=parity_pr_lstm --workdir=runs/parity --set train.steps=800

Without arguments it runs the quickstart. The same command again goes on where the run stopped. --config is a file, or
the name of a config that comes with the library. Any key of it can be given as --set section.key=value, or as
--config.section.key=value; `qlstm-train --helpfull` lists them.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qlstm_jax.console import outcome
from qlstm_jax.console.arguments import Parser, settings_of
from qlstm_jax.training import config as configs
from qlstm_jax.training import config_files, hosts
from qlstm_jax.training.config_settings import flat_keys
from qlstm_jax.training.loop import train


class _EveryKey(argparse.Action):
    """Shows the help and every key of a config with its default value."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        plain = configs.default()
        keys = [f"  {key}={configs.get(plain, key)!r}" for key in flat_keys(plain)]
        print(parser.format_help(), "keys of a config and their default values:", *keys, sep="\n")
        parser.exit()


def parser(program: str, about: str | None = None) -> Parser:
    """The command line; `about` is what the help says in place of this module's."""
    p = Parser(program, about or __doc__, dotted=True)
    p.add_argument("--config", default="quickstart", metavar="FILE[:ARGUMENT]", help="the config, a file or a name")
    p.add_argument("--workdir", help="folder of the run; default runs/<name of the config>")
    p.add_argument("--coordinator", metavar="HOST:PORT", help="where the first of several processes listens")
    p.add_argument("--num_processes", type=int, metavar="N", help="how many train together")
    p.add_argument("--process_id", type=int, metavar="K", help="which this one is, from 0")
    p.add_argument("--helpfull", action=_EveryKey, nargs=0, help="this help, and every key of a config")
    return p


def main(argv: Sequence[str], program: str, evaluate: str, about: str | None = None) -> None:
    """Trains, then says what to run next.

    Args:
        argv: the arguments.
        program, about: as for `parser`.
        evaluate: how the program that evaluates is started.
    """
    args = parser(program, about).read(argv)
    config = config_files.load(args.config)
    config.update_from_flattened_dict(settings_of(args, config))
    hosts.join(args.coordinator, args.num_processes, args.process_id, config.parallel.hosts)
    workdir = Path(args.workdir or Path("runs") / config_files.resolve(args.config)[0].stem)
    if hosts.first():
        print(f"training in {workdir}", flush=True)
    train(config, workdir)
    if hosts.first():
        print(f"done. Evaluate it:  {evaluate} --workdir={workdir}")


def run(program: str, evaluate: str, about: str | None = None) -> int:
    """The program; returns its exit code. Arguments as for `main`."""
    return outcome.run(lambda argv: main(argv, program, evaluate, about), sys.argv[1:], settings="--config.")
