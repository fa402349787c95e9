"""The evaluation of a trained run: figures as JSON, pictures as PNG."""

import json
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from qlstm_jax.problems import plots
from qlstm_jax.problems.base import Problem
from qlstm_jax.training import config as configs
from qlstm_jax.training import config_checks, records
from qlstm_jax.training.beginning import expected, first_state, run_keys, static_model
from qlstm_jax.training.checkpoints import Checkpoints
from qlstm_jax.training.config import ConfigError
from qlstm_jax.training.meshes import everywhere, make_mesh, using
from qlstm_jax.training.opening import OwnModel, OwnProblem, make_problem
from qlstm_jax.training.step import TrainState, make_optimizer
from qlstm_jax.training.summary import count


def restore(
    workdir: str | Path,
    *,
    checkpoint: str | None = None,
    settings: Mapping[str, object] | None = None,
    problem: OwnProblem | None = None,
    model: OwnModel | None = None,
) -> tuple[ConfigDict, Problem, Any, int]:
    """Restores a trained run, on one device.

    Args:
        workdir: its folder.
        checkpoint: "last", "best", or None for what the run's config selects.
        settings: dotted keys of the run's config to other values, of `config.CHANGEABLE`.
        problem, model: your own, as the run was trained with.

    Returns:
        (config, problem, model in evaluation mode, step of its checkpoint).

    Raises:
        ConfigError: if there is no run or no such checkpoint, or none that can be read, or for settings that cannot be
            changed.
    """
    config, made, trained, state = restore_state(
        workdir, checkpoint=checkpoint, settings=settings, problem=problem, model=model
    )
    return config, made, trained, int(state.step)


def restore_state(
    workdir: str | Path,
    *,
    checkpoint: str | None = None,
    settings: Mapping[str, object] | None = None,
    problem: OwnProblem | None = None,
    model: OwnModel | None = None,
    on_mesh: bool = False,
) -> tuple[ConfigDict, Problem, Any, TrainState]:
    """Restores as `restore`, with the whole `TrainState`, a language model's carry included, in place of the step.

    With `on_mesh` the state lies on the mesh of the config, if it has one, and the model whole on each of its devices.
    """
    workdir = Path(workdir)
    config = configs.load(workdir / "config.json")
    if settings:
        configs.change(config, settings)
        config_checks.check(config, own_problem=problem is not None)
    problem = make_problem(config, workdir, problem, model)
    mesh = _mesh(config) if on_mesh else None
    model = static_model(problem)
    checkpoints = Checkpoints(workdir, read_only=True)
    wanted = checkpoint or config.train.select
    make = partial(first_state, problem, config, make_optimizer(config.train))
    state = checkpoints.restore(expected(make, run_keys(config.seed), mesh), best=wanted == "best")
    for line in checkpoints.notes:
        print(f"note: {line}", file=sys.stderr)
    checkpoints.close()
    if state is None:
        raise ConfigError(f"{workdir} has no {wanted!r} checkpoint; expected a run with one (see train.py)")
    model.eval()
    return config, problem, nnx.merge(nnx.graphdef(model), everywhere(state.final_params, mesh)), state


def _mesh(config: ConfigDict) -> Mesh | None:
    """Returns the mesh that a run is evaluated on, all of its devices; None for one device."""
    return make_mesh(config) if config.parallel.mesh else None


def evaluate(
    workdir: str | Path,
    *,
    checkpoint: str | None = None,
    settings: Mapping[str, object] | None = None,
    problem: OwnProblem | None = None,
    model: OwnModel | None = None,
    **overrides: object,
) -> dict[str, Any]:
    """Evaluates a run into `workdir/eval`: `report.json` and pictures. All devices of the run's mesh take their rows.

    Args:
        workdir: the run's folder.
        checkpoint, settings: as for `restore`.
        problem, model: as for `restore`.
        overrides: keys of the config's `eval` section.

    Returns:
        What `report.json` holds.

    Raises:
        ConfigError: as for `restore`, or for overrides out of range.
    """
    own_problem = problem is not None
    config, problem, model, state = restore_state(
        workdir, checkpoint=checkpoint, settings=settings, problem=problem, model=model, on_mesh=True
    )
    _check_used(
        problem, [*overrides, *(key.removeprefix("eval.") for key in settings or {} if key.startswith("eval."))]
    )
    config.eval.update(overrides)
    config_checks.check(config, own_problem=own_problem)
    folder = Path(workdir) / "eval"
    folder.mkdir(exist_ok=True)
    *_, key = run_keys(config.seed)
    with using(_mesh(config)):
        report = _about(config, model, int(state.step)) | problem.report(model, key, folder, config.eval)
    (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    if figures := records.read(workdir):
        title = f"{run_name(config)}, {config.model.cell}"
        plots.learning_curves(figures, title, folder / "learning_curves.png")
    return report


def score(
    workdir: str | Path,
    path: str | Path,
    *,
    checkpoint: str | None = None,
    settings: Mapping[str, object] | None = None,
    problem: OwnProblem | None = None,
    model: OwnModel | None = None,
) -> dict[str, Any]:
    """Scores a labelled file that is no part of the run: `score_NAME.json` and a picture in `workdir/eval`.

    Args:
        workdir: the run's folder.
        path: of the file, or what else `qlstm_jax.data.text.load` reads.
        checkpoint, settings, problem, model: as for `restore`.

    Returns:
        What the JSON file holds.

    Raises:
        ConfigError: as for `restore`, or if the run's problem scores no files.
        DataError: if the file cannot be read, or has a label that training had not.
    """
    config, problem, model, state = restore_state(
        workdir, checkpoint=checkpoint, settings=settings, problem=problem, model=model, on_mesh=True
    )
    path, folder = Path(path).expanduser(), Path(workdir) / "eval"
    folder.mkdir(exist_ok=True)
    with using(_mesh(config)):
        report = _about(config, model, int(state.step)) | problem.score_file(model, path, folder)
    (folder / f"score_{path.stem}.json").write_text(json.dumps(report, indent=2) + "\n")
    return report


def _about(config: ConfigDict, model: Any, step: int) -> dict[str, Any]:
    """Returns the entries that every report begins with."""
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    return {
        "task": run_name(config),
        "cell": config.model.cell,
        "seed": config.seed,
        "step": step,
        "parameters": count(params),
        "recurrent_parameters": count(params.get("layer", {})),
    }


def _check_used(problem: Problem, keys: list[str]) -> None:
    """Raises ConfigError for keys of `eval` that are changed for an evaluation which does not read them."""
    used = problem.evaluates
    for key in keys:
        if used is not None and key not in used:
            others = f"; it reads {', '.join(f'eval.{name}' for name in used)}" if used else ", nor any other of eval"
            raise ConfigError(f"the evaluation of {problem.name} does not read eval.{key}{others}")


def run_name(config: ConfigDict) -> str:
    """Names what a run learns: a formal language by its own name, any other problem by its section's."""
    name: str = config.formal.task if config.problem == "formal" else config.problem
    return name
