"""A run's folder before it trains: whose it is, what changed since the last call, and the problem."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from flax import nnx
from ml_collections import ConfigDict

from qlstm_jax import problems
from qlstm_jax.problems import Problem
from qlstm_jax.training import config as configs
from qlstm_jax.training.faults import WorkdirError, writing

# A problem of the user's own: itself, or what makes it of a checked config and the run's folder.
OwnProblem = Problem | Callable[[ConfigDict, Path], Problem]
OwnModel = Callable[[nnx.Rngs], nnx.Module]


def make_problem(
    config: ConfigDict, workdir: Path, problem: OwnProblem | None = None, model: OwnModel | None = None
) -> Problem:
    """Makes the problem of a run: the one that the config names, or the user's own; with the user's model, if any."""
    if problem is None:
        made = problems.make(config, workdir)
    else:
        made = problem if isinstance(problem, Problem) else problem(config, workdir)
    if model is not None:
        made.model = model  # type: ignore[method-assign, assignment]  # of this problem alone
    return made


class Opened(NamedTuple):
    """A run that may train."""

    problem: Problem
    changed: list[str]  # keys that differ from the last call's, "train.steps: 10 then, 20 now"
    another_course: bool  # whether the steps from here on are others than those of the last call would have been


def open_run(
    config: ConfigDict, workdir: Path, problem: OwnProblem | None = None, model: OwnModel | None = None
) -> Opened:
    """Opens a run: checks the config against the workdir's, makes the problem, and saves the config.

    Raises:
        ConfigError: if the workdir holds a run of another config, or one that lost its own.
        DataError: for data that cannot be read.
        WriteError: if the config cannot be saved.
    """
    path, changed = workdir / "config.json", configs.Differences()
    if configs.run_exists(workdir):
        changed = configs.compare(configs.load(path), config)
        if changed.refused:
            raise configs.ConfigError(
                f"{workdir} holds a run of another config ({'; '.join(changed.refused)}). Give another --workdir (with "
                f"--config.train.init_from={workdir} the new run begins with the weights of this one), or delete that "
                "folder to start anew."
            )
    else:
        _refuse_orphans(workdir)
    # Whatever the user may have to mend comes before the config is saved, or the mended one would be refused.
    made = make_problem(config, workdir, problem, model)
    with writing(workdir):
        if changed.allowed:
            with (workdir / "changes.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps({"time": round(time.time(), 3), "changed": changed.allowed}) + "\n")
        configs.save(config, path)
    return Opened(made, changed.allowed, changed.another_course)


def _refuse_orphans(workdir: Path) -> None:
    """Raises WorkdirError for checkpoints without the config of their run, which any other could take over."""
    for name in ("checkpoints", "best"):
        folder = workdir / name
        steps = [p.name for p in folder.iterdir() if p.name.isdigit()] if folder.is_dir() else []
        if steps:
            raise WorkdirError(
                f"{workdir / 'config.json'} is missing, though {folder} holds step {max(steps, key=int)} of a run; "
                "bring it back, or give another --workdir"
            )
