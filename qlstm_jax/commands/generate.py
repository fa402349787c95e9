"""Lets a trained language model write: qlstm-generate --workdir=runs/lm --prompt="def " --tokens=200

The run is one of the config lm. Every text begins with the prompt; --num of them are drawn at once.
"""

import time
from collections.abc import Sequence
from pathlib import Path

import jax

from qlstm_jax.console import outcome
from qlstm_jax.console.arguments import Parser, check_text, settings_of
from qlstm_jax.training import config as configs
from qlstm_jax.training.config import ConfigError
from qlstm_jax.training.evaluate import restore


def parser(program: str, about: str | None = None) -> Parser:
    """The command line; `about` is what the help says in place of this module's."""
    p = Parser(program, about or __doc__)
    p.add_argument("--workdir", default="runs/lm", help="folder of the run")
    p.add_argument("--checkpoint", choices=["last", "best"], help="default: what the run's config selects")
    p.add_argument("--prompt", default="def ", help="text to go on from")
    p.add_argument("--tokens", type=int, default=200, help="tokens to write")
    p.add_argument(
        "--temperature", type=float, default=0.8, help="0 takes the likeliest token, 1 draws as the model predicts"
    )
    p.add_argument("--top_k", type=int, default=0, help="draw from the k likeliest tokens; 0: from all")
    p.add_argument(
        "--top_p", type=float, default=1.0, help="draw from the likeliest tokens that together have this probability"
    )
    p.add_argument("--seed", type=int, default=0, help="of the draws")
    p.add_argument("--num", type=int, default=1, help="texts")
    return p


def main(argv: Sequence[str], program: str = "qlstm-generate", about: str | None = None) -> None:
    """Writes the texts and the speed; arguments as for `parser`."""
    args = parser(program, about).read(argv)
    check_text("--prompt", args.prompt)
    for name in ("num", "tokens"):
        if not 1 <= getattr(args, name) < 2**31:
            raise ConfigError(f"--{name} is {getattr(args, name)}; expected 1 or more, up to {2**31 - 1}")
    if not 0 <= args.seed < 2**32:
        raise ConfigError(f"--seed is {args.seed}; expected 0 to {2**32 - 1}")
    settings = settings_of(args, configs.load(Path(args.workdir) / "config.json"))
    _, problem, model, _ = restore(args.workdir, checkpoint=args.checkpoint, settings=settings)
    options = {"temperature": args.temperature, "top_k": args.top_k, "top_p": args.top_p}
    prompts, key = [args.prompt] * args.num, jax.random.key(args.seed)
    problem.generate(model, prompts, args.tokens, key, **options)  # compiles
    start = time.perf_counter()
    texts = problem.generate(model, prompts, args.tokens, key, **options)
    seconds = time.perf_counter() - start
    for place, text in enumerate(texts, 1):
        print(f"--- {place} of {args.num}\n{text}")
    print(f"--- {args.num * args.tokens / seconds:,.0f} tokens/s, compilation excluded")


def run(program: str, about: str | None = None) -> int:
    """The program; returns its exit code. Arguments as for `parser`."""
    return outcome.run(lambda argv: main(argv, program, about))
