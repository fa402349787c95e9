"""Trains a model: python train.py --config=configs/parity_pr_lstm.py --workdir=runs/parity --set train.steps=800

Without arguments it runs the quickstart. The same command again goes on where the run stopped. Any key of a config can
be given as --set section.key=value, or as --config.section.key=value; `python train.py --helpfull` and
qlstm_jax/training/defaults.py list them.
"""

import sys

from qlstm_jax.commands import programs

if __name__ == "__main__":
    sys.exit(programs.train("train.py", "python eval.py", __doc__))
