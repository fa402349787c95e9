"""What a config must hold before anything is read or written: names, ranges, and keys that fit each other."""

import jax
from flax import nnx

from qlstm_jax import registry
from qlstm_jax.cells import slstm
from qlstm_jax.data.checks import check_shares
from qlstm_jax.data.rows import DataError
from qlstm_jax.training.config import ConfigError, get
from qlstm_jax.training.defaults import default

CHOICES = {
    "train.optimizer": ("adam", "adamw"),
    "train.schedule": ("constant", "cosine", "linear"),
    "train.mapping": ("shard_map", "pmap"),
    "train.select": ("last", "best"),
    "model.dtype": ("float32", "bfloat16"),
    "model.pooling": ("last", "mean", "max", "mean_max"),
    "model.readout": ("relu", "none"),
    "text.on_bad_row": ("error", "skip"),
    "text.tokenizer": ("word", "bpe", "byte"),
    "lm.tokenizer": ("byte", "bpe"),
    "digits.mode": ("pixels", "clips"),
    "series.header": ("auto", "yes", "no"),
    "series.loss": ("gaussian", "point"),
    "model.ql_lstm.sharing": ("full", "gates", "none"),
    "model.slstm.forget_gate": slstm.FORGET_GATES,
    "model.pr_lstm.cell": ("lstm", "rnn"),
    "model.pr_lstm.norm": ("none", "rms"),
    "model.pr_lstm.value_init": ("paper", "identity"),
    "model.transformer.positions": ("none", "sinusoidal", "rotary", "alibi"),
}
POSITIVE = (
    "train.steps",
    "train.batch_size",
    "train.log_every",
    "train.eval_every",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "train.learning_rate",
    "train.clip_norm",
    "model.hidden_size",
    "model.num_layers",
    "model.embedding_size",
    "eval.longest",
    "eval.sequences",
    "eval.stride",
    "eval.tokens",
    "formal.min_length",
    "recall.num_noise",
    "mqar.num_pairs",
    "copy.num_symbols",
    "digits.frames",
    "series.context",
    "series.horizon",
    "text.vocab_size",
    "text.min_frequency",
    "text.max_length",
    "text.num_buckets",
    "lm.vocab_size",
    "lm.length",
    "lm.validation_tokens",
    "model.ql_lstm.block_size",
    "model.ql_lstm.epsilon",
    "model.slstm.num_heads",
    "model.mlstm.num_heads",
    "model.mlstm.chunk_size",
    "model.transformer.num_heads",
    "model.transformer.feedforward",
)
NOT_NEGATIVE = (
    "seed",
    "train.warmup_steps",
    "train.weight_decay",
    "train.num_devices",
    "train.patience",
    "recall.length",
    "copy.length",
    "digits.split_seed",
    "digits.speed",
    "series.period",
    "lm.max_bytes",
    "lm.restart",
    "model.pr_lstm.refinements",
    "model.pr_lstm.max_offset",
    "formal.associativity",
)
AT_LEAST = {"recall.num_classes": 2, "adding.length": 2, "copy.alphabet": 2, "digits.canvas": 9}
FRACTIONS = (
    "formal.curriculum",
    "text.label_smoothing",
    "train.average_decay",
    "train.weight_dropout",
    "model.dropout",
    "model.embedding_dropout",
    "text.validation",
    "text.test",
)
FRACTIONS += tuple(f"{section}.{part}" for section in ("lm", "digits", "series") for part in ("validation", "test"))


def check(config) -> list[str]:
    """Checks names and ranges.

    Returns:
        Notes on keys that were changed but that this run does not use.

    Raises:
        ConfigError: naming the key, what it is and what was expected.
    """
    _check_names_and_ranges(config)
    _check_layer(config.model)
    _check_task(config)
    if config.train.weight_decay and config.train.optimizer != "adamw":
        raise ConfigError(
            f"train.weight_decay is {config.train.weight_decay} and train.optimizer is {config.train.optimizer!r}; "
            "only adamw decays weights: --config.train.optimizer=adamw"
        )
    return _unused(config)


