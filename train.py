"""Trains a model: python train.py --config=configs/parity_pr_lstm.py --workdir=runs/parity --config.train.steps=800

Without arguments it runs the quickstart. The same command again goes on where the run stopped. Any key of a config can
be given as --config.section.key=value; `python train.py --helpfull` and qlstm_jax/training/config.py list them.
"""

import sys
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

from qlstm_jax.training import cli
from qlstm_jax.training.loop import train

HERE = Path(__file__).parent
CONFIG = config_flags.DEFINE_config_file("config", str(HERE / "configs" / "quickstart.py"), "the config file")
WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run; default runs/<name of the config>")


def main(_):
    """Trains, then says what to run next."""
    name = Path(config_flags.get_config_filename(flags.FLAGS["config"]).split(":")[0]).stem
    workdir = Path(WORKDIR.value or Path("runs") / name)
    print(f"training in {workdir}", flush=True)
    train(CONFIG.value, workdir)
    print(f"done. Evaluate it:  python eval.py --workdir={workdir}")


if __name__ == "__main__":
    sys.exit(cli.run(main, app))
