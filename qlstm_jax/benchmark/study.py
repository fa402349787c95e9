"""Compares models on one task: a row for each model, a column for each setting of the task, several seeds.

    python -m qlstm_jax.benchmark.study --config configs/reviews_lstm.py --rows lstm ql_lstm "ql_lstm,skip=false" \
        --seeds 5 --set text.path=reviews.tsv --metric accuracy macro_f1 --out results/reviews

A row is a cell with settings of its own, "CELL,key=value,...", put upon the config of --config; a column is settings of
all rows, "recall.length=1024"; --set is for the whole table. With --equal parameters (or recurrent_parameters: those of
the sequence layer) every row after the first gets the hidden size that brings it nearest to the first one's number;
what it got is written beside it. Each run is one of train.py and eval.py in a folder under --workdir: the same command
again goes on where it stopped, and skips what is done. OUT/results.jsonl has a line a run, with all figures of its
report; OUT/table.md the means with 95 % confidence intervals over the seeds; OUT/*.png the pictures.
"""

import argparse
import contextlib
import importlib.util
import sys
import tempfile
import time
from pathlib import Path

import jax
from absl import logging
from flax import nnx

from qlstm_jax.benchmark import study_report, variants
from qlstm_jax.benchmark.results import Results
from qlstm_jax.data.rows import DataError
from qlstm_jax.training import config as configs
from qlstm_jax.training import problems
from qlstm_jax.training.evaluate import evaluate
from qlstm_jax.training.loop import Diverged, Interrupted, train
from qlstm_jax.training.metrics import clock
from qlstm_jax.training.summary import count


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="python -m qlstm_jax.benchmark.study",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--config", metavar="FILE[:ARGUMENT]", help="config file, as for train.py; needed unless reporting")
    p.add_argument("--rows", nargs="+", default=[], metavar="CELL[,key=value...]")
    p.add_argument("--columns", nargs="+", default=[""], metavar="key=value[,key=value...]")
    p.add_argument("--seeds", type=int, default=3, help="seeds 0 .. SEEDS - 1")
    p.add_argument("--set", nargs="+", default=[], metavar="key=value", help="settings of all runs")
    p.add_argument("--equal", choices=("parameters", "recurrent_parameters"), help="as many as the first row")
    p.add_argument("--metric", nargs="+", default=["accuracy"], help="figures of eval.py's report, a table each")
    p.add_argument("--out", type=Path, required=True, help="folder of the results")
    p.add_argument("--workdir", type=Path, default=Path("runs/study"), help="folder of the runs")
    p.add_argument("--report_only", action="store_true", help="only write the tables and pictures anew")
    return p


