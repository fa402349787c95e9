import unicodedata

import numpy as np
import pytest

from qlstm_jax.data.splits import part_notes, split, text_key
from qlstm_jax.data.text import DataError, Examples, LoadReport
from qlstm_jax.data.tokenizer import Tokenizer


def examples_of(texts, labels):
    return Examples(tuple(texts), np.asarray(labels, np.int32), ("a", "b"), LoadReport("made", len(texts), len(texts)))


def many():
    """400 rows, a quarter of class b; each text of class a stands twice, with other blanks around it."""
    texts = [f" a{i // 2}" if i % 2 else f"a{i // 2}" for i in range(300)] + [f"b{i}" for i in range(100)]
    return examples_of(texts, [0] * 300 + [1] * 100)


def test_split_covers_all_is_stratified_and_leaks_no_text():
    examples = many()
    parts = split(examples, validation=0.1, test=0.2, seed=3)
    assert [np.bincount(part.labels).tolist() for part in parts] == [[210, 70], [30, 10], [60, 20]]
    assert sorted(text for part in parts for text in part.texts) == sorted(examples.texts)
    train, validation, test = ({text.strip() for text in part.texts} for part in parts)
    assert not (train & validation or train & test or validation & test)
    for part in parts:
        assert [examples.label_names[i] for i in part.labels] == [text.strip()[0] for text in part.texts]
    assert parts[1].report.summary() == "made [validation]: 40 rows, 40 kept"


def test_split_depends_on_the_seed_alone():
    first = split(many(), seed=5)
    np.random.seed(0)  # noqa: NPY002 - the global state is what must not matter
    again = split(many(), seed=5)
    assert [part.texts for part in first] == [part.texts for part in again]
    assert first[1].texts != split(many(), seed=6)[1].texts


def test_split_keeps_a_text_with_two_labels_together():
    texts = ["same"] * 10 + [f"t{i}" for i in range(90)]
    for seed in range(5):
        parts = split(examples_of(texts, [0, 1] * 50), validation=0.2, test=0.2, seed=seed)
        assert sorted(part.texts.count("same") for part in parts) == [0, 0, 10]


def test_split_errors_and_empty_shares():
    with pytest.raises(DataError, match="below 1"):
        split(many(), validation=0.5, test=0.5)
    with pytest.raises(DataError, match="the class 'b' has 1 different texts"):
        split(examples_of("uvwxyz", [0, 0, 0, 0, 0, 1]))
    train, validation, test = split(many(), validation=0, test=0.2)
    assert (len(train), len(validation), len(test)) == (320, 0, 80)
    assert validation.labels.shape == (0,)


VARIANTS = {
    "decomposed": lambda s: unicodedata.normalize("NFD", s),
    "capitals": str.upper,
    "blanks": lambda s: "\n" + s.replace(" ", " \t "),
    "marks": lambda s: s.replace(".", " . "),
    "tags": lambda s: s.replace(" ", "<br /><BR>") + "<br/>",
}


@pytest.mark.parametrize("change", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("seed", range(3))
def test_texts_that_are_one_to_the_model_are_dealt_together(change, seed):
    base = [f"un café agréable. numéro {i} ΟΔΟΣ" for i in range(60)]
    examples = examples_of(base + [change(text) for text in base], [i % 2 for i in range(60)] * 2)
    parts = split(examples, validation=0.1, test=0.2, seed=seed)
    assert sum(map(len, parts)) == 120
    tokenizer = Tokenizer.train(examples.texts, min_frequency=1)
    train, validation, test = ({tuple(ids) for ids in tokenizer.encode_batch(part.texts)} for part in parts)
    assert train and validation and test
    assert not (train & validation or train & test or validation & test)


def test_case_counts_where_it_counts_for_the_model():
    assert text_key("US") == text_key("us")
    assert text_key("US", lowercase=False) != text_key("us", lowercase=False)
    texts = [f"{name}{i}" for i in range(200) for name in ("us", "US")]
    both = split(examples_of(texts, [0, 1] * 200), lowercase=False)
    lower = [{text.lower() for text in part.texts} for part in both]
    assert lower[0] & lower[2]


def test_contradictory_labels_are_counted():
    texts = ["Good film", "bad film", "good  film<br />", "GOOD FILM", "a", "a"]
    made = {"train": examples_of(texts[:4], [0, 0, 1, 0]), "test": examples_of(texts[4:], [0, 1])}
    assert part_notes(made) == ["texts with contradictory labels: 2, in 5 rows, such as 'Good film' (a, b)"]
    assert part_notes(made, lowercase=False) == ["texts with contradictory labels: 1, in 2 rows, such as 'a' (a, b)"]
    assert not part_notes({"train": made["train"].take([0, 1], "train")})


def test_texts_of_a_given_test_part_that_are_in_training_are_counted():
    made = {"train": examples_of(["a", "b", "c"], [0, 1, 1]), "test": examples_of(["A ", "d", "c"], [0, 1, 1])}
    assert part_notes(made) == ["test texts that are in the training part too: 2 of 3"]
