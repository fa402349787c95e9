"""A new run that begins with the weights of another one."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from qlstm_jax.problems import Problem
from qlstm_jax.training import config as configs
from qlstm_jax.training.checkpoints import Checkpoints
from qlstm_jax.training.config import ConfigError
from qlstm_jax.training.freezing import name_of
from qlstm_jax.training.step import TrainState


def warm_start(state: TrainState, config: ConfigDict, problem: Problem) -> tuple[TrainState, list[str]]:
    """Returns the state of a new run with the weights of the run in `config.train.init_from`, and notes on them.

    An array is taken where the other run has one of the same path and shape. Token embeddings and the readout are taken
    from a run of the same problem alone, which hands its tokenizer on; the readout of texts where the labels are the
    same.

    Args:
        state: of the new run, before its first step.
        config: of the new run.
        problem: of the new run.

    Raises:
        ConfigError: if there is no such run or checkpoint, or nothing in it fits.
    """
    folder = Path(config.train.init_from).expanduser()
    other = configs.load(folder / "config.json")
    given, step = _weights(folder, other.train.select)
    left_out = _of_another_meaning(folder, other, config, problem)
    taken, new = [], []

    def choose(path: Any, mine: jax.Array) -> jax.Array:
        name = name_of(path)
        theirs = given.get(name)
        if theirs is None or theirs.shape != mine.shape or name.partition(".")[0] in left_out:
            new.append(name)
            return mine
        taken.append(name)
        return jnp.asarray(theirs, mine.dtype)

    params = jax.tree_util.tree_map_with_path(choose, state.params)
    if not taken:
        raise ConfigError(
            f"train.init_from is {str(folder)!r}, whose model has no array in common with this one; expected a run of "
            "the same cell and sizes"
        )
    lines = [f"{len(taken)} of {len(taken) + len(new)} arrays are those of step {step} of {folder}"]
    lines += [f"begun anew: {', '.join(new)}"] if new else []
    average = None if state.average is None else jax.tree.map(jnp.copy, params)
    return state._replace(params=params, average=average), lines


def _weights(folder: Path, select: str) -> tuple[dict[str, Any], int]:
    """Returns the parameters that an evaluation of the run would take, by name, and their step."""
    found = Checkpoints(folder, read_only=True).contents(best=select == "best")
    if found is None:
        raise ConfigError(
            f"train.init_from is {str(folder)!r}, which has no {select!r} checkpoint; expected a run with one"
        )
    parts, step = found
    weights = parts.get("average", parts["params"])
    return {name_of(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(weights)}, step


def _of_another_meaning(folder: Path, other: ConfigDict, config: ConfigDict, problem: Problem) -> set[str]:
    """Returns the parts of a model whose rows mean something else in the new run and so are not taken."""
    left_out = set() if other.problem == config.problem else {"embed", "head"}
    labels = folder / "text" / "labels.json"
    names = getattr(problem, "label_names", None)
    if names is not None and (not labels.exists() or tuple(json.loads(labels.read_text(encoding="utf-8"))) != names):
        left_out.add("head")
    return left_out
