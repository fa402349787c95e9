"""A small dataset, prepared as TFDS does it, is read by name; TensorFlow is not installed for these tests."""

import numpy as np
import pytest

from qlstm_jax.data import corpus, tfds_corpus
from qlstm_jax.data.rows import DataError

tfds = pytest.importorskip("tensorflow_datasets")
TEXTS = {"train": ["one ☃", "two\n"], "validation": ["three"], "test": ["four", ""]}


def prepare(data_dir, texts, name="snow", file_format="array_record"):
    """A dataset with a text and a number in each example."""

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = data_dir

        def _info(self):
            features = tfds.features.FeaturesDict(
                {"text": tfds.features.Text(), "number": tfds.features.Scalar(np.int32)}
            )
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {part: self._generate_examples(rows) for part, rows in texts.items()}

        def _generate_examples(self, rows):
            for number, row in enumerate(rows):
                yield number, {"text": row, "number": number}

    Builder.name = name
    Builder(data_dir=data_dir, file_format=file_format).download_and_prepare(file_format=file_format)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """A folder of two datasets: one with all three parts, one with one."""
    folder = tmp_path_factory.mktemp("datasets")
    prepare(folder, TEXTS)
    prepare(folder, {"train": ["abcdefghij" * 10]}, name="bare")
    return folder


def test_a_dataset_has_its_own_parts(data_dir):
    found = tfds_corpus.load("snow", data_dir=data_dir)
    assert found.source == "snow/1.0.0 of TFDS"
    parts = corpus.split(found, validation=0.3, test=0.3, seed=0)
    # TFDS shuffles the examples of a part, always alike; an empty text is a line of its own.
    assert {part: sorted(texts) for part, texts in parts.items()} == {
        "train": ["one ☃\n".encode(), b"two\n"],
        "validation": [b"three\n"],
        "test": [b"\n", b"four\n"],
    }
    assert tfds_corpus.load("snow:1.0.0", data_dir=data_dir).record() == found.record()


def test_no_more_is_read_than_wanted(data_dir):
    found = tfds_corpus.load("snow", data_dir=data_dir, max_bytes=3)
    parts = corpus.split(found, validation=0.3, test=0.3, seed=0)
    assert parts["validation"] == [b"thr"]
    assert all(0 < sum(map(len, texts)) <= 3 for texts in parts.values())


def test_a_dataset_without_parts_is_split_by_shares(data_dir):
    found = tfds_corpus.load("bare", data_dir=data_dir)
    parts = corpus.split(found, validation=0.1, test=0.2, seed=0)
    assert [len(b"".join(parts[part])) for part in ("train", "validation", "test")] == [70, 10, 21]


def test_mistakes(data_dir):
    with pytest.raises(DataError, match=r"no dataset 'tiny_shakespear'; did you mean 'tiny_shakespeare'"):
        tfds_corpus.load("tiny_shakespear", data_dir=data_dir)
    with pytest.raises(DataError, match=r"snow has no feature 'txt'; give one of .*text.*\(--config.lm.feature=NAME\)"):
        tfds_corpus.load("snow", data_dir=data_dir, feature="txt")
    with pytest.raises(DataError, match=r"'number' holds int, no text"):
        tfds_corpus.load("snow", data_dir=data_dir, feature="number")


def test_what_cannot_be_prepared_here(data_dir, monkeypatch):
    def no_network(*_):
        raise OSError("no network")

    monkeypatch.setattr(tfds.download.DownloadManager, "download", no_network)
    with pytest.raises(DataError, match=r"tiny_shakespeare could not be prepared .*no network.*tfds build .*lm.path"):
        tfds_corpus.load("tiny_shakespeare", data_dir=data_dir)
    monkeypatch.setattr(tfds.download.DownloadManager, "download", lambda *_: "input.txt")
    with pytest.raises(DataError, match=r"is not in .*its builder wants .*tensorflow.*tfds build"):
        tfds_corpus.load("tiny_shakespeare", data_dir=data_dir)


def test_a_run_reads_it_by_name(data_dir, tmp_path):
    from qlstm_jax import problems
    from qlstm_jax.training import config as configs

    config = configs.default()
    config.problem, config.lm.dataset, config.lm.path = "lm", "snow", str(data_dir)
    config.lm.length = config.train.batch_size = 1
    problem = problems.make(config, tmp_path)
    assert problem.corpus.source == "snow/1.0.0 of TFDS" and len(problem.tokens["test"]) == 6
