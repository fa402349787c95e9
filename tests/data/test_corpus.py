import platform

import pytest

from qlstm_jax.data import corpus
from qlstm_jax.data.rows import DataError


def test_files_of_a_folder_in_the_order_of_their_names(tmp_path):
    for name, content in {"b.txt": b"two", "a/z.txt": b"one", "c.md": b"no", "d.txt": b""}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    found = corpus.load(tmp_path)
    assert found.contents == (b"one", b"two")
    assert found.record() == {**corpus.load(tmp_path).record(), "files": 2, "bytes": 6, "source": str(tmp_path)}
    assert corpus.load(tmp_path, pattern="*.md").contents == (b"no",)
    assert corpus.load(tmp_path, max_bytes=4).contents == (b"one", b"t")
    assert corpus.load(tmp_path, max_bytes=3).contents == (b"one",)
    # The same bytes in files of another cut are another corpus.
    (tmp_path / "b.txt").write_bytes(b"t")
    (tmp_path / "d.txt").write_bytes(b"wo")
    assert corpus.load(tmp_path).record()["sha256"] != found.record()["sha256"]


def test_hidden_files_are_left_out_and_noted(tmp_path):
    for name in ("a.txt", "b/c.txt", "._a.txt", ".git/d.txt", "b/__MACOSX/e.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    found = corpus.load(tmp_path)
    assert found.contents == (b"a.txt", b"b/c.txt")
    assert found.notes == (f"{tmp_path}: hidden files left out: 3, the first {tmp_path}/._a.txt",)
    assert corpus.load(tmp_path / ".git").contents == (b".git/d.txt",)
    assert corpus.load(tmp_path / "._a.txt").contents == (b"._a.txt",)
    with pytest.raises(DataError, match=r"no file named like '\._\*' .*hidden files left out: 1"):
        corpus.load(tmp_path, pattern="._*")


def test_a_cut_leaves_letters_whole(tmp_path):
    (tmp_path / "a.txt").write_text("a☃b", encoding="utf-8")
    cut = [corpus.load(tmp_path / "a.txt", max_bytes=n).contents for n in (1, 2, 3, 4, 5, 9)]
    assert cut == [(b"a",)] * 3 + [("a☃".encode(),)] + [("a☃b".encode(),)] * 2


def test_nothing_to_read(tmp_path):
    with pytest.raises(DataError, match="nowhere does not exist"):
        corpus.load(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"no file named like '\*\.txt'"):
        corpus.load(tmp_path)
    (tmp_path / "a.txt").write_bytes(b"")
    with pytest.raises(DataError, match="hold no text"):
        corpus.load(tmp_path)


def test_the_standard_library_is_there():
    library = corpus.load()
    assert library.source == f"the standard library of Python {platform.python_version()}"
    assert library.num_bytes > 2_000_000 and len(library.contents) > 100
    assert any(b"class OrderedDict" in content for content in library.contents)
    assert f"{len(library.contents)} files, {library.num_bytes} bytes" in library.summary()


def many(count=40):
    """Files of different sizes, each of a letter of its own."""
    return corpus.Corpus("made", tuple(chr(0x100 + n).encode() * (5 + 7 * n % 11) for n in range(count)))


def test_split_by_whole_files():
    made = many()
    parts = corpus.split(made, validation=0.1, test=0.2, seed=0)
    places = {part: [made.contents.index(text) for text in texts] for part, texts in parts.items()}
    assert sorted(n for numbers in places.values() for n in numbers) == list(range(40))
    assert all(numbers == sorted(numbers) for numbers in places.values())
    largest = max(map(len, made.contents))
    for part, share in {"validation": 0.1, "test": 0.2, "train": 0.7}.items():
        assert abs(sum(map(len, parts[part])) - share * made.num_bytes) <= largest
    assert corpus.split(made, validation=0.1, test=0.2, seed=0) == parts
    assert corpus.split(made, validation=0.1, test=0.2, seed=1) != parts


def test_split_of_few_files_is_by_place():
    few = corpus.Corpus("made", ("☃".encode() * 10, b"abcdefghij"))
    parts = corpus.split(few, validation=0.25, test=0.2, seed=0)
    texts = [b"".join(parts[part]).decode() for part in ("train", "validation", "test")]
    assert texts == ["☃" * 7, "☃☃☃ab", "cdefghij"]  # 22 and 32 of 40 bytes, letters left whole


def test_splits_that_cannot_be():
    for shares in ({"validation": 0, "test": 0.1}, {"validation": 0.5, "test": 0.5}):
        with pytest.raises(DataError, match="give shares above 0"):
            corpus.split(many(), **shares, seed=0)
    with pytest.raises(DataError, match="nothing is left for the validation part"):
        corpus.split(corpus.Corpus("made", (b"ab",)), validation=0.1, test=0.1, seed=0)
