"""Compares models on one task: a row for each model, a column for each setting of the task, several seeds.

    python -m qlstm_jax.studies.study --config configs/reviews_lstm.py --rows lstm ql_lstm "ql_lstm,skip=false" \
        --seeds 5 --set text.path=reviews.tsv --metric accuracy macro_f1 --out results/reviews

A row is a cell with settings of its own, "CELL,key=value,...", put upon the config of --config; a column is settings of
all rows, "recall.length=1024"; --set is for the whole table. With --equal parameters (or recurrent_parameters: those of
the sequence layer) every row after the first gets the hidden size that brings it nearest to the first one's number at
the first column; what it got is written beside it. Several ways of --equal list the rows once for each. Each run is one
of train.py and eval.py in a folder under --workdir: the same command again goes on where it stopped, and skips what is
done. OUT/results.jsonl has a line a run, with all figures of its report; OUT/table.md the means with 95 % confidence
intervals over the seeds; OUT/*.png the pictures.

    python -m qlstm_jax.studies.study reviews --set text.path=reviews.tsv

With --choose "train.learning_rate=0.001" "train.learning_rate=0.003" every model is trained with each of these. The
tables report, of each row and column, the settings that are best on validation (by train.select_metric, or the metric
of the problem, the mean over the seeds); their figures are of the test part, which chooses nothing.

A name is that of a study in named.py, which gives the other arguments; what is given here as well wins, and --set
adds to its settings.
"""

import argparse
import contextlib
import dataclasses
import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from qlstm_jax import problems
from qlstm_jax.console import outcome
from qlstm_jax.console.arguments import Parser, settings_of
from qlstm_jax.studies import choice, footprint, named, study_report, variants
from qlstm_jax.studies.provenance import provenance
from qlstm_jax.studies.results import Results, latest
from qlstm_jax.training import config as configs
from qlstm_jax.training import config_files, config_settings
from qlstm_jax.training.evaluate import evaluate, run_name
from qlstm_jax.training.faults import InUse
from qlstm_jax.training.loop import Diverged, train
from qlstm_jax.training.metrics import clock
from qlstm_jax.training.selection import selection

EQUAL = ("hidden_size", "parameters", "recurrent_parameters")
TAKEN = variants.TAKEN | {"model.cell": "--rows"}  # keys that the study sets itself, to the flag that says how


