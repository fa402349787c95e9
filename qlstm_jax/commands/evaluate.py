"""Evaluates a trained run, or predicts with it.

qlstm-eval --workdir=runs/parity                            figures and pictures into runs/parity/eval
qlstm-eval --workdir=runs/parity --max_length=100           other lengths than those of the run's config
qlstm-eval --workdir=runs/reviews --predict="a fine film"   the label of a line of text
qlstm-eval --workdir=runs/reviews --predict_file=lines.txt  of each line of a file, as JSON lines
qlstm-eval --workdir=runs/reviews --predict_file=new.csv    of each row of a table (.csv, .tsv, .jsonl)
"""

import itertools
import json
from pathlib import Path

from absl import flags

from qlstm_jax.commands import cli
from qlstm_jax.training.evaluate import evaluate, restore

OVERRIDES = ("min_length", "max_length", "sequences", "longest")


def main(argv: list[str]) -> None:
    """Evaluates or predicts."""
    values = flags.FLAGS
    if values.predict is not None or values.predict_file is not None:
        _, problem, model, _ = restore(values.workdir, checkpoint=values.checkpoint)
        of_line = [] if values.predict is None else problem.predict(model, [values.predict])
        of_file = [] if values.predict_file is None else problem.predict_file(model, Path(values.predict_file))
        for record in itertools.chain(of_line, of_file):
            print(json.dumps(record, ensure_ascii=False), flush=True)
        return
    given = {name: values[name].value for name in OVERRIDES if values[name].value is not None}
    report = evaluate(values.workdir, checkpoint=values.checkpoint, **given)
    print(json.dumps({k: v for k, v in report.items() if k != "accuracy_by_length"}, indent=2))
    folder = Path(values.workdir) / "eval"
    print(f"figures in {folder / 'report.json'}, pictures in {', '.join(str(p) for p in sorted(folder.glob('*.png')))}")


def run() -> None:
    """The program."""
    flags.DEFINE_string("workdir", str(Path("runs") / "quickstart"), "folder of the run")
    flags.DEFINE_enum("checkpoint", None, ["last", "best"], "default: what the run's config selects")
    flags.DEFINE_integer("longest", None, "other sampled tasks: lengths up to so many times the training length")
    flags.DEFINE_integer("min_length", None, "formal languages: first length of the score")
    flags.DEFINE_integer("max_length", None, "formal languages: last length of the score")
    flags.DEFINE_integer("sequences", None, "sampled tasks: strings of each length")
    flags.DEFINE_string("predict", None, "a line of text to label")
    flags.DEFINE_string("predict_file", None, "a UTF-8 file of lines to label, or a table of texts")
    cli.run(main, module=__name__)
