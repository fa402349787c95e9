"""Lets a trained language model write: qlstm-generate --workdir=runs/lm --prompt="def " --tokens=200

The run is one of the config lm. Every text begins with the prompt; --num of them are drawn at once.
"""

import time

import jax
from absl import flags

from qlstm_jax.commands import cli
from qlstm_jax.training.config import ConfigError
from qlstm_jax.training.evaluate import restore


def main(argv: list[str]) -> None:
    """Writes the texts and the speed."""
    values = flags.FLAGS
    if values.num < 1:
        raise ConfigError(f"--num is {values.num}; expected 1 or more")
    _, problem, model, _ = restore(values.workdir, checkpoint=values.checkpoint)
    options = {"temperature": values.temperature, "top_k": values.top_k, "top_p": values.top_p}
    prompts, key = [values.prompt] * values.num, jax.random.key(values.seed)
    problem.generate(model, prompts, values.tokens, key, **options)  # compiles
    start = time.perf_counter()
    texts = problem.generate(model, prompts, values.tokens, key, **options)
    seconds = time.perf_counter() - start
    for place, text in enumerate(texts, 1):
        print(f"--- {place} of {values.num}\n{text}")
    print(f"--- {values.num * values.tokens / seconds:,.0f} tokens/s, compilation excluded")


def run() -> None:
    """The program."""
    flags.DEFINE_string("workdir", "runs/lm", "folder of the run")
    flags.DEFINE_enum("checkpoint", None, ["last", "best"], "default: what the run's config selects")
    flags.DEFINE_string("prompt", "def ", "text to go on from")
    flags.DEFINE_integer("tokens", 200, "tokens to write")
    flags.DEFINE_float("temperature", 0.8, "0 takes the likeliest token, 1 draws as the model predicts")
    flags.DEFINE_integer("top_k", 0, "draw from the k likeliest tokens; 0: from all")
    flags.DEFINE_float("top_p", 1.0, "draw from the likeliest tokens that together have this probability")
    flags.DEFINE_integer("seed", 0, "of the draws")
    flags.DEFINE_integer("num", 1, "texts")
    cli.run(main, module=__name__)