def parser() -> Parser:
    """Returns the parser of the command line."""
    p = Parser("python -m qlstm_jax.studies.study", __doc__)
    p.add_argument("name", nargs="?", metavar="NAME", help=f"a study of named.py: {', '.join(named.STUDIES)}")
    p.add_argument("--config", metavar="FILE[:ARGUMENT]", help="config file, as for train.py; needed unless reporting")
    p.add_argument("--rows", nargs="+", default=[], metavar="CELL[,key=value...]")
    p.add_argument("--columns", nargs="+", default=[""], metavar="key=value[,key=value...]")
    p.add_argument(
        "--choose", nargs="+", default=[""], metavar="key=value[,key=value...]", help="the best on validation"
    )
    p.add_argument("--seeds", type=int, default=3, help="seeds 0 .. SEEDS - 1")
    p.add_argument("--equal", nargs="+", choices=EQUAL, default=["hidden_size"], help="what rows share with the first")
    p.add_argument("--metric", nargs="+", default=["accuracy"], help="figures of eval.py's report, a table each")
    p.add_argument("--out", type=Path, help="folder of the results; of a study by name, results/NAME")
    p.add_argument("--workdir", type=Path, default=Path("runs/study"), help="folder of the runs")
    p.add_argument("--keep_old", action="store_true", help="results of other versions count, by the values they name")
    p.add_argument("--report_only", action="store_true", help="only write the tables and pictures anew")
    return p


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Returns the arguments of the command line, over those of the study that it names.

    Raises:
        ConfigError: if there is no such study, or what neither gives is missing.
    """
    p = parser()
    args = p.read(argv)
    if args.name:
        given = named.defaults(args.name)
        pairs = given.pop("set", []) + args.set  # of two values for a key the later counts
        p.set_defaults(**given)
        args = p.read(argv)
        args.set = pairs
    if not args.out:
        raise configs.ConfigError("--out is missing; expected a folder for the results, or the name of a study")
    if not (args.config or args.report_only):
        raise configs.ConfigError("--config is missing; expected a config file as for train.py, or the name of a study")
    return args


def grid(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Returns the runs: {"row", "column", "choice", "config", "identity"} for each of them, the first row first.

    Raises:
        ConfigError: for names or values that do not exist, all before anything runs.
    """
    if args.seeds < 1 or not args.rows:
        raise configs.ConfigError(f"--seeds={args.seeds} --rows {args.rows}; expected 1 or more of each")
    base = config_files.load(args.config)
    common = settings_of(args, base, taken=TAKEN)
    columns = {text: _settings("column", text, base) for text in args.columns}
    choices = {text: _settings("choice", text, base) for text in args.choose}
    sized = any("model.hidden_size" in settings for settings in (*columns.values(), *choices.values()))
    if set(args.equal) != {"hidden_size"} and sized:
        raise configs.ConfigError(
            f"--equal {' '.join(args.equal)} sets model.hidden_size; expected columns and choices without it"
        )
    lines = models(base, list(map(variants.parse, args.rows)), common | columns[args.columns[0]], args.equal)
    cells = []
    for (text, column), (chosen, settings) in itertools.product(columns.items(), choices.items()):
        for name, variant, hidden_size in lines:
            config = variants.apply(base, variant, common | column | settings)
            config.model.hidden_size = hidden_size or config.model.hidden_size
            about = {"row": name, "column": text, "choice": chosen}
            cells.append({**about, "config": config, "identity": variants.identity(config)})
    return cells


def _settings(what: str, text: str, base: ConfigDict) -> dict[str, Any]:
    """Returns the settings of a column or a choice, "key=value,key=value" or ""."""
    try:
        return config_settings.parse(text.split(",") if text else [], base, taken=TAKEN)
    except configs.ConfigError as error:
        raise configs.ConfigError(f"{what} {text!r}: {error}") from error


def models(
    base: ConfigDict, rows: list[variants.Variant], settings: dict[str, Any], ways: list[str]
) -> list[tuple[str, variants.Variant, int | None]]:
    """(name, variant, hidden size or None for the config's own) for each row and way of `--equal`, each model once.

    Args:
        base: the study's config.
        rows: the models.
        settings: of the column at which sizes are matched.
        ways: of `EQUAL`.
    """
    first = variants.apply(base, rows[0], settings)
    wanted = footprint.parameters(first) if set(ways) != {"hidden_size"} else {}
    lines: list[tuple[str, variants.Variant, int | None]] = [(rows[0].name, rows[0], None)]
    seen = {(rows[0].name, first.model.hidden_size)}
    for way in ways:
        for variant in rows[1:]:
            config = variants.apply(base, variant, settings)
            size, name, given = config.model.hidden_size, variant.name, None
            if way != "hidden_size":
                size = given = footprint.matched_hidden_size(config, way, wanted[way])
                name += f", hidden {size}"
            if (variant.name, size) not in seen:
                lines.append((name, variant, given))
            seen.add((variant.name, size))
    return lines


