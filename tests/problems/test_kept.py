"""Files that a run keeps: damaged or changed ones are told in one line."""

import json

import pytest

from qlstm_jax.data.rows import DataError
from qlstm_jax.data.tokenizer import Tokenizer
from qlstm_jax.problems import TextProblem
from qlstm_jax.training import config as configs
from tests.training.conftest import tiny, write_reviews


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run of texts before its first step."""
    folder = tmp_path_factory.mktemp("run")
    config = tiny("text", text__path=str(write_reviews(folder / "reviews.tsv")))
    TextProblem(config, folder)
    configs.save(config, folder / "config.json")
    return folder


def swapped(text):
    content = json.loads(text)
    names = content if isinstance(content, list) else content["vocab"]
    names[-1], names[-2] = names[-2], names[-1]
    return json.dumps(content)


CHANGES = {
    ("labels.json", lambda text: text[:5], "is damaged"),
    ("labels.json", lambda text: "{}", "holds no list of different names"),
    ("labels.json", lambda text: '["good", "good"]', "holds no list of different names"),
    ("labels.json", swapped, "the run was trained with bad, good in that order"),
    ("texts.json", lambda text: text[:50], "is damaged"),
    ("texts.json", lambda text: "[]", "holds no record of each part"),
    ("texts.json", lambda text: text.replace("sha256", "sha"), "is damaged"),
    ("tokenizer.json", lambda text: text[:50], "is no tokenizer"),
    ("tokenizer.json", lambda text: text.replace('"vocab"', '"words"'), "is damaged"),
    ("tokenizer.json", lambda text: text.replace("\"kind\": \"word\"", "\"kind\": \"letter\""), "kind of tokenizer is"),
    ("tokenizer.json", swapped, "was changed after it was written"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "change", "message"), sorted(CHANGES, key=lambda c: (c[0], c[2])))
def test_a_damaged_file_is_told_in_one_line(name, change, message, run):
    path = run / "text" / name
    before = path.read_text()
    path.write_text(change(before))
    try:
        with pytest.raises(DataError, match=message) as caught:
            _ = TextProblem(configs.load(run / "config.json"), run).parts
    finally:
        path.write_text(before)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_a_tokenizer_of_an_earlier_version_is_read(tmp_path):
    tokenizer = Tokenizer.train(["a fine film", "a dull film"], min_frequency=1)
    tokenizer.save(tmp_path / "tokenizer.json")
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    del content["sha256"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    assert Tokenizer.load(tmp_path / "tokenizer.json") == tokenizer
