import numpy as np
import pytest

from qlstm_jax.data.text import DataError
from qlstm_jax.data.tokenizer import KINDS, Tokenizer

TEXTS = ["The film, the FILM!<br /><br>Don't stop.", "the end of the film", "stop the end", "a café 🎉 café"]
ODD = "  Tabs\tand\n\nline ends, café 🎉 \x00 “quotes” < pad >< unk > <br />  "


def test_words_are_lower_cased_and_marks_stand_alone():
    tokenizer = Tokenizer.train(TEXTS, min_frequency=1)
    assert tokenizer.decode(tokenizer.encode(TEXTS[0])) == "the film , the film ! don't stop ."
    assert "br" not in tokenizer.vocab
    cased = Tokenizer.train(TEXTS, min_frequency=1, lowercase=False)
    assert cased.decode(cased.encode("The FILM")) == "The FILM"


def test_vocabulary_is_ordered_by_frequency_then_alphabet_and_cut():
    texts = ["b a c", "c b a", "z z z", "rare"]
    assert Tokenizer.train(texts).vocab[2:] == ("z", "a", "b", "c")
    assert Tokenizer.train(texts, vocab_size=5).vocab[2:] == ("z", "a", "b")
    assert Tokenizer.train(texts, min_frequency=1).vocab[2:] == ("z", "a", "b", "c", "rare")


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_texts_in_any_order_give_the_same_tokenizer(kind):
    assert Tokenizer.train(TEXTS, kind=kind) == Tokenizer.train(TEXTS[::-1], kind=kind)


def test_a_word_that_only_the_test_part_has_is_unknown():
    tokenizer = Tokenizer.train(TEXTS[:3], min_frequency=1)
    ids = tokenizer.encode("the café")
    assert ids.tolist() == [tokenizer.vocab.index("the"), tokenizer.unk_id]
    assert "café" not in tokenizer.vocab


@pytest.mark.parametrize("kind", ["bpe", "byte"])
def test_exact_round_trip(kind):
    tokenizer = Tokenizer.train(TEXTS, kind=kind, lowercase=False)
    for text in [*TEXTS, ODD, "", "\ufeffبلى 東京"]:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert not np.isin(ids, [tokenizer.pad_id, tokenizer.unk_id]).any()


def test_bpe_lower_cases_if_asked_and_joins_what_is_frequent():
    tokenizer = Tokenizer.train(TEXTS, kind="bpe", lowercase=True)
    assert tokenizer.decode(tokenizer.encode("The FILM")) == "the film"
    assert len(tokenizer.encode("the film")) == 2
    assert tokenizer.vocab_size == len(set(tokenizer.vocab)) > 258


def test_bytes_have_fixed_ids():
    tokenizer = Tokenizer.train([], kind="byte")
    assert tokenizer.vocab_size == 258
    assert tokenizer.encode("A\x00é").tolist() == [67, 2, 0xC3 + 2, 0xA9 + 2]
    assert tokenizer.decode([67, 1, 0xC3 + 2, 0, 0]) == "A< unk >�"


@pytest.mark.parametrize("kind", KINDS)
def test_ids_shapes_and_padding(kind):
    tokenizer = Tokenizer.train(TEXTS, kind=kind)
    assert (tokenizer.pad_id, tokenizer.unk_id) == (0, 1)
    arrays = tokenizer.encode_batch([*TEXTS, ODD, ""], 3)
    assert [array.shape for array in arrays] == [(3,)] * 5 + [(0,)]
    assert all(array.dtype == np.int32 for array in arrays)
    whole = tokenizer.encode(ODD)
    assert arrays[4].tolist() == whole[:3].tolist()
    assert whole.min() >= 1 and whole.max() < tokenizer.vocab_size  # no text is encoded as padding
    assert tokenizer.decode([*whole, 0, 0]) == tokenizer.decode(whole)


def test_a_text_of_removed_things_has_length_0():
    assert Tokenizer.train(TEXTS).encode(" <br /> \n").shape == (0,)


@pytest.mark.parametrize("kind", KINDS)
def test_one_file_reproduces_it(tmp_path, kind):
    tokenizer = Tokenizer.train(TEXTS, kind=kind, lowercase=False)
    path = tmp_path / "new" / "tokenizer.json"
    tokenizer.save(path)
    again = Tokenizer.load(path)
    assert again == tokenizer
    assert again.encode(ODD).tolist() == tokenizer.encode(ODD).tolist()


def test_errors(tmp_path):
    with pytest.raises(DataError, match="'words'; give one of 'word', 'bpe', 'byte'"):
        Tokenizer.train(TEXTS, kind="words")
    with pytest.raises(DataError, match="one string"):
        Tokenizer.train("a text")
    with pytest.raises(DataError, match="at least 258 ids"):
        Tokenizer.train(TEXTS, kind="bpe", vocab_size=257)
    tokenizer = Tokenizer.train(TEXTS)
    with pytest.raises(DataError, match="max_length=0"):
        tokenizer.encode("a", max_length=0)
    with pytest.raises(DataError, match="one string"):
        tokenizer.encode_batch("a text")
    with pytest.raises(DataError, match=f"id {tokenizer.vocab_size} is not in 0"):
        tokenizer.decode([2, tokenizer.vocab_size])
    with pytest.raises(DataError, match=r"none\.json is no tokenizer"):
        Tokenizer.load(tmp_path / "none.json")
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(DataError, match="has not the format"):
        Tokenizer.load(tmp_path / "other.json")
