"""A column of a results table in one word: a cell, and what is changed about its config."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from qlstm_jax import __version__ as VERSION
from qlstm_jax.training import config as configs
from qlstm_jax.training import config_checks, config_settings
from qlstm_jax.training.evaluate import run_name

FILES = (".path", "_path", ".init_from")  # how keys end that name files
TAKEN = {"seed": "--seeds"}  # keys that a grid sets itself, to the flag that says how


@dataclasses.dataclass(frozen=True)
class Variant:
    """A cell with settings that differ from the default config.

    Attributes:
        name: as given, "pr_lstm,refinements=2".
        cell: "pr_lstm".
        settings: dotted keys of the config to their values, {"model.pr_lstm.refinements": 2}.
    """

    name: str
    cell: str
    settings: dict[str, Any]


def parse(text: str) -> Variant:
    """Parses "CELL,key=value,key=value"; CELL may be "pr_lstm:ldru", the tree with another merge.

    A key is one of the cell's own options, of the config's sections model, train and formal, or dotted and whole.

    Raises:
        ConfigError: for a cell or key that does not exist, or a value of another type.
    """
    word, *pairs = text.split(",")
    chosen = configs.cell_settings(word)
    cell = chosen.pop("model.cell")
    taken = dict.fromkeys(("model.cell", *chosen), "the word before the first comma") | TAKEN
    try:
        settings = config_settings.parse(pairs, configs.default(), cell=cell, taken=taken)
    except configs.ConfigError as error:
        raise configs.ConfigError(f"{text!r}: {error}") from error
    return Variant(text, cell, chosen | settings)


def build(task: str, variant: Variant, common: dict[str, Any]) -> ConfigDict:
    """Builds the checked config of a run: the default, changed by `common` (dotted keys), then by the variant.

    Raises:
        ConfigError: for settings that no run can have.
    """
    config = configs.default()
    config.formal.task = task
    return apply(config, variant, common)


def apply(base: ConfigDict, variant: Variant, common: dict[str, Any]) -> ConfigDict:
    """Applies settings as `build` does, to a copy of another config than the default."""
    config = base.copy_and_resolve_references()
    config.model.cell = variant.cell
    config.update_from_flattened_dict(common | variant.settings)
    config_checks.check(config)
    return config


def identity(config: ConfigDict) -> dict[str, Any]:
    """Returns what identifies a run's result: all values that it uses, and the version of the package.

    So a default that is changed makes another run. Left out are the seed and how often the run reports. Files are told
    by their names alone: the folder that they lie in is that of one machine.
    """
    used = (f"{config.problem}.", "train.", "eval.", f"model.{config.model.cell}.")
    keys = [
        k
        for k in config_settings.flat_keys(config)
        if k.startswith(used) or (k.startswith("model.") and k.count(".") == 1)
    ]
    aside = {"formal.task", "train.log_every", "train.checkpoint_every", "train.keep_checkpoints"}
    if config.train.select == "last" and not config.train.patience:  # else it is among these that is chosen
        aside.add("train.eval_every")
    values = {key: configs.get(config, key) for key in keys if key not in aside}
    values |= {key: Path(value).name for key, value in values.items() if key.endswith(FILES)}
    # As a line of results has it when it is read.
    whole: dict[str, Any] = json.loads(json.dumps({"task": run_name(config), "version": VERSION, **values}))
    return whole


def earlier_identity(config: ConfigDict) -> dict[str, Any]:
    """Returns the identity that results had up to version 0.1: the keys that differ from the default of the day."""
    aside = ["seed", "problem", "formal.task", "train.log_every", "train.checkpoint_every", "train.keep_checkpoints"]
    if config.train.select == "last":
        aside.append("train.eval_every")
    plain = configs.default()
    changed = {k: configs.get(config, k) for k in sorted(config_settings.flat_keys(config)) if k not in aside}
    changed |= {k: Path(v).name for k, v in changed.items() if k.endswith(FILES)}
    return {k: v for k, v in changed.items() if v != configs.get(plain, k)} | {"task": run_name(config)}


def is_same_but_for_version(found: dict[str, Any], config: ConfigDict) -> bool:
    """Returns whether a result that another version of the package made names the values of this config."""
    wanted = identity(config)
    if "version" not in found:
        return found == earlier_identity(config)
    return found | {"version": VERSION} == wanted


def fingerprint(settings: dict[str, Any]) -> str:
    """Returns eight letters that differ where the settings do, for the name of a folder."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
