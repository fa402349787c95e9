"""The config of a run: reading, writing, comparing. Its keys are in `defaults`, what it must hold in `config_checks`.

A file in configs/ calls `default`, changes what it wants and returns it. Keys and types are fixed: an unknown key, in
a file or on the command line, fails and names the nearest one.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from qlstm_jax.problems.config import ConfigError, get, run_exists
from qlstm_jax.training.defaults import default

__all__ = ["ConfigError", "default", "differences", "get", "load", "run_exists", "save"]


def save(config: ConfigDict, path: Path) -> None:
    """Writes the resolved config as JSON, whole or not at all."""
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.write_text(json.dumps(config.to_dict(), indent=2) + "\n")
    unfinished.replace(path)


def load(path: Path) -> ConfigDict:
    """Reads what `save` wrote.

    Raises:
        ConfigError: if there is none, or if it has keys of another version.
    """
    if not path.exists():
        raise ConfigError(f"{path} does not exist; expected the folder of a run made by train.py --workdir")
    config = default()
    try:
        config.update(json.loads(path.read_text()))
    except (KeyError, TypeError) as error:
        raise ConfigError(f"{path} does not fit this version of qlstm_jax: {error}") from error
    return config


MAY_CHANGE = (
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


def differences(old: ConfigDict, new: ConfigDict) -> list[str]:
    """The keys in which two configs differ, other than those that may change when a run is continued.

    The number of steps may change only under a constant schedule: the others stretch over all the steps.
    """
    fixed = ("train.steps",) if new.train.schedule != "constant" else ()

    def flat(config: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
        for key, value in config.items():
            name = prefix + key
            if name in MAY_CHANGE and name not in fixed:
                continue
            if isinstance(value, dict):
                yield from flat(value, name + ".")
            else:
                yield name, value

    before, after = dict(flat(old.to_dict())), dict(flat(new.to_dict()))
    return [f"{k}: {before[k]!r} then, {after[k]!r} now" for k in before if before[k] != after[k]]
