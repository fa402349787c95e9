"""Trains and evaluates whole runs on this machine, and says how long they took to reach an accuracy.

    python benchmarks/gpu/work.py --out lines.jsonl --workdir runs/gpu --imdb /path/to/aclImdb

The quickstart first; then, given the reviews, QL-LSTM and LSTM by configs/imdb.py, the budget of the study. `seconds`
is from the start of train.py to its end, compilation included; `seconds_to_target` to the first validation at or above
87 %, by the clock of the run's own records.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from lines import Lines

ROOT = Path(__file__).parents[2]
TARGET = 0.87


def program(name: str, *arguments: str) -> None:
    """Runs train.py or eval.py of this repository."""
    subprocess.run([sys.executable, str(ROOT / name), *arguments], cwd=ROOT, check=True)


def run(workdir: Path, arguments: list[str]) -> dict[str, Any]:
    """Trains and evaluates; the figures of both."""
    started, start = time.time(), time.perf_counter()
    program("train.py", f"--workdir={workdir}", *arguments)
    seconds = time.perf_counter() - start
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    validations = [r for r in records if r["split"] == "validation"]
    there = [r["time"] - started for r in validations if r["accuracy"] >= TARGET]
    speeds = sorted(r["steps_per_second"] for r in records if "steps_per_second" in r)
    program("eval.py", f"--workdir={workdir}")
    report = json.loads((workdir / "eval" / "report.json").read_text())
    return {
        "seconds": round(seconds, 1),
        "seconds_to_target": round(there[0], 1) if there else None,
        "steps_per_second": round(speeds[len(speeds) // 2], 1),
        "validation": max(r["accuracy"] for r in validations),
        "test": {k: v for k, v in report.items() if isinstance(v, float)},
    }


def main() -> None:
    """Runs what has no line yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the file of lines")
    parser.add_argument("--workdir", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--imdb", help="the reviews, as --config.text.path")
    parser.add_argument("--only", nargs="+", help="runs by name, such as 'imdb ql_lstm'")
    args = parser.parse_args()
    lines = Lines(args.out)
    runs: dict[str, list[str]] = {"quickstart": []}
    for cell in ("ql_lstm", "lstm") if args.imdb else ():
        runs[f"imdb {cell}"] = [f"--config=configs/imdb.py:{cell}", f"--config.text.path={args.imdb}"]
    for key, arguments in runs.items():
        if not lines.has(key) and (not args.only or key in args.only):
            lines.add("work", key, **run(args.workdir / key.replace(" ", "_"), arguments))


if __name__ == "__main__":
    main()
