from pathlib import Path

import pytest

from qlstm_jax.data.formal import TASKS
from qlstm_jax.data.rows import DataError
from qlstm_jax.models.layers import LAYER_CLASSES
from qlstm_jax.problems import PROBLEMS
from qlstm_jax.problems.config import fraction, not_negative, positive
from qlstm_jax.training import config as configs
from qlstm_jax.training import config_checks, config_files
from qlstm_jax.training.config import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs"
FILES = sorted(p.stem for p in CONFIGS.glob("*.py") if p.stem != "__init__")


def changed(**changes):
    config = configs.default()
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in changes.items()})
    return config


@pytest.mark.parametrize("cell", LAYER_CLASSES)
def test_default_is_valid_for_every_task_and_cell(cell):
    for task in TASKS:
        assert config_checks.check(changed(formal__task=task, model__cell=cell)) == []
    assert config_checks.check(changed(problem="recall", model__cell=cell)) == []
    assert config_checks.check(changed(problem="text", text__path="a.tsv", model__cell=cell)) == []


def test_defaults_do_not_share_state():
    configs.default().model.ql_lstm.block_size = 7
    assert configs.default().model.ql_lstm.block_size != 7


def test_unknown_key_names_the_nearest():
    with pytest.raises(AttributeError, match="steps"):
        configs.default().train.stepz = 3


@pytest.mark.parametrize(
    ("key", "value"), [("train__steps", "many"), ("model__skipp", True), ("train__batch_size", 1.5)]
)
def test_ill_typed_or_unknown_value_is_refused(key, value):
    with pytest.raises((TypeError, KeyError, AttributeError)):
        changed(**{key: value})


RULES = config_checks.RULES | {
    f"{name}.{key}": rule for name, problem in PROBLEMS.items() for key, rule in problem.rules.items()
}
OUT_OF_RANGE = [
    *[(key, 0, "more than 0") for key, rule in RULES.items() if rule is positive],
    *[(key, -1, "0 or more") for key, rule in RULES.items() if rule is not_negative],
    *[(key, value, "less than 1") for key, rule in RULES.items() if rule is fraction for value in (1.0, -0.1)],
    *[(key, "nothing", "expected one of") for key in RULES if isinstance(configs.get(configs.default(), key), str)],
    ("recall.num_classes", 1, "2 or more"),
    ("adding.length", 1, "2 or more"),
    ("copying.alphabet", 1, "2 or more"),
    ("digits.canvas", 8, "9 or more"),
    ("model.hidden_size", 0, "expected a positive integer"),
    ("model.num_layers", 0, "expected a positive integer"),
    ("model.pr_lstm.refinements", -1, "expected an integer, 0 or more"),
    ("model.pr_lstm.max_offset", -1, "expected an integer, 0 or more"),
    ("train.learning_rate", float("nan"), "a finite number"),
    ("train.learning_rate", float("inf"), "a finite number"),
    ("model.ql_lstm.forget_bias", float("nan"), "a finite number"),
    ("train.steps", 2**31, "at most 32 bits"),
    ("model.num_layers", 2**31 - 1, "at most 1000"),
    ("seed", 2**32, "up to 4294967295"),
]


@pytest.mark.parametrize(("key", "value", "expected"), OUT_OF_RANGE)
def test_range_check_names_key_value_and_expectation(key, value, expected):
    config = configs.default()
    value = float(value) if isinstance(configs.get(config, key), float) else value
    config.update_from_flattened_dict({key: value})
    with pytest.raises(ConfigError) as caught:
        config_checks.check(config)
    for part in (key, repr(value), expected):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"formal__task": "parity"}, ["formal.task is 'parity'", "did you mean 'parity_check'"]),
        ({"problem": "recal"}, ["problem is 'recal'", "did you mean 'recall'"]),
        ({"model__cell": "qllstm"}, ["model.cell", "did you mean 'ql_lstm'"]),
        ({"train__schedule": "cosin"}, ["train.schedule", "did you mean 'cosine'"]),
        ({"formal__min_length": 50}, ["formal lengths are 50..40", "min_length <= max_length"]),
        ({"formal__min_length": 0}, ["formal.min_length is 0", "more than 0"]),
        ({"eval__min_length": 0}, ["eval lengths are 0..500"]),
        ({"eval__max_length": 40}, ["eval lengths are 41..40"]),
        ({"problem": "text"}, ["text.path is ''", "--config.text.path=FILE"]),
        (
            {"model__cell": "transformer", "model__bidirectional": True},
            ["model.bidirectional is True", "expected False"],
        ),
        (
            {"model__cell": "transformer", "model__hidden_size": 12},
            ["model.hidden_size is 12", "a multiple of 8, as num_heads is 4, and rotary"],
        ),
        (
            {"model__cell": "lstm", "model__lstm__chrono": 2},
            ["model.lstm.chrono is 2; expected the longest"],
        ),
        (
            {"model__cell": "ql_lstm", "model__ql_lstm__chrono": 9, "model__ql_lstm__forget_bias": 2.0},
            ["model.ql_lstm.chrono is 9 and forget_bias 2.0"],
        ),
        ({"train__select_metric": "los"}, ["train.select_metric is 'los'", "expected one of accuracy"]),
        ({"train__weight_decay": 0.1}, ["train.weight_decay is 0.1", "--config.train.optimizer=adamw"]),
    ],
)
def test_what_does_not_fit_together(changes, parts):
    with pytest.raises(ConfigError) as caught:
        config_checks.check(changed(**changes))
    for part in parts:
        assert part in str(caught.value)


