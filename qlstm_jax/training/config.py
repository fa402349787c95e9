"""The config of a run: every key with its default, and the checks that a run makes before it starts.

A file in configs/ calls `default`, changes what it wants and returns it. Keys and types are fixed: an unknown key, in
a file or on the command line, fails and names the nearest one.
"""

import json
from pathlib import Path

from ml_collections import ConfigDict, config_dict

from qlstm_jax import registry
from qlstm_jax.cells import slstm
from qlstm_jax.models import transformer

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
    "eval.sequences",
    "eval.stride",
    "eval.tokens",
    "formal.min_length",
    "recall.num_noise",
    "mqar.num_pairs",
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
    "recall.length",
    "lm.max_bytes",
    "model.pr_lstm.refinements",
    "model.pr_lstm.max_offset",
    "formal.associativity",
)
FRACTIONS = ("formal.curriculum", "model.dropout", "model.embedding_dropout", "text.validation", "text.test")
FRACTIONS += ("lm.validation", "lm.test")


TASK_SECTIONS = ("formal", "recall", "mqar", "text", "lm")


def default() -> ConfigDict:
    """Every key of a run with its default value, locked: keys can be changed but not added."""
    config = config_dict.create(
        task="parity_check",  # a formal language, "recall", "mqar", "text" or "lm"
        seed=0,
        formal=config_dict.create(
            min_length=1,  # training lengths, drawn uniformly
            max_length=40,
            mixed_lengths=True,  # one length for each sequence, or one for each batch as in the paper
            curriculum=0.0,  # share of the steps over which the longest length grows evenly from min to max
            associativity=0.0,  # weight of the penalty of qlstm_jax.cells.pr_lstm_beyond, for pr_lstm
        ),
        recall=config_dict.create(
            length=1024,  # tokens of noise
            num_classes=8,
            num_noise=8,
        ),
        mqar=config_dict.create(
            length=64,  # tokens, pairs and questions together
            num_pairs=4,
            num_keys=64,
            num_values=64,
        ),
        text=config_dict.create(
            path="",  # a csv, tsv or jsonl file, or a folder of class folders
            dataset="",  # or a TFDS name, imdb_reviews; then path may name a local copy, aclImdb or its .tar.gz
            text_column="text",
            label_column="label",
            on_bad_row="error",  # or skip: count and report them
            validation=0.1,  # shares of the rows
            test=0.1,
            split_seed=0,
            tokenizer="word",  # word, bpe or byte
            vocab_size=20000,
            min_frequency=2,
            lowercase=True,
            max_length=256,  # tokens; longer texts are cut
            num_buckets=4,  # lengths that are compiled for
        ),
        lm=config_dict.create(
            path="",  # a file or a folder of text files; "" is the sources of Python's own standard library
            pattern="*.txt",  # a folder: names of its files, at any depth
            max_bytes=0,  # cut after so many bytes; 0: all
            validation=0.05,  # shares of the bytes
            test=0.05,
            split_seed=0,
            tokenizer="byte",  # byte or bpe
            vocab_size=4096,  # bpe
            length=128,  # tokens of a window, through which gradients go back
            validation_tokens=65536,  # at most, of the validation part
        ),
        model=config_dict.create(
            cell="pr_lstm",
            hidden_size=64,
            num_layers=1,
            bidirectional=False,
            dropout=0.0,  # between layers, within a transformer's blocks, and before the readout
            embedding_size=64,  # recall, mqar, text and lm
            embedding_dropout=0.0,
            pooling="last",  # recall and text: last, mean, max or mean_max
            readout="relu",  # formal languages: what acts on h before the last linear map
            dtype="float32",
            **registry.cell_options(),
        ),
        train=config_dict.create(
            steps=1000,
            batch_size=128,  # of all devices together
            optimizer="adam",
            learning_rate=1e-3,
            schedule="constant",
            warmup_steps=0,
            weight_decay=0.0,  # adamw
            clip_norm=1.0,  # of the global norm of the gradient
            log_every=50,
            eval_every=500,
            checkpoint_every=500,
            keep_checkpoints=2,
            select="last",  # which parameters eval.py takes: the last, or the best on validation
            mapping="shard_map",  # or pmap
            num_devices=0,  # 0: all
        ),
        eval=config_dict.create(
            min_length=41,  # formal languages: lengths of the score
            max_length=500,
            stride=1,  # formal languages: every length, or every so many
            sequences=64,  # formal languages: for each length; recall and mqar: in all
            tokens=262144,  # lm: at most, of the test part
        ),
    )
    config.lock()
    return config