def run(cell: dict[str, Any], seed: int, workdir: Path) -> dict[str, Any]:
    """Trains and evaluates one run, or finishes it; its record."""
    config = cell["config"].copy_and_resolve_references()
    config.seed = seed
    folder = workdir / f"{run_name(config)}_{variants.fingerprint(cell['identity'])}_seed_{seed}"
    resumed, start, lost = configs.run_exists(folder), time.perf_counter(), ""
    validation, figures = {}, {}
    try:
        validation = train(config, folder)
        seconds = time.perf_counter() - start
        figures = evaluate(folder)
    except Diverged as error:
        lost = f"diverged: {error}"
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        lost = f"out of memory: {error}"
    if lost:
        seconds = time.perf_counter() - start
        print(f"  {lost}", file=sys.stderr)
    problem = problems.make(config, folder)
    if "step_bytes" not in cell:  # the same for all seeds
        cell["step_bytes"] = footprint.step_bytes(problem, config)
    return {
        **{key: cell[key] for key in ("row", "column", "choice", "identity")},
        "seed": seed,
        "task": run_name(config),
        "steps": config.train.steps,
        "batch_size": config.train.batch_size,
        "lost": lost.partition(":")[0],  # "diverged", "out of memory", or "" for a run that came to its end
        "train_seconds": None if resumed else round(seconds, 1),  # else it would be those of the last call alone
        "tokens_per_second": footprint.tokens_per_second(folder),
        "step_bytes": cell["step_bytes"],
        **provenance(),
        "last": validation,
        "selection": dataclasses.astuple(selection(problem, config.train.select_metric)),
        "validation": choice.validation_at(folder, figures["step"]) if figures else {},
        "report": figures,
    }


def _is_done(cell: dict[str, Any], seed: int, args: argparse.Namespace, results: Results) -> bool:
    also = partial(variants.is_same_but_for_version, config=cell["config"]) if args.keep_old else None
    return results.has(cell["identity"], seed, also)


def _records(results: Results) -> list[dict[str, Any]]:
    """Returns all results; those of earlier versions were of no choice."""
    return [{"choice": "", **record} for record in results.records()]


def run_all(cells: list[dict[str, Any]], args: argparse.Namespace, results: Results) -> None:
    """Does the runs that have no result yet, seed by seed."""
    todo = [(seed, cell) for seed in range(args.seeds) for cell in cells if not _is_done(cell, seed, args, results)]
    known = {(r["row"], r["column"], r["choice"], r["seed"]) for r in _records(results)}
    anew = [c for seed, c in todo if (c["row"], c["column"], c["choice"], seed) in known]
    if anew:
        print(
            f"note: {len(anew)} runs have a result in {results.path} that another version of qlstm_jax made, or other "
            "settings; they run anew, and the new results are reported (--keep_old counts those of other versions)"
        )
    started = time.perf_counter()
    for done, (seed, cell) in enumerate(todo):
        left = clock((time.perf_counter() - started) / done * (len(todo) - done)) if done else "?"
        print(
            f"[{done + 1}/{len(todo)}] {cell['row']}  {cell['column']}  {cell['choice']}  seed {seed}, left {left}",
            flush=True,
        )
        if _is_done(cell, seed, args, results):  # by another process on the same files
            continue
        try:
            results.add(run(cell, seed, args.workdir))
        except InUse as error:
            print(f"  left out: {error}", file=sys.stderr)


@contextlib.contextmanager
def compiled_once(folder: Path) -> Iterator[None]:
    """Keeps compiled programs in a folder: the seeds of a row, and what is done anew later, share theirs."""
    before = getattr(jax.config, "jax_compilation_cache_dir")  # noqa: B009 - its type has no options
    jax.config.update("jax_compilation_cache_dir", str(folder.absolute()))
    try:
        yield
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the study; returns the exit code, as for `console.outcome`."""
    return outcome.run(_run, argv)


def _run(argv: list[str]) -> None:
    args = arguments(argv)
    results = Results(args.out / "results.jsonl")
    if not args.report_only:
        with compiled_once(args.workdir / "compiled"):
            cells = grid(args)
            args.out.mkdir(parents=True, exist_ok=True)  # a folder that cannot be is told before hours of training
            run_all(cells, args, results)
    records = latest(_records(results), "row", "column", "choice", "seed")
    print(f"tables and pictures: {study_report.write(records, args.metric, args.out)}")


if __name__ == "__main__":
    sys.exit(main())
