import math

import numpy as np
import pytest

from qlstm_jax.data import windows
from qlstm_jax.data.rows import DataError
from qlstm_jax.data.tokenizer import Tokenizer


def test_windows_are_consecutive_until_the_streams_wrap():
    """29 tokens in 2 streams of 14: a pass is 3 windows of 4, whose last target is token 12 of the stream."""
    found = windows.Windows(np.arange(100, 129, dtype=np.uint8), 2, 4)
    assert (found.stream_size, found.per_pass) == (14, 3)
    for number in range(7):
        batch = found.batch(number)
        start = 100 + 4 * (number % 3)
        expected = [[start + row * 14 + i for i in range(5)] for row in range(2)]
        assert batch.tokens.tolist() == expected and batch.tokens.dtype == np.int32
        assert batch.starts.tolist() == [number % 3 == 0] * 2
    # The first input of a window is the last target of the one before, within a pass.
    assert (found.batch(4).tokens[:, 0] == found.batch(3).tokens[:, -1]).all()


def test_rows_begin_anew_in_turn():
    """Two rows of 10 windows, begun anew every 4: the second row half of that before the first."""
    found = windows.Windows(np.arange(82, dtype=np.uint8), 2, 4, restart=4)
    assert found.per_pass == 10
    begun = [[n for n in range(20) if found.batch(n).starts[row]] for row in range(2)]
    assert begun == [[0, 4, 8, 10, 14, 18], [0, 2, 6, 10, 12, 16]]
    plain = windows.Windows(found.tokens, 2, 4)
    assert all((plain.batch(n).tokens == found.batch(n).tokens).all() for n in range(20))
    every = windows.Windows(found.tokens, 2, 4, restart=1)
    assert all(every.batch(n).starts.all() for n in range(20))


def test_text_that_is_too_short_for_the_streams():
    assert windows.Windows(np.zeros(10, np.uint8), 2, 4).per_pass == 1
    with pytest.raises(DataError, match=r"train part has 9 tokens; expected at least 10"):
        windows.Windows(np.zeros(9, np.uint8), 2, 4, name="the train part")
    assert windows.windows(np.zeros(9, np.uint8), 2, 4).batch_size == 1
    assert windows.windows(np.zeros(99, np.uint8), 2, 4).batch_size == 2
    with pytest.raises(DataError, match="has 4 tokens; expected at least 5"):
        windows.windows(np.zeros(4, np.uint8), 2, 4)


def test_bytes_and_pieces_give_the_text_back():
    texts = ["naïve ☃\n", "", "def f(x):\n    return x\n" * 20]
    contents = [text.encode() for text in texts]
    ids = windows.encode(contents, windows.Bytes(), "made")
    assert ids.dtype == np.uint8 and bytes(ids) == b"".join(contents)
    assert windows.Bytes().decode(ids) == "".join(texts)
    assert windows.Bytes().encode("☃").tolist() == list("☃".encode())
    assert windows.Bytes().decode([226, 152]) == "\ufffd"
    pieces = Tokenizer.train(texts, kind="bpe", vocab_size=280, lowercase=False)
    ids = windows.encode(contents, pieces, "made")
    assert ids.dtype == np.uint16 and len(ids) < sum(map(len, contents)) / 2
    assert pieces.decode(ids) == "".join(texts)
    assert windows.encode([b"\xff"], windows.Bytes(), "made").tolist() == [255]
    with pytest.raises(DataError, match=r"made is not all UTF-8 .*lm\.tokenizer=byte"):
        windows.encode([b"\xff"], pieces, "made")


def test_bits_per_byte():
    assert windows.bits_per_byte(math.log(256), 100, 100) == pytest.approx(8)
    assert windows.bits_per_byte(math.log(16), 50, 200) == pytest.approx(1)
