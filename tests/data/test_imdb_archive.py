"""Local copies of IMDB that are damaged, incomplete or hold other files."""

import numpy as np
import pytest

from qlstm_jax.data import imdb
from qlstm_jax.data.imdb import load_imdb
from qlstm_jax.data.text import DataError
from tests.data.imdb_copies import DOCUMENTS, LABELS, expected, make_archive, make_folder, pack, rows


@pytest.mark.parametrize("kind", ["gz", "xz", ""])
def test_an_archive_with_one_flipped_bit_is_refused_or_read_whole(tmp_path, kind):
    rng = np.random.default_rng(0)
    words = ["film", "plot", "good", "bad", "the", "a"]
    members = [(name, " ".join(rng.choice(words, 40)).encode()) for name in DOCUMENTS]
    lists = [
        (f"aclImdb/{split}/urls_{label}.txt", b"tt1\ntt2\ntt3\n") for split in ("train", "test") for label in LABELS
    ]
    path = pack(tmp_path / f"a.tar.{kind}".rstrip("."), members + lists, f"w:{kind}")
    whole, right = path.read_bytes(), rows(load_imdb(path=path))
    refused = 0
    for _ in range(60):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            found = rows(load_imdb(path=path))
        except DataError as error:
            assert "damaged" in str(error) or "no complete archive" in str(error)
            refused += 1
        else:
            # A plain tar has no checksum of contents, but none of its files is lost.
            assert found == right if kind else [label for _, label in found] == [label for _, label in right]
    assert refused >= (50 if kind else 1)


def test_a_damaged_header_is_not_the_end_of_an_archive(tmp_path):
    path = pack(tmp_path / "a.tar", [(name, content.encode()) for name, content in DOCUMENTS.items()], "w")
    content = bytearray(path.read_bytes())
    content[content.index(b"aclImdb/train/neg/1_1.txt")] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="more after its last file"):
        load_imdb(path=path)


def test_an_archive_has_as_many_reviews_as_its_lists_have_films(tmp_path):
    names = [name for name in DOCUMENTS if name != "aclImdb/train/pos/1_1.txt"]
    lists = [(f"aclImdb/train/urls_{label}.txt", b"tt1\ntt2\ntt3\n") for label in LABELS]
    path = pack(tmp_path / "a.tar.gz", [*((name, b"a text") for name in names), *lists])
    with pytest.raises(DataError, match=r"holds 2 reviews train/pos/\*\.txt, and its list .*urls_pos\.txt .*of 3\."):
        load_imdb(path=path)
    assert len(load_imdb("test", path=path)) == 6


@pytest.mark.parametrize("make", [make_folder, make_archive])
def test_a_copy_of_another_size_is_noted(tmp_path, make, monkeypatch):
    path = make(tmp_path)
    (note,) = load_imdb("test", path=path).report.notes
    assert note.endswith(": test has 3 neg and 3 pos reviews, not 12500 as all of IMDB")
    monkeypatch.setattr(imdb, "REVIEWS", 3)
    assert not load_imdb("test", path=path).report.notes


def test_only_the_reviews_of_one_folder_are_members(tmp_path):
    noise = ["old/aclImdb/train/pos/7_7.txt", "aclImdb/train/pos/._0_0.txt", "__MACOSX/train/neg/8_8.txt"]
    noise += ["aclImdb/train/pos/deep/9_9.txt", "aclImdb/mytrain/pos/9_9.txt", "aclImdb/train/pos/0_0.txt.bak"]
    members = [(name, content.encode()) for name, content in DOCUMENTS.items()]
    for prefix in ("", "./"):
        named = [(prefix + name, content) for name, content in members]
        path = pack(tmp_path / "a.tar.gz", [*named, *((name, b"noise") for name in noise)])
        assert rows(load_imdb(path=path)) == expected("train")
    path = pack(tmp_path / "a.tar.gz", [*members, ("copy/train/pos/7_7.txt", b"noise")])
    with pytest.raises(DataError, match=r"several folders, 'aclImdb/', 'copy/'; keep one"):
        load_imdb(path=path)


@pytest.mark.parametrize("kind", ["folder", "archive"])
def test_bad_reviews_are_skipped_where_that_is_asked(tmp_path, kind):
    root = make_folder(tmp_path)
    (root / "train" / "pos" / "1_1.txt").write_bytes(b"\xff")
    path = (
        root
        if kind == "folder"
        else pack(
            tmp_path / "a.tar.gz",
            [(name, b" " if name.endswith("train/pos/1_1.txt") else b"a text") for name in DOCUMENTS],
        )
    )
    with pytest.raises(DataError, match="on_bad_row='skip'"):
        load_imdb(path=path)
    assert len(load_imdb(path=path, on_bad_row="skip")) == 5
