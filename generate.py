"""Lets a trained language model write: python generate.py --workdir=runs/lm --prompt="def " --tokens=200

The run is one of configs/lm.py. Every text begins with the prompt; --num of them are drawn at once.
"""

import sys
import time

import jax
from absl import app, flags

from qlstm_jax.training import cli
from qlstm_jax.training.config import ConfigError
from qlstm_jax.training.evaluate import restore

WORKDIR = flags.DEFINE_string("workdir", "runs/lm", "folder of the run")
CHECKPOINT = flags.DEFINE_enum("checkpoint", None, ["last", "best"], "default: what the run's config selects")
PROMPT = flags.DEFINE_string("prompt", "def ", "text to go on from")
TOKENS = flags.DEFINE_integer("tokens", 200, "tokens to write")
TEMPERATURE = flags.DEFINE_float("temperature", 0.8, "0 takes the likeliest token, 1 draws as the model predicts")
TOP_K = flags.DEFINE_integer("top_k", 0, "draw from the k likeliest tokens; 0: from all")
TOP_P = flags.DEFINE_float("top_p", 1.0, "draw from the likeliest tokens that together have this probability")
SEED = flags.DEFINE_integer("seed", 0, "of the draws")
NUM = flags.DEFINE_integer("num", 1, "texts")


def main(_):
    """Writes the texts and the speed."""
    if NUM.value < 1:
        raise ConfigError(f"--num is {NUM.value}; expected 1 or more")
    _, problem, model, _ = restore(WORKDIR.value, checkpoint=CHECKPOINT.value)
    options = {"temperature": TEMPERATURE.value, "top_k": TOP_K.value, "top_p": TOP_P.value}
    prompts, key = [PROMPT.value] * NUM.value, jax.random.key(SEED.value)
    problem.generate(model, prompts, TOKENS.value, key, **options)  # compiles
    start = time.perf_counter()
    texts = problem.generate(model, prompts, TOKENS.value, key, **options)
    seconds = time.perf_counter() - start
    for number, text in enumerate(texts, 1):
        print(f"--- {number} of {NUM.value}\n{text}")
    print(f"--- {NUM.value * TOKENS.value / seconds:,.0f} tokens/s, compilation excluded")


if __name__ == "__main__":
    sys.exit(cli.run(main, app))
