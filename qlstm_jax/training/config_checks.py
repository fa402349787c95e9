"""Checks a config before anything is read or written: names, ranges, and keys that fit each other."""

import math

import jax
from flax import nnx
from ml_collections import ConfigDict

from qlstm_jax.models.layers import LAYER_CLASSES, build_layer, layer_options
from qlstm_jax.nnx import Layer
from qlstm_jax.problems import PROBLEMS
from qlstm_jax.problems.config import (
    ConfigError,
    check_lengths,
    check_rules,
    fraction,
    get,
    nearest,
    not_negative,
    one_of,
    positive,
)
from qlstm_jax.stack import REMAT
from qlstm_jax.training.config_settings import flat_keys, no_such_key
from qlstm_jax.training.defaults import default
from qlstm_jax.training.mesh_axes import check_mapping

RULES = {
    "seed": lambda value: None if 0 <= value < 2**32 else f"0 or more, up to {2**32 - 1}",
    "train.steps": positive,
    "train.batch_size": positive,
    "train.optimizer": one_of("adam", "adamw", "adafactor"),
    "train.learning_rate": positive,
    "train.schedule": one_of("constant", "cosine", "linear"),
    "train.warmup_steps": not_negative,
    "train.weight_decay": not_negative,
    "train.clip_norm": positive,
    "train.weight_dropout": fraction,
    "train.average_decay": fraction,
    "train.patience": not_negative,
    "train.log_every": positive,
    "train.eval_every": positive,
    "train.checkpoint_every": positive,
    "train.keep_checkpoints": positive,
    "train.select": one_of("last", "best"),
    "train.accumulate": positive,
    "train.param_dtype": one_of("float32", "bfloat16"),
    "train.mapping": one_of("", "shard_map", "pmap", "jit"),
    "train.num_devices": not_negative,
    "parallel.hosts": one_of("", "auto"),
    "model.num_layers": lambda value: None if value <= 1000 else "at most 1000",
    "model.embedding_size": positive,
    "model.embedding_dropout": fraction,
    "model.dropout": fraction,
    "model.pooling": one_of("last", "mean", "max", "mean_max"),
    "model.readout": one_of("relu", "none"),
    "model.dtype": one_of("float32", "bfloat16"),
    "model.remat": one_of(*REMAT),
    "eval.longest": positive,
    "eval.sequences": positive,
    "eval.stride": positive,
    "eval.tokens": positive,
}


def _check_remat(config: ConfigDict, own_problem: bool) -> None:
    """Raises ConfigError where nothing would be computed again."""
    model = config.model
    if model.remat == "none":
        return
    reason = ""
    if not issubclass(LAYER_CLASSES[model.cell], Layer):
        reason = "only layers of cells are computed again"
    elif model.cell == "pr_lstm" and config.problem == "formal" and not own_problem:
        reason = "of symbols the tree itself computes again: --config.model.pr_lstm.remat=True"
    if reason:
        raise ConfigError(f"model.remat is {model.remat!r} and model.cell {model.cell!r}; expected none: {reason}")


def check(config: ConfigDict, *, own_problem: bool = False) -> list[str]:
    """Checks names and ranges.

    Args:
        config: of a run.
        own_problem: whether the problem is handed over from Python: the config's problem is then not read.

    Returns:
        Notes on keys that were changed but that this run does not use.

    Raises:
        ConfigError: naming the key, what it is and what was expected.
    """
    _check_keys(config, own_problem)
    if not own_problem and config.problem not in PROBLEMS:
        raise ConfigError(f"problem is {config.problem!r}; {nearest(config.problem, PROBLEMS)}")
    if config.model.cell not in LAYER_CLASSES:
        raise ConfigError(f"model.cell is {config.model.cell!r}; {nearest(config.model.cell, LAYER_CLASSES)}")
    check_rules("", config, RULES)
    check_lengths("eval", config.eval)
    for name, problem in PROBLEMS.items():
        check_rules(f"{name}.", config[name], problem.rules)
    _check_remat(config, own_problem)
    _check_layer(config.model)
    if not own_problem:
        PROBLEMS[config.problem].check(config)
        metric, metrics = config.train.select_metric, PROBLEMS[config.problem].validation_metrics
        if metric and metric not in metrics:
            raise ConfigError(f"train.select_metric is {metric!r}; {nearest(metric, metrics)}")
    if config.train.weight_decay and config.train.optimizer != "adamw":
        raise ConfigError(
            f"train.weight_decay is {config.train.weight_decay} and train.optimizer is {config.train.optimizer!r}; "
            "only adamw decays weights: --config.train.optimizer=adamw"
        )
    check_mapping(config.train.mapping, config.parallel.mesh, config.train.num_devices)
    return _unused(config, None if own_problem else config.problem)


def _check_keys(config: ConfigDict, own_problem: bool) -> None:
    """Raises ConfigError unless a config has the keys and types of the default one; an unlocked one may have others.

    A problem of the user's own may have keys of its own.
    """
    plain = default()
    known, given = flat_keys(plain), flat_keys(config)
    for key in known:
        if key not in given:
            raise ConfigError(f"{key} is missing; expected a config made by qlstm_jax.training.config.default()")
        kind, value = type(get(plain, key)), get(config, key)
        fits = isinstance(value, int | float) if kind is float else isinstance(value, kind)
        if not fits or (isinstance(value, bool) and kind is not bool):
            raise ConfigError(f"{key} is {value!r}; expected a value like {get(plain, key)!r}")
        if kind is int and key != "seed" and abs(value) >= 2**31:
            raise ConfigError(f"{key} is {value}; expected an integer of at most 32 bits")
        if kind is float and not math.isfinite(value) and (key, value) != ("train.clip_norm", math.inf):
            raise ConfigError(f"{key} is {value}; expected a finite number")
    for key in given:
        if key not in known and not own_problem:
            raise no_such_key(plain, key)


def _check_layer(model: ConfigDict) -> None:
    """Raises what a layer itself refuses, before anything is read or written; nothing is computed."""
    try:
        jax.eval_shape(lambda: nnx.state(build_layer(model, 1, rngs=nnx.Rngs(0))))
    except ValueError as error:
        # The layer's message begins with the option's name, which may be one of the cell's own section.
        message = str(error).replace("hidden_features", "hidden_size")  # as configs call it
        own = message.split()[0] in model.get(model.cell, {})
        raise ConfigError(f"model.{model.cell}.{message}" if own else f"model.{message}") from error


def _unused(config: ConfigDict, used: str | None) -> list[str]:
    plain = default()
    reason = "the problem is another" if used is None else f"problem is {used!r}"
    notes = [_note(name, config[name], plain[name], reason) for name in PROBLEMS if name != used]
    notes += [
        _note(f"model.{c}", config.model[c], plain.model[c], f"model.cell is {config.model.cell!r}")
        for c in layer_options()
        if c != config.model.cell
    ]
    if config.train.select_metric and config.train.select == "last" and not config.train.patience:
        notes.append("train.select_metric: not used, as train.select is 'last' and train.patience is 0")
    return [n for n in notes if n] + ([] if used is None else PROBLEMS[used].unused(config))


def _note(name: str, given: ConfigDict, plain: ConfigDict, reason: str) -> str:
    changed = [k for k in plain if given[k] != plain[k]]
    return f"{', '.join(f'{name}.{k}' for k in changed)}: not used, as {reason}" if changed else ""
