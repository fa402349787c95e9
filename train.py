"""Trains a model: python train.py --config=configs/parity_pr_lstm.py --workdir=runs/parity --config.train.steps=800

Without arguments it runs the quickstart. The same command again goes on where the run stopped. Any key of a config can
be given as --config.section.key=value; `python train.py --helpfull` and qlstm_jax/training/defaults.py list them.
"""

import sys
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

from qlstm_jax.training import cli
from qlstm_jax.training.config import ConfigError
from qlstm_jax.training.loop import train

QUICKSTART = Path(__file__).parent / "configs" / "quickstart.py"
CONFIG = config_flags.DEFINE_config_file("config", None, "the config file; default configs/quickstart.py")
WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run; default runs/<name of the config>")


def main(_):
    """Trains, then says what to run next."""
    file = Path(config_flags.get_config_filename(flags.FLAGS["config"]).split(":")[0])
    if not file.exists():
        raise ConfigError(
            f"--config={file} does not exist; expected a config file, such as those in {QUICKSTART.parent}"
        )
    workdir = Path(WORKDIR.value or Path("runs") / file.stem)
    print(f"training in {workdir}", flush=True)
    train(CONFIG.value, workdir)
    print(f"done. Evaluate it:  python eval.py --workdir={workdir}")


if __name__ == "__main__":
    sys.exit(cli.run(main, app, defaults={"config": QUICKSTART}))
