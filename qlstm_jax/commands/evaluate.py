"""Evaluates a trained run, or predicts with it.

qlstm-eval --workdir=runs/parity                            figures and pictures into runs/parity/eval
qlstm-eval --workdir=runs/parity --max_length=100           other lengths than those of the run's config
qlstm-eval --workdir=runs/reviews --predict="a fine film"   the label of a line of text
qlstm-eval --workdir=runs/reviews --predict_file=lines.txt  of each line of a file, as JSON lines
qlstm-eval --workdir=runs/series --predict_file=new.csv     what follows the last row of a csv file, as JSON lines
qlstm-eval --workdir=runs/reviews --predict_file=new.csv    of each row of a table (.csv, .tsv, .jsonl, .parquet)
qlstm-eval --workdir=runs/reviews --score_file=labelled.csv figures of texts with labels that are no part of the run
"""

import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from qlstm_jax.console import outcome
from qlstm_jax.console.arguments import Parser, check_text, settings_of
from qlstm_jax.data import files
from qlstm_jax.data.tables import FORMATS
from qlstm_jax.training import config as configs
from qlstm_jax.training.evaluate import evaluate, restore, score

FILE = "expected a UTF-8 file of lines or a table"
OVERRIDES = ("min_length", "max_length", "sequences", "longest")


def parser(program: str, about: str | None = None) -> Parser:
    """The command line; `about` is what the help says in place of this module's."""
    p = Parser(program, about or __doc__)
    p.add_argument("--workdir", default=str(Path("runs") / "quickstart"), help="folder of the run")
    p.add_argument("--checkpoint", choices=["last", "best"], help="default: what the run's config selects")
    p.add_argument("--longest", type=int, help="other sampled tasks: lengths up to so many times the training length")
    p.add_argument("--min_length", type=int, help="formal languages: first length of the score")
    p.add_argument("--max_length", type=int, help="formal languages: last length of the score")
    p.add_argument("--sequences", type=int, help="sampled tasks: strings of each length")
    p.add_argument("--predict", metavar="TEXT", help="a line of text to label")
    p.add_argument("--predict_file", metavar="FILE", help="lines or a table of texts to label, or a csv file of series")
    p.add_argument(
        "--score_file", metavar="FILE", help="labelled texts to score: a table, or a folder of class folders"
    )
    return p


def main(argv: Sequence[str], program: str = "qlstm-eval", about: str | None = None) -> None:
    """Evaluates or predicts; arguments as for `parser`."""
    args = parser(program, about).read(argv)
    check_text("--predict", args.predict)
    if args.predict_file is not None:
        files.check_path(args.predict_file, FILE)
    if args.score_file is not None:
        if args.predict is not None or args.predict_file is not None:
            raise configs.ConfigError("--score_file is given beside a --predict; expected one of them")
        files.check_path(args.score_file, FORMATS, folder=True)
    settings = settings_of(args, configs.load(Path(args.workdir) / "config.json"))
    if args.predict is not None or args.predict_file is not None:
        _, problem, model, _ = restore(args.workdir, checkpoint=args.checkpoint, settings=settings)
        of_line = [] if args.predict is None else problem.predict(model, [args.predict])
        of_file = [] if args.predict_file is None else problem.predict_file(model, Path(args.predict_file))
        for record in itertools.chain(of_line, of_file):
            print(json.dumps(record, ensure_ascii=not _writes_all()), flush=True)
        return
    if args.score_file is not None:
        print(json.dumps(score(args.workdir, args.score_file, checkpoint=args.checkpoint, settings=settings), indent=2))
        print(f"figures in {Path(args.workdir) / 'eval' / f'score_{Path(args.score_file).stem}.json'}")
        return
    given = {name: getattr(args, name) for name in OVERRIDES if getattr(args, name) is not None}
    report = evaluate(args.workdir, checkpoint=args.checkpoint, settings=settings, **given)
    print(json.dumps({k: v for k, v in report.items() if k != "accuracy_by_length"}, indent=2))
    folder = Path(args.workdir) / "eval"
    print(f"figures in {folder / 'report.json'}, pictures in {', '.join(str(p) for p in sorted(folder.glob('*.png')))}")


def _writes_all() -> bool:
    """Whether the output has all letters; what a narrow one gets is escaped as JSON has it."""
    return (sys.stdout.encoding or "utf-8").lower().startswith("utf")


def run(program: str, about: str | None = None) -> int:
    """The program; returns its exit code. Arguments as for `parser`."""
    return outcome.run(lambda argv: main(argv, program, about))
