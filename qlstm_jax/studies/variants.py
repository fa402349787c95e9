"""A column of a results table in one word: a cell, and what is changed about its config."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from qlstm_jax import __version__ as VERSION
from qlstm_jax.models.layers import LAYER_CLASSES
from qlstm_jax.problems.config import nearest
from qlstm_jax.training import config as configs
from qlstm_jax.training import config_checks
from qlstm_jax.training.evaluate import run_name

FILES = (".path", ".init_from")  # how keys end that name files
SECTIONS = ("model", "train", "formal")  # where a key without a dot is looked for, after the cell's own options


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
    """The variant that "CELL,key=value,key=value" names.

    A key is one of the cell's own options, of the config's sections model, train and formal, or dotted and whole.

    Raises:
        ConfigError: for a cell or key that does not exist, or a value of another type.
    """
    cell, *pairs = text.split(",")
    if cell not in LAYER_CLASSES:
        raise configs.ConfigError(f"cell {cell!r} in {text!r}; {nearest(cell, LAYER_CLASSES)}")
    return Variant(text, cell, parse_settings(pairs, cell))


def parse_settings(pairs: list[str], cell: str | None = None) -> dict[str, Any]:
    """["refinements=2", "train.batch_size=32"] as dotted keys and typed values; errors as for `parse`."""
    plain = configs.default()
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise configs.ConfigError(f"{pair!r} has no '='; expected key=value")
        key = _whole(plain, key, cell)
        settings[key] = _typed(configs.get(plain, key), key, value)
    return settings


def build(task: str, variant: Variant, common: dict[str, Any]) -> ConfigDict:
    """The checked config of a run: the default, changed by `common` (dotted keys), then by the variant.

    Raises:
        ConfigError: for settings that no run can have.
    """
    config = configs.default()
    config.formal.task = task
    return apply(config, variant, common)


def apply(base: ConfigDict, variant: Variant, common: dict[str, Any]) -> ConfigDict:
    """`build` on another config than the default, which stays as it is."""
    config = base.copy_and_resolve_references()
    config.model.cell = variant.cell
    config.update_from_flattened_dict(common | variant.settings)
    config_checks.check(config)
    return config


def identity(config: ConfigDict) -> dict[str, Any]:
    """What tells a run's result from any other's: all values that it uses, and the version of the package.

    So a default that is changed makes another run. Left out are the seed and how often the run reports. Files are told
    by their names alone: the folder that they lie in is that of one machine.
    """
    used = (f"{config.problem}.", "train.", "eval.", f"model.{config.model.cell}.")
    keys = [k for k in flat_keys(config) if k.startswith(used) or (k.startswith("model.") and k.count(".") == 1)]
    aside = {"formal.task", "train.log_every", "train.checkpoint_every", "train.keep_checkpoints"}
    if config.train.select == "last" and not config.train.patience:  # else it is among these that is chosen
        aside.add("train.eval_every")
    values = {key: configs.get(config, key) for key in keys if key not in aside}
    values |= {key: Path(value).name for key, value in values.items() if key.endswith(FILES)}
    # As a line of results has it when it is read.
    whole: dict[str, Any] = json.loads(json.dumps({"task": run_name(config), "version": VERSION, **values}))
    return whole


def earlier_identity(config: ConfigDict) -> dict[str, Any]:
    """The identity that results had up to version 0.1: the keys in which a run differs from the default of its day."""
    aside = ["seed", "problem", "formal.task", "train.log_every", "train.checkpoint_every", "train.keep_checkpoints"]
    if config.train.select == "last":
        aside.append("train.eval_every")
    plain = configs.default()
    changed = {k: configs.get(config, k) for k in sorted(flat_keys(config)) if k not in aside}
    changed |= {k: Path(v).name for k, v in changed.items() if k.endswith(FILES)}
    return {k: v for k, v in changed.items() if v != configs.get(plain, k)} | {"task": run_name(config)}


def is_same_but_for_version(found: dict[str, Any], config: ConfigDict) -> bool:
    """Whether a result that another version of the package made names the values of this config."""
    wanted = identity(config)
    if "version" not in found:
        return found == earlier_identity(config)
    return found | {"version": VERSION} == wanted


def fingerprint(settings: dict[str, Any]) -> str:
    """Eight letters that differ where the settings do, for the name of a folder."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]


def flat_keys(config: ConfigDict, prefix: str = "") -> list[str]:
    """The dotted keys of a config."""
    keys: list[str] = []
    for name, value in config.items():
        keys += flat_keys(value, f"{prefix}{name}.") if isinstance(value, ConfigDict) else [prefix + name]
    return keys


def _whole(plain: ConfigDict, key: str, cell: str | None) -> str:
    """The dotted key that a user's key means."""
    keys = flat_keys(plain)
    places = [""] if "." in key else [f"model.{cell}.", *(f"{section}." for section in SECTIONS)]
    for place in places:
        if place + key in keys:
            return place + key
    short = [k.removeprefix(p) for p in places for k in keys if k.startswith(p) and "." not in k.removeprefix(p)]
    raise configs.ConfigError(f"there is no key {key!r}; {nearest(key, keys if '.' in key else short)}")


def _typed(old: Any, key: str, value: str) -> Any:
    """`value` as the type of the default `old`."""
    if isinstance(old, bool):
        if value.lower() not in ("true", "false"):
            raise configs.ConfigError(f"{key} is {value!r}; expected true or false")
        return value.lower() == "true"
    try:
        return type(old)(value)
    except ValueError:
        raise configs.ConfigError(f"{key} is {value!r}; expected a value like {old!r}") from None
