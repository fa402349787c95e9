"""Lets a trained language model write: python generate.py --workdir=runs/lm --prompt="def " --tokens=200

The run is one of configs/lm.py. Every text begins with the prompt; --num of them are drawn at once.
"""

from qlstm_jax.commands import programs

if __name__ == "__main__":
    programs.generate("generate.py")
