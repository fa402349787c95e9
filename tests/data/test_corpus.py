import math
import platform

import numpy as np
import pytest

from qlstm_jax.data import corpus
from qlstm_jax.data.rows import DataError
from qlstm_jax.data.tokenizer import Tokenizer


def test_windows_are_consecutive_until_the_streams_wrap():
    """29 tokens in 2 streams of 14: a pass is 3 windows of 4, whose last target is token 12 of the stream."""
    windows = corpus.Windows(np.arange(100, 129, dtype=np.uint8), 2, 4)
    assert (windows.stream_size, windows.per_pass) == (14, 3)
    for number in range(7):
        batch = windows.batch(number)
        start = 100 + 4 * (number % 3)
        expected = [[start + row * 14 + i for i in range(5)] for row in range(2)]
        assert batch.tokens.tolist() == expected and batch.tokens.dtype == np.int32
        assert batch.starts.tolist() == [number % 3 == 0] * 2
    # The first input of a window is the last target of the one before, within a pass.
    assert (windows.batch(4).tokens[:, 0] == windows.batch(3).tokens[:, -1]).all()


def test_rows_begin_anew_in_turn():
    """Two rows of 10 windows, begun anew every 4: the second row half of that before the first."""
    windows = corpus.Windows(np.arange(82, dtype=np.uint8), 2, 4, restart=4)
    assert windows.per_pass == 10
    begun = [[n for n in range(20) if windows.batch(n).starts[row]] for row in range(2)]
    assert begun == [[0, 4, 8, 10, 14, 18], [0, 2, 6, 10, 12, 16]]
    plain = corpus.Windows(windows.tokens, 2, 4)
    assert all((plain.batch(n).tokens == windows.batch(n).tokens).all() for n in range(20))
    every = corpus.Windows(windows.tokens, 2, 4, restart=1)
    assert all(every.batch(n).starts.all() for n in range(20))


def test_text_that_is_too_short_for_the_streams():
    assert corpus.Windows(np.zeros(10, np.uint8), 2, 4).per_pass == 1
    with pytest.raises(DataError, match=r"train part has 9 tokens; expected at least 10"):
        corpus.Windows(np.zeros(9, np.uint8), 2, 4, name="the train part")
    assert corpus.windows(np.zeros(9, np.uint8), 2, 4).batch_size == 1
    assert corpus.windows(np.zeros(99, np.uint8), 2, 4).batch_size == 2
    with pytest.raises(DataError, match="has 4 tokens; expected at least 5"):
        corpus.windows(np.zeros(4, np.uint8), 2, 4)


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


def test_bytes_and_pieces_give_the_text_back():
    texts = ["naïve ☃\n", "", "def f(x):\n    return x\n" * 20]
    contents = [text.encode() for text in texts]
    ids = corpus.encode(contents, corpus.Bytes(), "made")
    assert ids.dtype == np.uint8 and bytes(ids) == b"".join(contents)
    assert corpus.Bytes().decode(ids) == "".join(texts)
    assert corpus.Bytes().encode("☃").tolist() == list("☃".encode())
    assert corpus.Bytes().decode([226, 152]) == "\ufffd"
    pieces = Tokenizer.train(texts, kind="bpe", vocab_size=280, lowercase=False)
    ids = corpus.encode(contents, pieces, "made")
    assert ids.dtype == np.uint16 and len(ids) < sum(map(len, contents)) / 2
    assert pieces.decode(ids) == "".join(texts)
    assert corpus.encode([b"\xff"], corpus.Bytes(), "made").tolist() == [255]
    with pytest.raises(DataError, match=r"made is not all UTF-8 .*lm\.tokenizer=byte"):
        corpus.encode([b"\xff"], pieces, "made")


def test_bits_per_byte():
    assert corpus.bits_per_byte(math.log(256), 100, 100) == pytest.approx(8)
    assert corpus.bits_per_byte(math.log(16), 50, 200) == pytest.approx(1)
