"""The config of a run: reading, writing, comparing. Its keys are in `defaults`, what it must hold in `config_checks`.

A file in configs/ calls `default`, changes what it wants and returns it. Keys and types are fixed: an unknown key, in
a file or on the command line, fails and names the nearest one.
"""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from qlstm_jax.problems.config import ConfigError, get, run_exists
from qlstm_jax.training.defaults import default

__all__ = ["ConfigError", "Differences", "compare", "default", "differences", "get", "load", "run_exists", "save"]


def save(config: ConfigDict, path: Path) -> None:
    """Writes the resolved config as JSON, whole or not at all."""
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.write_text(json.dumps(config.to_dict(), indent=2) + "\n", encoding="utf-8")
    unfinished.replace(path)


def load(path: Path) -> ConfigDict:
    """Reads what `save` wrote.

    Raises:
        ConfigError: if there is none, if it is damaged, or if it has keys of another version.
    """
    if not path.exists():
        raise ConfigError(f"{path} does not exist; expected the folder of a run made by train.py --workdir")
    config = default()
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # no JSON, or no UTF-8
        raise ConfigError(f"{path} is damaged ({error}); bring it back, or train anew in another --workdir") from error
    missing = [key for key in ("problem", "seed", "model", "train") if not isinstance(saved, dict) or key not in saved]
    if missing:
        raise ConfigError(f"{path} has no {missing[0]!r}; expected the whole config of a run, as train.py wrote it")
    try:
        config.update(saved)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        words = " ".join(str(error).split())
        raise ConfigError(f"{path} does not fit this version of qlstm_jax: {words}") from error
    return config


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
    "train.mapping",
    "train.num_devices",
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
    """The differences between the config that a run has and the one that it is to be continued with."""
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


def differences(old: ConfigDict, new: ConfigDict) -> list[str]:
    """The keys in which two configs differ, other than those that may change when a run is continued."""
    return compare(old, new).refused


def _stretched(config: ConfigDict) -> str:
    """What of a run is another one from its start where it has more steps; "" if nothing is."""
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
