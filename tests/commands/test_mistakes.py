"""What cannot be is told in one line that names what was typed and what was meant, before anything is written."""

import pytest

from qlstm_jax.commands.programs import evaluate, formal, generate, study, train
from tests.commands.calls import mistake
from tests.data.test_files import odd_files

STUDY = ["--config=recall_lstm", "--rows=lstm", "--out=out"]
USAGE = [
    (train, ["parity"], "'parity' is no flag; expected --NAME=VALUE"),
    (train, ["workdir=run"], "'workdir=run' is no flag; did you mean --workdir=run?"),
    (train, ["train.steps=3"], "did you mean --set train.steps=3?"),
    (train, ["--workdir", "run", "again"], "'again' is no flag"),
    (train, ["--wrokdir=run"], "there is no flag --wrokdir; did you mean --workdir?"),
    (train, ["--work=run"], "there is no flag --work; did you mean --workdir?"),
    (train, ["--steps=3"], "there is no flag --steps; did you mean --set train.steps=3?"),
    (train, ["-x"], "expected one of --config, --coordinator, --debug"),
    (train, ["--config"], "argument --config: expected one argument"),
    (
        train,
        ["--config.train.stepz=3"],
        "--config.train.stepz=3: there is no key 'train.stepz'; did you mean 'train.steps'",
    ),
    (train, ["--config.stepz=3"], "--config.stepz=3: there is no key 'stepz'; did you mean 'train.steps'"),
    (train, ["--config.train.steps", "many"], "--config.train.steps=many: train.steps is 'many'; expected an integer"),
    (train, ["--config.train.steps"], "--config.train.steps=true: train.steps is 'true'"),
    (train, ["--config.train=3"], "'train' is a section and no key"),
    (train, ["--noconfig.train.steps"], "train.steps is 'false'"),
    (train, ["--set", "stepz=3"], "--set stepz=3: there is no key 'stepz'; did you mean 'train.steps'"),
    (train, ["--set", "train.steps=3", "again"], "--set again: 'again' has no '='; expected KEY=VALUE"),
    (train, ["--set"], "argument --set: expected at least one argument"),
    (evaluate, ["runs/parity"], "'runs/parity' is no flag"),
    (evaluate, ["--max_lenght=3"], "did you mean --max_length?"),
    (evaluate, ["--config.eval.stride=3"], "there is no flag --config.eval.stride; did you mean --set eval.stride=3?"),
    (evaluate, ["--checkpoint=first"], "invalid choice: 'first' (choose from"),
    (evaluate, ["--max_length=long"], "argument --max_length: invalid int value: 'long'"),
    (evaluate, ["--predict=\udcff"], "--predict is '\\udcff', which holds bytes that are not UTF-8"),
    (generate, ["def"], "'def' is no flag"),
    (generate, ["--promt=def"], "did you mean --prompt?"),
    (generate, ["--prompt=\udcff\udcfe"], "--prompt is '\\udcff\\udcfe', which holds bytes"),
    (study, [*STUDY, "--rosw=gru"], "did you mean --rows?"),
    (study, [*STUDY, "--steps=3"], "did you mean --set train.steps=3?"),
    (
        study,
        [*STUDY, "--set", "recall.lenght=3"],
        "--set recall.lenght=3: there is no key 'recall.lenght'; did you",
    ),
    (study, [*STUDY, "--set=seed=3"], "seed cannot be set here; it is given by --seeds"),
    (study, [*STUDY, "--set=model.cell=gru"], "model.cell cannot be set here; it is given by --rows"),
    (formal, ["parity_check"], "'parity_check' is no flag"),
    (formal, ["--task=parity_check"], "did you mean --tasks?"),
    (formal, ["--set", "hiddensize=3"], "did you mean 'model.hidden_size'"),
    (formal, ["--set", "train.steps=3"], "train.steps cannot be set here; it is given by --steps"),
]
VALUES = [
    (train, ["--config=parity_pr_lstn"], "--config=parity_pr_lstn does not exist; did you mean parity_pr_lstm?"),
    (train, ["--config.train.mapping=pmpa"], "train.mapping is 'pmpa'; did you mean 'pmap'?"),
    (train, ["--set", "seed=-1"], "seed is -1; expected 0 or more, up to 4294967295"),
    (train, ["--set", f"train.batch_size={10**20}"], "expected an integer of at most 32 bits"),
    (train, ["--set", "train.weight_decay=0.1"], "--config.train.optimizer=adamw"),
    (evaluate, ["--workdir=nowhere"], "nowhere/config.json does not exist; expected the folder of a run"),
    (generate, ["--num=0"], "--num is 0; expected 1 or more"),
    (generate, ["--tokens=99999999999"], "--tokens is 99999999999; expected 1 or more, up to"),
    (generate, ["--seed=-1"], "--seed is -1; expected 0 to 4294967295"),
    (study, ["imbd"], "study 'imbd'; did you mean 'imdb'?"),
    (study, [*STUDY[:1], "--out=out", "--rows", "lstm,hiden_size=3"], "did you mean 'model.hidden_size'"),
    (study, [*STUDY, "--columns", "recall.lenght=3"], "column 'recall.lenght=3': there is no key"),
    (study, [*STUDY, "--set=train.weight_decay=0.1"], "--set train.optimizer=adamw"),
    (formal, ["--cells", "lstm,seed=3"], "'lstm,seed=3': seed cannot be set here; it is given by --seeds"),
    (formal, ["--tasks", "parity"], "did you mean 'parity_check'"),
]