class ConfigError(ValueError):
    """A config that cannot be run."""


def get(config, key: str):
    """`config` at a dotted key."""
    for part in key.split("."):
        config = config[part]
    return config


def check(config) -> list[str]:
    """Checks names and ranges.

    Returns:
        Notes on keys that were changed but that this run does not use.

    Raises:
        ConfigError: naming the key, what it is and what was expected.
    """
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
    if config.recall.num_classes < 2:
        raise ConfigError(f"recall.num_classes is {config.recall.num_classes!r}; expected 2 or more")
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
    for key in FRACTIONS:
        if not 0 <= get(config, key) < 1:
            raise ConfigError(f"{key} is {get(config, key)!r}; expected 0 or more and less than 1")
    if config.model.cell == "transformer":
        _check_transformer(config.model)
    for section in ("formal", "eval"):
        low, high = config[section].min_length, config[section].max_length
        if not 1 <= low <= high:
            raise ConfigError(f"{section} lengths are {low}..{high}; expected 1 <= min_length <= max_length")
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
    if config.task == "lm":
        _check_lm(config)
    if config.train.weight_decay and config.train.optimizer != "adamw":
        raise ConfigError(
            f"train.weight_decay is {config.train.weight_decay} and train.optimizer is {config.train.optimizer!r}; "
            "only adamw decays weights: --config.train.optimizer=adamw"
        )
    return _unused(config)


def _check_transformer(model):
    options = {key: model.transformer[key] for key in ("num_heads", "positions")}
    try:
        transformer.check_options(model.hidden_size, bidirectional=model.bidirectional, **options)
    except ValueError as error:
        raise ConfigError(f"model.{error}") from error


def _check_lm(config):
    model, lm = config.model, config.lm
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
    if not (lm.validation > 0 and lm.test > 0 and lm.validation + lm.test < 1):
        raise ConfigError(
            f"lm.validation is {lm.validation} and lm.test {lm.test}; expected both more than 0, and their sum below 1"
        )


def _unused(config) -> list[str]:
    used_section = registry.task_kind(config.task)
    plain = default()
    notes = []
    sections = [(s, config[s], plain[s], f"task is {config.task!r}") for s in TASK_SECTIONS]
    notes += [_note(*s) for s in sections if s[0] != used_section]
    cells = registry.cell_options()
    notes += [
        _note(f"model.{c}", config.model[c], plain.model[c], f"model.cell is {config.model.cell!r}")
        for c in cells
        if c != config.model.cell
    ]
    return [n for n in notes if n]


def _note(name, given, plain, reason):
    changed = [k for k in plain if given[k] != plain[k]]
    return f"{', '.join(f'{name}.{k}' for k in changed)}: not used, as {reason}" if changed else ""


def save(config, path: Path):
    """Writes the resolved config as JSON."""
    path.write_text(json.dumps(config.to_dict(), indent=2) + "\n")


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


MAY_CHANGE = ("train.steps", "train.log_every", "train.eval_every", "train.checkpoint_every", "train.keep_checkpoints")
MAY_CHANGE += ("train.mapping", "train.num_devices", "eval")


def differences(old, new) -> list[str]:
    """The keys in which two configs differ, other than those that may change when a run is continued.

    The number of steps may change only under a constant schedule: the others stretch over all the steps.
    """
    fixed = ("train.steps",) if new.train.schedule != "constant" else ()

    def flat(config, prefix=""):
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