def _check_names_and_ranges(config):
    names = registry.task_names()
    if config.task not in names:
        raise ConfigError(f"task is {config.task!r}; {registry.nearest(config.task, names)}")
    if config.model.cell not in registry.CELLS:
        raise ConfigError(f"model.cell is {config.model.cell!r}; {registry.nearest(config.model.cell, registry.CELLS)}")
    for key, choices in CHOICES.items():
        if get(config, key) not in choices:
            raise ConfigError(f"{key} is {get(config, key)!r}; {registry.nearest(get(config, key), choices)}")
    for key in POSITIVE:
        if not get(config, key) > 0:
            raise ConfigError(f"{key} is {get(config, key)!r}; expected more than 0")
    for key in NOT_NEGATIVE:
        if not get(config, key) >= 0:
            raise ConfigError(f"{key} is {get(config, key)!r}; expected 0 or more")
    for key, least in AT_LEAST.items():
        if get(config, key) < least:
            raise ConfigError(f"{key} is {get(config, key)!r}; expected {least} or more")
    for key in FRACTIONS:
        if not 0 <= get(config, key) < 1:
            raise ConfigError(f"{key} is {get(config, key)!r}; expected 0 or more and less than 1")
    for section in ("formal", "eval"):
        low, high = config[section].min_length, config[section].max_length
        if not 1 <= low <= high:
            raise ConfigError(f"{section} lengths are {low}..{high}; expected 1 <= min_length <= max_length")


def _check_task(config):
    if not (config.mqar.num_pairs <= config.mqar.num_keys and config.mqar.num_values >= 2):
        raise ConfigError(
            f"mqar.num_keys is {config.mqar.num_keys} and mqar.num_values {config.mqar.num_values}; expected at least "
            f"mqar.num_pairs={config.mqar.num_pairs} keys, and 2 values"
        )
    if config.mqar.length < 3 * config.mqar.num_pairs:
        raise ConfigError(
            f"mqar.length is {config.mqar.length}; expected at least {3 * config.mqar.num_pairs}, room for "
            f"{config.mqar.num_pairs} pairs and as many questions"
        )
    if config.formal.associativity and (config.model.cell != "pr_lstm" or config.model.bidirectional):
        raise ConfigError(
            f"formal.associativity is {config.formal.associativity}, but only a pr_lstm that reads forward has such a "
            "penalty: --config.model.cell=pr_lstm, or --config.formal.associativity=0"
        )
    if config.task == "text" and not (config.text.path or config.text.dataset):
        raise ConfigError(
            "text.path is '' and text.dataset is ''; expected --config.text.path=FILE for a file or folder of your "
            "own, --config.text.dataset=imdb_reviews, or both for a local copy of that dataset"
        )
    if config.task == "series" and not config.series.path:
        raise ConfigError("series.path is ''; expected --config.series.path=FILE, a csv file with a row for each time")
    if config.task == "lm":
        _check_lm(config)
    if config.task in ("lm", "digits", "series"):
        _check_shares(config.task, config[config.task])


def _check_layer(model):
    """What a layer refuses is refused before anything is read or written; nothing is computed."""
    try:
        jax.eval_shape(lambda: nnx.state(registry.build_layer(model, 1, rngs=nnx.Rngs(0))))
    except ValueError as error:
        # The layer's message begins with the option's name, which may be one of the cell's own section.
        own = str(error).split()[0] in model.get(model.cell, {})
        raise ConfigError(f"model.{model.cell}.{error}" if own else f"model.{error}") from error


def _check_lm(config):
    model = config.model
    if model.bidirectional:
        raise ConfigError("model.bidirectional is True; expected False: a language model must not see what it predicts")
    if model.cell == "transformer" and not model.transformer.causal:
        raise ConfigError(
            "model.transformer.causal is False; expected True: a language model must not see what it predicts "
            "(--config.model.transformer.causal=True)"
        )
    if model.cell == "pr_lstm" and model.pr_lstm.max_offset:
        raise ConfigError(
            f"model.pr_lstm.max_offset is {model.pr_lstm.max_offset}; expected 0: a tree that began before its first "
            "token has no carry for the next window"
        )


def _check_shares(name, section):
    try:
        check_shares(section.validation, section.test, section=f"{name}.")
    except DataError as error:
        raise ConfigError(str(error)) from error


def _unused(config) -> list[str]:
    used_section = registry.task_kind(config.task)
    plain = default()
    notes = []
    sections = [(s, config[s], plain[s], f"task is {config.task!r}") for s in registry.SECTIONS]
    notes += [_note(*s) for s in sections if s[0] != used_section]
    cells = registry.cell_options()
    notes += [
        _note(f"model.{c}", config.model[c], plain.model[c], f"model.cell is {config.model.cell!r}")
        for c in cells
        if c != config.model.cell
    ]
    if config.task == "lm" and config.lm.restart and config.model.cell == "transformer":
        notes.append("lm.restart: not used, as model.cell is 'transformer', which has no carry")
    return [n for n in notes if n]


def _note(name, given, plain, reason):
    changed = [k for k in plain if given[k] != plain[k]]
    return f"{', '.join(f'{name}.{k}' for k in changed)}: not used, as {reason}" if changed else ""
