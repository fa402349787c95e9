import functools
import http.server
import json
import subprocess
import sys
import tarfile
import textwrap
import threading
import time

import pytest

from qlstm_jax.data import imdb, text
from qlstm_jax.data.imdb import load_imdb
from qlstm_jax.data.text import DataError
from tests.data.imdb_copies import DOCUMENTS, expected, make_archive, make_folder, rows


@pytest.mark.parametrize("make", [make_folder, make_archive])
@pytest.mark.parametrize("split", ["train", "test"])
def test_local_copy(tmp_path, make, split):
    examples = load_imdb(split, path=make(tmp_path))
    assert rows(examples) == expected(split)
    assert examples.label_names == ("neg", "pos")
    assert examples.report.skipped == ({"unlabelled (unsup)": 3} if split == "train" else {})
    assert examples.report.rows == (9 if split == "train" else 6)


FILMS = {
    "aclImdb/train/urls_neg.txt": [7, 8, 9],
    "aclImdb/train/urls_pos.txt": [7, 10, 11],
}


@pytest.mark.parametrize("kind", ["folder", "archive"])
def test_reviews_of_one_film_are_one_group(tmp_path, kind):
    """Line n, from 0, of urls_LABEL.txt is the page of the film that the review in n_RATING.txt is about."""
    root = make_folder(tmp_path)
    for name, films in FILMS.items():
        lines = [f"http://www.imdb.com/title/tt{film:07}/usercomments" for film in films]
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    if kind == "archive":
        path = tmp_path / "copy.tar.xz"
        with tarfile.open(path, "w:xz") as archive:
            archive.add(root, "aclImdb")
        root = path
    examples = load_imdb("train", path=root)
    assert rows(examples) == expected("train")
    assert examples.groups == tuple(f"tt{film:07}" for film in (7, 8, 9, 7, 10, 11))
    assert load_imdb("test", path=root).groups is None
    parts = text.split(examples, validation=0.3, test=0, seed=1)[:2]
    films = [set(part.groups) for part in parts]
    assert not films[0] & films[1] and set().union(*films) == set(examples.groups)


def test_the_folder_around_aclimdb_will_do(tmp_path):
    make_folder(tmp_path)
    assert rows(load_imdb("test", path=tmp_path)) == expected("test")


def test_local_copies_that_cannot_be_used(tmp_path):
    with pytest.raises(DataError, match="'validation'; give 'train' or 'test'"):
        load_imdb("validation", path=tmp_path)
    with pytest.raises(DataError, match=r"none does not exist.*--config\.text\.path="):
        load_imdb(path=tmp_path / "none")
    with pytest.raises(DataError, match="no folder 'train'"):
        load_imdb(path=tmp_path)
    archive = make_archive(tmp_path, names=[name for name in DOCUMENTS if "/train/" in name])
    with pytest.raises(DataError, match=r"holds no test/neg"):
        load_imdb("test", path=archive)
    archive.write_bytes(archive.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"no complete archive"):
        load_imdb(path=archive)


def test_by_name_through_tfds_without_tensorflow(tmp_path):
    """Prepares from a fake download, then reads again with downloads forbidden, all in a fresh process."""
    program = """
        import sys
        from pathlib import Path
        import tensorflow_datasets as tfds
        from qlstm_jax.data import batching, imdb, tokenizer

        archive, data_dir = map(Path, sys.argv[1:])
        urls = []
        imdb.unreachable = lambda url: urls.append(url)
        tfds.download.DownloadManager.download = lambda self, url: urls.append(url) or archive
        first = imdb.load_imdb("train", data_dir=data_dir)
        assert urls == [imdb.URL] * 2, urls

        def forbidden(*args):
            raise AssertionError("prepared data need no network")

        imdb.unreachable = tfds.download.DownloadManager.download = forbidden
        again = imdb.load_imdb("train", data_dir=data_dir)
        assert again.texts == first.texts and (again.labels == first.labels).all()
        test = imdb.load_imdb("test", data_dir=data_dir)
        stock = tfds.data_source("imdb_reviews", split="unsupervised", data_dir=data_dir, download=False)
        assert len(stock) == 3
        assert sys.modules.get("tensorflow") is None
        for examples in (first, test):
            print(len(examples), examples.label_names, examples.report.summary())
            for text, label in sorted(zip(examples.texts, examples.labels)):
                print(label, ascii(text))
    """
    command = [
        sys.executable,
        "-c",
        textwrap.dedent(program),
        str(make_archive(tmp_path)),
        str(tmp_path / "data"),
    ]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    lines = [line for line in result.stdout.splitlines() if line[:2] in ("0 ", "1 ")]
    wanted = [(text, label) for split in ("train", "test") for text, label in expected(split)]
    assert lines == [f"{('neg', 'pos').index(label)} {text!a}" for text, label in wanted]
    assert "6 ('neg', 'pos') TFDS imdb_reviews/plain_text/1.0.0 [train]" in result.stdout


def test_data_prepared_as_tfrecord_is_refused_with_the_mend(tmp_path, monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets")
    archive = make_archive(tmp_path)
    monkeypatch.setattr(imdb, "unreachable", lambda url: None)
    monkeypatch.setattr(tfds.download.DownloadManager, "download", lambda self, url: archive)
    load_imdb(data_dir=tmp_path / "data")
    info = next((tmp_path / "data").rglob("dataset_info.json"))
    content = json.loads(info.read_text())
    assert content["fileFormat"] == "array_record"
    info.write_text(json.dumps({**content, "fileFormat": "tfrecord"}))
    with pytest.raises(DataError, match=r"prepared as tfrecord.*another data_dir"):
        load_imdb(data_dir=tmp_path / "data")


def test_wrong_download_is_told(tmp_path):
    """TFDS takes a file that lies in its `manual` folder, and checks it against the known checksum."""
    manual = tmp_path / "downloads" / "manual"
    manual.mkdir(parents=True)
    make_archive(manual)
    with pytest.raises(DataError, match=r"could not be prepared.*wrong checksum"):
        load_imdb(data_dir=tmp_path)


def test_without_a_network_it_fails_at_once_and_tells_the_way_out(tmp_path, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        port = server.server_port  # free again once the server is closed, so nobody answers there
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
    start = time.monotonic()
    with pytest.raises(DataError) as error:
        load_imdb(data_dir=tmp_path)
    assert time.monotonic() - start < 10
    assert "--config.text.path=/path/to/aclImdb" in str(error.value)
    assert imdb.URL in str(error.value)
    assert "refused" in str(error.value)


class Answer(http.server.BaseHTTPRequestHandler):
    """Answers a HEAD request with the status named in its path, 200 by default, and notes what was asked."""

    def __init__(self, asked, *args):
        self.asked = asked
        super().__init__(*args)

    def do_HEAD(self):
        self.asked.append(self.path)
        if self.path.endswith("slow"):
            time.sleep(1)
        self.send_response(404 if self.path.endswith("gone") else 200)
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    asked = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Answer, asked)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


def test_probe_tells_answers_from_refusals_and_silence(server):
    address, _ = server
    assert imdb.unreachable(f"{address}/file") is None
    assert "404" in imdb.unreachable(f"{address}/gone")
    assert "timed out" in imdb.unreachable(f"{address}/slow", timeout=0.2)


def test_probe_asks_the_proxy_of_the_environment(server, monkeypatch):
    address, asked = server
    monkeypatch.setenv("http_proxy", address)
    assert imdb.unreachable("http://nowhere.invalid/file") is None
    assert asked == ["http://nowhere.invalid/file"]
