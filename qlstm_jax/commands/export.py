"""Exports a trained run as programs that run with JAX alone: qlstm-export --workdir=runs/reviews --out=exported

qlstm-export --workdir=runs/reviews --out=exported --platforms=cpu,cuda
qlstm-export --workdir=runs/parity --out=exported --length=128   a tree is made for one number of positions

The folder has a program for whole sequences, one for streams where the model reads them, the weights, the tokenizer of
texts, and manifest.json, which says what goes in and out. docs/serving.md shows how they are called.
"""

from collections.abc import Sequence
from pathlib import Path

from qlstm_jax import exporting
from qlstm_jax.console import outcome
from qlstm_jax.console.arguments import Parser, settings_of
from qlstm_jax.training import config as configs
from qlstm_jax.training.evaluate import restore, run_name


def parser(program: str) -> Parser:
    """The command line."""
    p = Parser(program, __doc__)
    p.add_argument("--workdir", required=True, help="folder of the run")
    p.add_argument("--out", required=True, help="folder to write, a new or an empty one")
    p.add_argument("--checkpoint", choices=["last", "best"], help="default: what the run's config selects")
    p.add_argument("--length", type=int, help="positions of the program for whole sequences; default: any number")
    names = ",".join(exporting.PLATFORMS)
    p.add_argument("--platforms", metavar="NAME,NAME", help=f"default: all of {names} for which it can be")
    return p


def main(argv: Sequence[str], program: str = "qlstm-export") -> None:
    """Exports; arguments as for `parser`."""
    args = parser(program).read(argv)
    platforms = None if args.platforms is None else args.platforms.split(",")
    exporting.check(args.out, args.length, platforms)  # before anything is read
    settings = settings_of(args, configs.load(Path(args.workdir) / "config.json"))
    config, problem, model, step = restore(args.workdir, checkpoint=args.checkpoint, settings=settings)
    interface = problem.interface()
    run = {"problem": config.problem, "name": run_name(config), "cell": config.model.cell, "step": step}
    manifest = exporting.export(
        model,
        args.out,
        length=args.length,
        platforms=platforms,
        about={"run": run, **interface.about},
        files=interface.files,
    )
    for name, described in manifest["programs"].items():
        shapes = ", ".join(f"{label} {_shape(a)}" for label, a in described["arguments"].items() if label != "carry")
        print(f"{name}: {shapes} -> {_shape(described['results']['outputs'])}")
    print(f"{manifest['parameters']:,} parameters for {', '.join(manifest['platforms'])} in {Path(args.out)}")


def _shape(described: dict[str, object]) -> str:
    return f"{described['dtype']}{described['shape']}".replace("'", "")


def run(program: str) -> int:
    """The program; returns its exit code."""
    return outcome.run(lambda argv: main(argv, program))
