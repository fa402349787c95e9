"""Trains a model: qlstm-train --config=parity_pr_lstm --workdir=runs/parity --config.train.steps=800

Without arguments it runs the quickstart. The same command again goes on where the run stopped. --config is a file, or
the name of a config that comes with the library. Any key of it can be given as --config.section.key=value;
`qlstm-train --helpfull` and qlstm_jax/training/defaults.py list them.
"""

from functools import partial
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from qlstm_jax.commands import cli
from qlstm_jax.training.loop import train


def main(_: list[str], *, evaluate: str) -> None:
    """Trains, then says what to run next.

    Args:
        evaluate: how the program that evaluates is started.
    """
    values = flags.FLAGS
    file = Path(config_flags.get_config_filename(values["config"]).split(":")[0])
    workdir = Path(values.workdir or Path("runs") / file.stem)
    print(f"training in {workdir}", flush=True)
    train(values.config, workdir)
    print(f"done. Evaluate it:  {evaluate} --workdir={workdir}")


def run(evaluate: str) -> None:
    """The program; `evaluate` as for `main`."""
    config_flags.DEFINE_config_file("config", None, "the config, a file or a name; default quickstart")
    flags.DEFINE_string("workdir", None, "folder of the run; default runs/<name of the config>")
    cli.run(partial(main, evaluate=evaluate), module=__name__, defaults={"config": "quickstart"})