def load_config(text: str):
    """The config of "FILE" or "FILE:ARGUMENT", as train.py reads it.

    Raises:
        ConfigError: if there is no such file, or it has no get_config.
    """
    path, _, argument = text.partition(":")
    if not Path(path).is_file():
        raise configs.ConfigError(f"--config {path!r} is not a file; expected a config such as configs/mqar.py")
    spec = importlib.util.spec_from_file_location("study_config", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise configs.ConfigError(f"{path} defines no get_config()")
    return module.get_config(argument) if argument else module.get_config()


def grid(args) -> list[dict]:
    """The runs: {"row", "column", "config", "identity"} for each row and column, the first row first.

    Raises:
        ConfigError: for names or values that do not exist, all before anything runs.
    """
    if args.seeds < 1 or not args.rows:
        raise configs.ConfigError(f"--seeds={args.seeds} --rows {args.rows}; expected 1 or more of each")
    base, common = load_config(args.config), variants.parse_settings(args.set)
    cells = []
    for text in args.columns:
        column, wanted = variants.parse_settings(text.split(",") if text else []), None
        for number, variant in enumerate(map(variants.parse, args.rows)):
            config = variants.apply(base, variant, common | column)
            name = variant.name
            if args.equal and number:
                config.model.hidden_size = matched_hidden_size(config, args.equal, wanted)
                name += f", hidden {config.model.hidden_size}"
            elif args.equal:
                wanted = parameters(config)[args.equal]
            cells.append({"row": name, "column": text, "config": config, "identity": variants.identity(config)})
    return cells


def parameters(config) -> dict[str, int]:
    """The numbers that `--equal` names, of the config's model. Nothing is computed."""
    with opened(config) as problem:
        return sizes(problem)


@contextlib.contextmanager
def opened(config):
    """The config's problem, whose data is read once, with a passing folder for a tokenizer."""
    with tempfile.TemporaryDirectory() as folder:
        yield problems.make(config, Path(folder))


def sizes(problem) -> dict[str, int]:
    """`parameters` of the model that the problem's config describes now."""
    shapes = jax.eval_shape(lambda: nnx.to_pure_dict(nnx.state(problem.model(nnx.Rngs(0)), nnx.Param)))
    return {"parameters": count(shapes), "recurrent_parameters": count(shapes["layer"])}


def matched_hidden_size(config, what: str, wanted: int) -> int:
    """The hidden size that brings `what` nearest to `wanted`; one that twice the cell's heads, if any, divide."""
    options = config.model.get(config.model.cell, {})
    unit = 2 * options["num_heads"] if "num_heads" in options else 1
    trial = config.copy_and_resolve_references()

    with opened(trial) as problem:

        def difference(units: int) -> int:
            trial.model.hidden_size = units * unit
            return sizes(problem)[what] - wanted

        low, high = 1, 2
        while difference(high) < 0:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if difference(middle) < 0 else (low, middle)
        return unit * min((low, high), key=lambda units: abs(difference(units)))


def run(cell: dict, seed: int, workdir: Path) -> dict:
    """Trains and evaluates one run, or finishes it; its record."""
    config = cell["config"].copy_and_resolve_references()
    config.seed = seed
    folder = workdir / f"{config.task}_{variants.fingerprint(cell['identity'])}_seed_{seed}"
    start, diverged = time.perf_counter(), False
    validation = {}
    try:
        validation = train(config, folder)
    except Diverged as error:
        print(f"  diverged: {error}", file=sys.stderr)
        diverged = True
    seconds = time.perf_counter() - start
    figures = {} if diverged else evaluate(folder)
    return {
        **{key: cell[key] for key in ("row", "column", "identity")},
        "seed": seed,
        "task": config.task,
        "steps": config.train.steps,
        "batch_size": config.train.batch_size,
        "diverged": diverged,
        "train_seconds": round(seconds, 1),
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "last": validation,
        "report": figures,
    }


def run_all(cells: list[dict], args, results: Results):
    """The runs that have no result yet, seed by seed."""
    todo = [(seed, cell) for seed in range(args.seeds) for cell in cells if not results.has(cell["identity"], seed)]
    started = time.perf_counter()
    for done, (seed, cell) in enumerate(todo):
        left = clock((time.perf_counter() - started) / done * (len(todo) - done)) if done else "?"
        print(f"[{done + 1}/{len(todo)}] {cell['row']}  {cell['column']}  seed {seed}, left {left}", flush=True)
        results.add(run(cell, seed, args.workdir))


@contextlib.contextmanager
def compiled_once(folder: Path):
    """Keeps compiled programs in a folder: the seeds of a row, and what is done anew later, share theirs."""
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(folder.absolute()))
    try:
        yield
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


def main(argv=None) -> int:
    """Runs the study; returns the exit status: 0, 1 for settings or data that cannot be, 130 when interrupted."""
    args = parser().parse_args(argv)
    logging.set_verbosity(logging.WARNING)  # orbax writes a page for each checkpoint
    results = Results(args.out / "results.jsonl")
    try:
        if not args.report_only:
            if not args.config:
                raise configs.ConfigError("--config is missing; expected a config file, as for train.py")
            with compiled_once(args.workdir / "compiled"):
                run_all(grid(args), args, results)
        print(f"tables and pictures: {study_report.write(results.records(), args.metric, args.out)}")
    except (configs.ConfigError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except Interrupted as error:
        print(f"stopped: {error}", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
