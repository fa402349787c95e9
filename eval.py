"""Evaluates a trained run, or predicts with it.

python eval.py --workdir=runs/parity                            figures and pictures into runs/parity/eval
python eval.py --workdir=runs/parity --max_length=100           other lengths than those of the run's config
python eval.py --workdir=runs/reviews --predict="a fine film"   the label of a line of text
python eval.py --workdir=runs/reviews --predict_file=lines.txt  of each line of a file, as JSON lines
"""

import json
import sys
from pathlib import Path

from absl import app, flags

from qlstm_jax.training import cli
from qlstm_jax.training.evaluate import evaluate, restore

WORKDIR = flags.DEFINE_string("workdir", str(Path("runs") / "quickstart"), "folder of the run")
CHECKPOINT = flags.DEFINE_enum("checkpoint", None, ["last", "best"], "default: what the run's config selects")
LONGEST = flags.DEFINE_integer("longest", None, "other sampled tasks: lengths up to so many times the training length")
MIN_LENGTH = flags.DEFINE_integer("min_length", None, "formal languages: first length of the score")
MAX_LENGTH = flags.DEFINE_integer("max_length", None, "formal languages: last length of the score")
SEQUENCES = flags.DEFINE_integer("sequences", None, "sampled tasks: strings of each length")
PREDICT = flags.DEFINE_string("predict", None, "a line of text to label")
PREDICT_FILE = flags.DEFINE_string("predict_file", None, "a UTF-8 file of lines to label")


def main(_):
    """Evaluates or predicts."""
    if PREDICT.value is not None or PREDICT_FILE.value is not None:
        lines = [] if PREDICT.value is None else [PREDICT.value]
        if PREDICT_FILE.value is not None:
            lines += Path(PREDICT_FILE.value).read_text(encoding="utf-8").splitlines()
        _, problem, model, _ = restore(WORKDIR.value, checkpoint=CHECKPOINT.value)
        for record in problem.predict(model, lines):
            print(json.dumps(record, ensure_ascii=False))
        return
    given = {flag.name: flag.value for flag in (MIN_LENGTH, MAX_LENGTH, SEQUENCES, LONGEST) if flag.value is not None}
    report = evaluate(WORKDIR.value, checkpoint=CHECKPOINT.value, **given)
    print(json.dumps({k: v for k, v in report.items() if k != "accuracy_by_length"}, indent=2))
    folder = Path(WORKDIR.value) / "eval"
    print(f"figures in {folder / 'report.json'}, pictures in {', '.join(str(p) for p in sorted(folder.glob('*.png')))}")


if __name__ == "__main__":
    sys.exit(cli.run(main, app))