@pytest.mark.parametrize(
    ("program", "argv", "part", "code"),
    [(*case, 2) for case in USAGE] + [(*case, 1) for case in VALUES],
    ids=lambda value: " ".join(value).encode("ascii", "replace").decode() if isinstance(value, list) else None,
)
def test_command_lines(program, argv, part, code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line, ended = mistake(program, *argv)
    assert part in line and ended == code
    assert not list(tmp_path.iterdir())


def test_config_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    start = (
        "from qlstm_jax.training import config as configs\nconfig = configs.default()\nget_config = lambda: config\n"
    )
    for source, part in {
        start + "config.train.stepz = 3": "a.py:4: there is no key 'stepz'; did you mean 'steps'?",
        start + "config.train.steps = 'many'": "a.py:4: TypeError: Could not override field 'steps'",
        start + "config.unlock(); config.train.stepz = 3": "no key 'train.stepz'; did you mean 'train.steps'?",
        start + "config.unlock(); config.train.steps = None": "train.steps is None; expected a value like 1000",
        start + "config.unlock(); del config.seed": "seed is missing; expected a config made by",
        "get_config = dict": "a.py: get_config() gives a dict; expected the ConfigDict",
        "def get_config():\n    import no_such_module": "a.py:2: ModuleNotFoundError: No module named 'no_such_module'",
        "\ndef (": "a.py:2: SyntaxError",
    }.items():
        (tmp_path / "a.py").write_text(source)
        line, code = mistake(train, "--config=a.py")
        assert part in line and code == 1
    (tmp_path / "a.py").unlink()
    for path, part in odd_files(tmp_path, ".py").values():
        line, code = mistake(train, f"--config={path}")
        assert str(path) in line and part.partition(" (the")[0] in line and code == 1
    assert not (tmp_path / "runs").exists()


DATA = {
    "text": ("text.path", ".csv", ["--config=reviews_lstm"]),
    "series": ("series.path", ".csv", ["--config=series"]),
    "lm": ("lm.path", "", ["--config=lm", "--set", "lm.tokenizer=bpe"]),
}


@pytest.mark.parametrize("problem", DATA)
def test_data(problem, tmp_path):
    key, suffix, config = DATA[problem]
    odd = odd_files(tmp_path, suffix)
    if problem == "lm":
        del odd["binary"]  # its tokens are bytes
    for path, _ in odd.values():
        line, code = mistake(train, *config, "--set", f"{key}={path}", f"--workdir={tmp_path / 'run'}")
        assert str(path) in line and code == 1
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_line_that_is_too_long_is_named(tmp_path):
    (tmp_path / "long.csv").write_text("a\n1\n" + "1" * 200_000 + "\n")
    line, code = mistake(
        train, "--config=series", f"--set=series.path={tmp_path}/long.csv", f"--workdir={tmp_path}/run"
    )
    assert "long.csv:3" in line and len(line) < 1000 and code == 1


def test_a_class_folder_with_a_pipe(tmp_path):
    for name in ("good", "bad"):
        (tmp_path / "texts" / name).mkdir(parents=True)
        (tmp_path / "texts" / name / "1.txt").write_text(f"{name} film")
    odd_files(tmp_path / "texts" / "bad")["pipe"][0].rename(tmp_path / "texts" / "bad" / "2.txt")
    line, code = mistake(
        train, "--config=reviews_lstm", f"--set=text.path={tmp_path}/texts", f"--workdir={tmp_path}/run"
    )
    assert "bad/2.txt is a named pipe" in line and code == 1


def test_hints_name_the_flag_as_it_is_typed(tmp_path):
    (tmp_path / "a.csv").write_text("the text,label\na film,1\n,2\n")
    command = ["--config=reviews_lstm", f"--set=text.path={tmp_path}/a.csv"]
    line, _ = mistake(train, *command, f"--workdir={tmp_path}/run")
    assert "no column 'text'" in line and line.endswith("did you mean --config.text.text_column='the text'?")
    line, _ = mistake(train, *command, "--set", "text_column=the text", f"--workdir={tmp_path}/run")
    assert "a.csv:3: empty text" in line and "--config.text.on_bad_row=skip leaves" in line
    options = ["--rows=lstm", f"--out={tmp_path}/out", f"--workdir={tmp_path}/runs"]
    line, _ = mistake(study, *command, *options)
    assert line.endswith("did you mean --set text.text_column='the text'?")


def test_workdirs(tmp_path):
    for path, _ in odd_files(tmp_path).values():
        if path.name not in ("folder", "missing", "broken"):
            line, code = mistake(train, f"--workdir={path}")
            assert str(path) in line and code == 1
        line, code = mistake(evaluate, f"--workdir={path}")
        assert str(path) in line and code == 1


def test_folders_of_results(tmp_path):
    for name in ("pipe", "loop", "binary"):
        (tmp_path / name).mkdir()
        path = odd_files(tmp_path / name)[name][0]
        for program, argv in ((study, STUDY[:2]), (formal, ["--tasks=parity_check"])):
            line, code = mistake(program, *argv, f"--out={path}", f"--workdir={tmp_path / 'runs'}")
            assert str(path) in line and code == 1
        if name != "loop":
            path = path.rename(path.with_name("results.jsonl"))
            line, code = mistake(study, "--report_only", f"--out={path.parent}")
            assert str(path) in line and code == 1


def test_damaged_results(tmp_path):
    (tmp_path / "results.jsonl").write_text('{"row": 1}\n{"row": }\n')
    line, code = mistake(study, "--report_only", f"--out={tmp_path}")
    assert "results.jsonl:2: no JSON" in line and code == 1
