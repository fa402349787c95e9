"""Lets a trained language model write: python generate.py --workdir=runs/lm --prompt="def " --tokens=200

The run is one of configs/lm.py. Every text begins with the prompt; --num of them are drawn at once.
"""

import sys

from qlstm_jax.commands import programs

if __name__ == "__main__":
    sys.exit(programs.generate("generate.py", __doc__))
