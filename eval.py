"""Evaluates a trained run, or predicts with it.

python eval.py --workdir=runs/parity                            figures and pictures into runs/parity/eval
python eval.py --workdir=runs/parity --max_length=100           other lengths than those of the run's config
python eval.py --workdir=runs/reviews --predict="a fine film"   the label of a line of text
python eval.py --workdir=runs/reviews --predict_file=lines.txt  of each line of a file, as JSON lines
"""

import sys

from qlstm_jax.commands import programs

if __name__ == "__main__":
    sys.exit(programs.evaluate("eval.py", __doc__))