def test_decay_is_allowed_with_adamw():
    assert config_checks.check(changed(train__weight_decay=0.1, train__optimizer="adamw")) == []


def test_notes_on_what_is_not_used():
    notes = config_checks.check(changed(recall__length=9, text__vocab_size=50, model__ql_lstm__block_size=8))
    assert notes == [
        "recall.length: not used, as problem is 'formal'",
        "text.vocab_size: not used, as problem is 'formal'",
        "model.ql_lstm.block_size: not used, as model.cell is 'pr_lstm'",
    ]
    assert config_checks.check(changed(problem="recall", recall__length=9)) == []
    attention = {"model__cell": "transformer", "model__transformer__causal": True, "lm__restart": 4}
    assert config_checks.check(changed(problem="lm", **attention)) == [
        "lm.restart: not used, as model.cell is 'transformer', which has no carry"
    ]


def test_save_and_load(tmp_path):
    config = changed(train__steps=3, model__ql_lstm__epsilon=0.5, text__path="á.tsv", train__learning_rate=2e-4)
    configs.save(config, tmp_path / "config.json")
    loaded = configs.load(tmp_path / "config.json")
    assert loaded.to_dict() == config.to_dict()
    assert loaded.is_locked
    with pytest.raises(ConfigError, match=r"none\.json does not exist; expected the folder of a run"):
        configs.load(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:300], r"config\.json:20: no JSON .*the file is damaged; bring the run's own file back"),
        (lambda text: text.replace("formal", "f\udcff", 1), "not UTF-8"),
        (lambda text: "[]", "holds a list and no config"),
        (lambda text: "", r"config\.json:1: no JSON \(Expecting value\)"),
        (lambda text: "\0\0", r"config\.json:1: a zero byte"),
        (lambda text: "{}", "has no 'problem'; expected the whole config"),
        (lambda text: '{"problem": "lm", "seed": 0, "model": {}, "train": 3}', "does not fit this version"),
        (lambda text: text.replace('"model"', '"modle"', 1), "has no 'model'"),
        (lambda text: text.replace('"steps"', '"stepz"', 1), "does not fit this version"),
        (lambda text: text.replace('"hidden_size": 64', '"hidden_size": "many"', 1), "does not fit this version"),
    ],
)
def test_a_damaged_config_is_told_in_one_line(change, message, tmp_path):
    path = tmp_path / "config.json"
    configs.save(configs.default(), path)
    path.write_bytes(change(path.read_text()).encode(errors="surrogateescape"))
    with pytest.raises((ConfigError, DataError), match=message) as caught:
        configs.load(path)
    assert "\n" not in str(caught.value)


def test_differences():
    old = configs.default()
    assert configs.compare(old, changed(train__steps=9, train__mapping="pmap", eval__max_length=77)).refused == []
    assert configs.compare(old, changed(seed=1)).refused == ["seed: 0 then, 1 now"]
    nested = configs.compare(old, changed(model__pr_lstm__refinements=2)).refused
    assert nested == ["model.pr_lstm.refinements: 1 then, 2 now"]
    allowed = configs.compare(old, changed(train__learning_rate=0.5, eval__max_length=77))
    assert allowed.allowed == ["train.learning_rate: 0.001 then, 0.5 now"] and allowed.another_course
    assert not configs.compare(old, changed(train__steps=9)).another_course
    # A schedule stretches over all the steps, so that more of them are another schedule from the start.
    old, new = (changed(train__schedule="cosine", train__steps=n) for n in (10, 20))
    reason = "but train.schedule=cosine stretches over all the steps"
    assert configs.compare(old, new).refused == [f"train.steps: 10 then, 20 now, {reason}"]
    old, new = (changed(formal__curriculum=0.5, train__steps=n) for n in (10, 20))
    assert "formal.curriculum=0.5 stretches" in configs.compare(old, new).refused[0]


def load_file(name, argument=""):
    """As --config of train.py reads it, which hands what follows a colon to get_config."""
    return config_files.load(f"{CONFIGS / name}.py" + (f":{argument}" if argument else ""))


@pytest.mark.parametrize("name", FILES)
def test_config_file_is_valid(name):
    config = load_file(name)
    if config.problem == "text" and not config.text.dataset:
        config.text.path = "reviews.tsv"
    assert config_checks.check(config) == []
    assert config.keys() == configs.default().keys()
    assert config.is_locked


@pytest.mark.parametrize("argument", ["parity_check,ql_lstm", "reverse_string,lstm", "bucket_sort,gru"])
def test_formal_config_takes_task_and_cell(argument):
    config = load_file("formal", argument)
    assert [config.formal.task, config.model.cell] == argument.split(",")
    assert config_checks.check(config) == []


def test_compared_runs_differ_in_the_cell_and_its_options_alone():
    pairs = [(load_file("recall_ql_lstm"), load_file("recall_lstm"))]
    pairs += [(load_file("imdb", "ql_lstm"), load_file("imdb", cell)) for cell in ("lstm", "gru")]
    for one, other in pairs:
        differing = configs.compare(one, other).refused
        keys = [line.split(":")[0] for line in differing]
        assert [key for key in keys if not key.startswith("model.ql_lstm.")] == ["model.cell"]
