import pytest

from qlstm_jax.models.layers import LAYER_CLASSES
from qlstm_jax.problems import PROBLEMS
from qlstm_jax.training import config as configs
from qlstm_jax.training import config_checks, config_settings
from qlstm_jax.training.config import ConfigError


def test_keys_are_whole_or_the_last_word():
    pairs = ["seed=3", "refinements=2", "steps=5", "hidden_size=8", "task=even_pairs", "text.path=a=b", "steps=7"]
    assert config_settings.parse(pairs, configs.default(), cell="pr_lstm") == {
        "seed": 3,
        "model.pr_lstm.refinements": 2,
        "train.steps": 7,
        "model.hidden_size": 8,
        "formal.task": "even_pairs",
        "text.path": "a=b",
    }
    base = configs.default()
    base.problem = "recall"
    assert config_settings.parse(["length=5"], base) == {"recall.length": 5}


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("steps", "has no '='; expected KEY=VALUE"),
        ("train.stepz=1", "no key 'train.stepz'; did you mean 'train.steps'"),
        ("stepz=1", "did you mean 'train.steps'"),
        ("traim.steps=1", "did you mean 'train.steps'"),
        ("model.batchsize=1", "did you mean 'train.batch_size'"),
        ("model.steps=1", "did you mean 'train.steps'"),
        ("train.qqqq=1", "expected one of train.accumulate, train.average_decay"),
        ("qqqq.qqqq=1", "expected SECTION.KEY, a section being one of adding, .*formal"),
        ("train=1", "'train' is a section and no key; expected one of train"),
        ("=1", "there is no key ''"),
        ("steps=", "train.steps is ''; expected an integer, such as 1000"),
        ("steps=1.5", "train.steps is '1.5'; expected an integer"),
        ("learning_rate=fast", "expected a number, such as 0.001"),
        ("bidirectional=yes", "expected true or false"),
        ("seed=1", "seed cannot be set here; it is given by --seeds"),
    ],
)
def test_mistakes_name_what_was_meant(pair, message):
    with pytest.raises(ConfigError, match=message):
        config_settings.parse([pair], configs.default(), taken={"seed": "--seeds"})


def test_odd_values_of_every_key_are_refused_or_can_be():
    """Whatever is typed, what is said of it is a ConfigError."""
    refused = 0
    for key in config_settings.flat_keys(configs.default()):
        for value in ("", "nan", "-2147483648", "2147483647"):
            config = configs.default()
            section, *rest = key.split(".")
            if section in PROBLEMS:
                config.problem = section
            if section == "model" and rest[0] in LAYER_CLASSES:
                config.model.cell = rest[0]
            try:
                config.update_from_flattened_dict(config_settings.parse([f"{key}={value}"], config))
                config_checks.check(config)
            except ConfigError as error:
                refused += 1
                assert str(error)
            else:
                assert value != "nan" or not isinstance(configs.get(config, key), float), key
    assert refused > 300


def test_types_that_no_key_of_the_default_has():
    assert config_settings.typed((1, 2), "own.sizes", "(3,)") == (3,)
    assert config_settings.typed(None, "own.limit", "3") == 3
    assert config_settings.typed(None, "own.limit", "None") is None
    for value in ("3", "[3", "__import__('os')"):
        with pytest.raises(ConfigError, match=r"own\.sizes is .*; expected a tuple, such as \(1, 2\)"):
            config_settings.typed((1, 2), "own.sizes", value)
