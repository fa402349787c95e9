"""Trains and evaluates a grid of cells, formal languages and seeds, and writes its table and pictures.

    python -m qlstm_jax.studies.formal --cells pr_lstm lstm "pr_lstm,max_offset=8" --tasks all --steps 2000 --seeds 3

A cell may be followed by settings of its own, "CELL,key=value,..."; settings of all cells are any keys of a config,
--set train.batch_size=32. "pr_lstm:ldru" is PR-LSTM's tree with the merge ldru. Results go to OUT/results.jsonl, a line
a run; the same command again goes on where it stopped and skips what is there. OUT/table.md has the table (mean and
best over the seeds), and a folder beside it for each budget the accuracy-against-length pictures.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from qlstm_jax import problems
from qlstm_jax.console import outcome
from qlstm_jax.console.arguments import Parser, settings_of
from qlstm_jax.data.formal import TASKS
from qlstm_jax.problems.config import nearest
from qlstm_jax.studies import variants
from qlstm_jax.studies.cohort import Trainer
from qlstm_jax.studies.provenance import provenance
from qlstm_jax.studies.results import Results, latest, write_report
from qlstm_jax.studies.variants import Variant
from qlstm_jax.training import config as configs
from qlstm_jax.training.beginning import run_keys
from qlstm_jax.training.metrics import Progress, clock
from qlstm_jax.training.signals import Interrupted, StopSignal
from qlstm_jax.training.summary import count

# Keys that the grid sets itself, to the flag that says how.
TAKEN = variants.TAKEN | {
    "train.steps": "--steps",
    "formal.task": "--tasks",
    "model.cell": "--cells",
    "problem": "--tasks",
}


def parser() -> Parser:
    """Returns the parser of the command line."""
    p = Parser("python -m qlstm_jax.studies.formal", __doc__)
    p.add_argument("--cells", nargs="+", default=["pr_lstm", "lstm"], metavar="CELL[,key=value...]")
    p.add_argument("--tasks", nargs="+", default=["all"], metavar="TASK")
    p.add_argument("--steps", type=int, default=2000, help="training steps of each run")
    p.add_argument("--seeds", type=int, default=3, help="seeds 0 .. SEEDS - 1")
    p.add_argument("--together", type=int, default=0, help="seeds that train as one program; 0: one on a CPU, else all")
    p.add_argument("--out", type=Path, default=Path("results/formal"), help="folder of the results")
    p.add_argument("--workdir", type=Path, default=Path("runs/formal"), help="folder of checkpoints and metrics")
    p.add_argument("--checkpoint_seconds", type=float, default=60.0, help="how often a run is saved")
    p.add_argument("--keep_old", action="store_true", help="results of other versions count, by the values they name")
    p.add_argument("--report_only", action="store_true", help="only write the table and pictures anew")
    return p


def common_settings(args: argparse.Namespace) -> dict[str, Any]:
    """Returns the dotted keys and values that all runs share."""
    given = settings_of(args, configs.default(), taken=TAKEN)
    return {"train.log_every": 100} | given | {"train.steps": args.steps}


def jobs(args: argparse.Namespace) -> list[Any]:
    """(task, variant, config) of the grid, task by task.

    Raises:
        ConfigError: for names or values that do not exist, all before anything runs.
    """
    tasks = list(TASKS) if args.tasks == ["all"] else args.tasks
    for task in tasks:
        if task not in TASKS:
            raise configs.ConfigError(f"task {task!r}; {nearest(task, ['all', *TASKS])}")
    if min(args.steps, args.seeds, args.together + 1) < 1:
        raise configs.ConfigError(
            f"--steps={args.steps} --seeds={args.seeds} --together={args.together}; expected 1 or more, 1 or more, "
            "0 or more"
        )
    columns = [variants.parse(text) for text in args.cells]
    common = common_settings(args)
    return [(task, column, variants.build(task, column, common)) for task in tasks for column in columns]


def budget(common: dict[str, Any]) -> str:
    """Describes what the runs of a table share: the default config changed by `common`."""
    config = configs.default()
    config.update_from_flattened_dict(common)
    train, lengths, test = config.train, config.formal, config.eval
    every = "" if test.stride == 1 else f" every {test.stride}"
    return (
        f"{train.steps} steps of {train.batch_size}, hidden size {config.model.hidden_size}, "
        f"learning rate {train.learning_rate:g}, trained at {lengths.min_length}..{lengths.max_length}, "
        f"tested at {test.min_length}..{test.max_length}{every} with {test.sequences} each"
    )


def run_job(
    task: str, variant: Variant, config: ConfigDict, args: argparse.Namespace, results: Results, stop: StopSignal
) -> int:
    """Trains and evaluates the seeds of one cell on one task that have no result yet, and returns how many."""
    mine = variants.identity(config)
    also = partial(variants.is_same_but_for_version, config=config) if args.keep_old else None
    missing = [seed for seed in range(args.seeds) if not results.has(mine, seed, also)]
    if not missing:
        return 0
    runs, terms = [(task, variant.name, seed) for seed in missing], budget(common_settings(args))
    again = [r for r in results.records() if (r["task"], r["variant"], r["seed"]) in runs and r["budget"] == terms]
    if again:
        print(
            f"  note: {len(again)} of these seeds have results of another version of qlstm_jax or of other settings; "
            "they run anew, and the new ones are reported (--keep_old counts those of other versions)"
        )
    together = args.together or (1 if jax.default_backend() == "cpu" else args.seeds)
    trainer = Trainer(problems.make(config, args.out), config)
    for first in range(0, len(missing), together):
        seeds = missing[first : first + together]
        name = variant.name.replace(":", "-")  # which not every file system takes
        folder = args.workdir / name / task / f"seeds_{'_'.join(map(str, seeds))}_{variants.fingerprint(mine)}"
        progress, start = Progress(0, config.train.steps), time.perf_counter()
        state = trainer.run(seeds, folder, progress, stop, checkpoint_seconds=args.checkpoint_seconds)
        progress.close()
        seconds = (time.perf_counter() - start) / len(seeds)
        for place, seed in enumerate(seeds):
            about = {"task": task, "variant": variant.name, "seed": seed, "budget": terms}
            record = about | measure(trainer, state, place, config) | {"train_seconds": round(seconds, 1)}
            results.add(record | {"identity": mine})
            print(f"  seed {seed}: score {record['score']:.4f}, in range {record['in_range_accuracy']:.4f}", flush=True)
    return len(missing)


def measure(trainer: Any, state: Any, place: int, config: ConfigDict) -> dict[str, Any]:
    """Evaluates the seed at `place`."""
    params, start = jax.tree.map(lambda a: a[place], state.params), time.perf_counter()
    figures: dict[str, Any] = trainer.problem.measure(trainer.model(state, place), run_keys(0)[2], config.eval)
    return figures | {
        "diverged": not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params)),
        "parameters": count(params),
        "eval_seconds": round(time.perf_counter() - start, 1),
        **provenance(),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the grid; returns the exit code, as for `console.outcome`."""
    return outcome.run(_run, argv)


def _run(argv: list[str]) -> None:
    args = parser().read(argv)
    results = Results(args.out / "results.jsonl")
    grid = [] if args.report_only else jobs(args)
    if grid:
        args.out.mkdir(parents=True, exist_ok=True)  # a folder that cannot be is told before hours of training
    started, done = time.perf_counter(), 0
    with StopSignal() as stop:
        for number, (task, variant, config) in enumerate(grid):
            left = (time.perf_counter() - started) / max(done, 1) * (len(grid) - number)
            eta = f", about {clock(left)} left" if done else ""
            print(f"[{number + 1}/{len(grid)}] {task}, {variant.name}{eta}", flush=True)
            done += run_job(task, variant, config, args, results, stop) > 0
            if stop.received:
                raise Interrupted(f"{stop.received.name}: saved. Run the same command to go on.", stop.received)
    records = latest(results.records(), "task", "variant", "seed", "budget")
    if not records:
        raise configs.ConfigError(f"{results.path} holds no results to report; run the grid first")
    print(f"table and pictures: {write_report(records, args.out)}")


if __name__ == "__main__":
    sys.exit(main())
