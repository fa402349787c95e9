"""The config of a run: reading, writing, comparing. Its keys are in `defaults`, what it must hold in `config_checks`.

A file in configs/ calls `default`, changes what it wants and returns it. Keys and types are fixed: an unknown key, in
a file or on the command line, fails and names the nearest one.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from qlstm_jax.data import files
from qlstm_jax.models.layers import LAYER_CLASSES, layer_options
from qlstm_jax.problems.config import KEEP, ConfigError, get, nearest, run_exists
from qlstm_jax.training.defaults import default

__all__ = [
    "ConfigError",
    "Differences",
    "cell_settings",
    "compare",
    "default",
    "get",
    "load",
    "run_exists",
    "save",
]


def cell_settings(text: str) -> dict[str, Any]:
    """Returns the dotted keys and values of a cell: "lstm", or "pr_lstm:ldru" for a kind of one that has several.

    Raises:
        ConfigError: for a cell that does not exist, or a kind of a cell that has one alone.
    """
    cell, colon, kind = text.partition(":")
    if cell not in LAYER_CLASSES:
        raise ConfigError(f"cell {cell!r} in {text!r}; {nearest(cell, LAYER_CLASSES)}")
    if not colon:
        return {"model.cell": cell}
    several = [name for name, options in layer_options().items() if "cell" in options]
    if cell not in several:
        raise ConfigError(
            f"cell {text!r} names a kind of {cell}; expected {cell!r}: only {', '.join(several)} has kinds"
        )
    return {"model.cell": cell, f"model.{cell}.cell": kind}


def save(config: ConfigDict, path: Path) -> None:
    """Writes the resolved config as JSON, whole or not at all."""
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.write_text(json.dumps(config.to_dict(), indent=2) + "\n", encoding="utf-8")
    unfinished.replace(path)


def load(path: Path) -> ConfigDict:
    """Reads what `save` wrote.

    Raises:
        ConfigError: if there is none, or if it has keys or types of another version.
        DataError: if it is no JSON.
    """
    if not path.exists() and not path.is_symlink():
        raise ConfigError(f"{path} does not exist; expected the folder of a run made by train.py --workdir")
    saved = files.read_json(path, KEEP)
    if not isinstance(saved, dict):
        raise ConfigError(f"{path} holds a {type(saved).__name__} and no config; {KEEP}")
    config = default()
    missing = [key for key in ("problem", "seed", "model", "train") if key not in saved]
    if missing:
        raise ConfigError(f"{path} has no {missing[0]!r}; expected the whole config of a run, as train.py wrote it")
    try:
        config.update(saved)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path} does not fit this version of qlstm_jax: {reason}") from error
    return config


# What of a trained run's config may be changed where the run is read: how it is evaluated, computed and generates, and
# where its data lie, as a problem tells other data from those of training.
CHANGEABLE = (
    "eval",
    "model.dtype",
    "parallel.mesh",
    "text.path",
    "text.train_path",
    "text.validation_path",
    "text.test_path",
    "text.text_column",
    "text.label_column",
    "text.on_bad_row",
    "lm.path",
    "lm.pattern",
    "lm.length",
    "series.path",
    "series.header",
)


def change(config: ConfigDict, settings: Mapping[str, object]) -> None:
    """Changes the config of a trained run.

    Args:
        config: of the run.
        settings: dotted keys to values.

    Raises:
        ConfigError: for a key that training has used up.
    """
    for key in settings:
        if key not in CHANGEABLE and key.partition(".")[0] not in CHANGEABLE:
            raise ConfigError(
                f"--config.{key}: a trained run keeps its {key}; expected one of eval.*, {', '.join(CHANGEABLE[1:])}"
            )
    config.update_from_flattened_dict(dict(settings))


# What a run may be continued with another value of. What stands in COURSE makes its steps others than they would have
# been, the rest does not.
COURSE = ("train.learning_rate",)
MAY_CHANGE = (
    *COURSE,
    "train.steps",
    "train.log_every",
    "train.eval_every",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "train.patience",
    "train.accumulate",
    "model.remat",
    "train.mapping",
    "train.num_devices",
    "parallel.mesh",
    "parallel.hosts",
    "eval",
)


@dataclasses.dataclass(frozen=True)
class Differences:
    """The keys in which a run's config differs from that of the call before, "train.steps: 10 then, 20 now".

    Attributes:
        refused: those in which it must not; a reason follows where it is not plain.
        allowed: those in which it may, but for the evaluation.
        another_course: whether one of these makes the steps others than they would have been.
    """

    refused: list[str] = dataclasses.field(default_factory=list)
    allowed: list[str] = dataclasses.field(default_factory=list)
    another_course: bool = False


def compare(old: ConfigDict, new: ConfigDict) -> Differences:
    """Returns the differences between the config that a run has and the one that it is to be continued with."""
    before, after = dict(_flat(old.to_dict())), dict(_flat(new.to_dict()))
    stretched = _stretched(new)
    result, course = Differences(), False
    for key in before:
        if before[key] == after[key] or key.startswith("eval."):
            continue
        line = f"{key}: {before[key]!r} then, {after[key]!r} now"
        if key == "train.steps" and stretched:
            result.refused.append(f"{line}, but {stretched} stretches over all the steps")
        elif key in MAY_CHANGE:
            result.allowed.append(line)
            course |= key in COURSE
        else:
            result.refused.append(line)
    return dataclasses.replace(result, another_course=course)


def _stretched(config: ConfigDict) -> str:
    """Names the setting by which a run with more steps differs from its start on; "" if none."""
    if config.train.schedule != "constant":
        return f"train.schedule={config.train.schedule}"
    if config.problem == "formal" and config.formal.curriculum:
        return f"formal.curriculum={config.formal.curriculum}"
    return ""


def _flat(config: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
