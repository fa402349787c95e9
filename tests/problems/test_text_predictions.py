"""Batches of predictions, by a model that is plain numpy: class 1 has the probability len(text) / 100."""

import itertools

import numpy as np
import pytest

from qlstm_jax.data.unlabelled import Unlabelled
from qlstm_jax.problems.text_predictions import records


def label(texts, *, batch_size, max_length, shapes=None):
    def encode(some):
        return [np.ones(min(len(text), max_length), np.int32) for text in some]

    def probabilities(ids, lengths):
        assert (ids.sum(axis=1) == lengths).all()
        if shapes is not None:
            shapes.append(ids.shape)
        p = lengths / 100
        return np.stack([1 - p, p], axis=1)

    return records(texts, ("no", "yes"), encode, probabilities, batch_size=batch_size, max_length=max_length)


@pytest.mark.parametrize("count", [0, 1, 2, 63, 64, 65, 1000])
def test_texts_keep_their_order_and_batches_are_of_few_shapes(count):
    rng, shapes = np.random.default_rng(count), []
    texts = [Unlabelled("x" * n) for n in rng.integers(1, 120, size=count)]
    found = list(label(texts, batch_size=4, max_length=90, shapes=shapes))
    assert [r["text"] for r in found] == [text for text, _ in texts]
    assert [r["probabilities"]["yes"] for r in found] == [min(len(text), 90) / 100 for text, _ in texts]
    assert all(r["label"] == ("yes" if r["probabilities"]["yes"] > 0.5 else "no") for r in found)
    assert {rows for rows, _ in shapes} <= {1, 2, 4} and {length for _, length in shapes} <= {16, 32, 64, 90}
    assert sum(rows for rows, _ in shapes) < count + 4 * (1 + count // 64)


def test_notes_keep_their_place():
    texts = [Unlabelled("", "empty text"), Unlabelled("xx"), Unlabelled("", "empty text")]
    first, second, third = label(texts, batch_size=4, max_length=16)
    assert first == third == {"text": "", "label": None, "probabilities": None, "note": "empty text"}
    assert second == {"text": "xx", "label": "no", "probabilities": {"no": 0.98, "yes": 0.02}}
    assert len(list(label(texts[:1], batch_size=4, max_length=16))) == 1


def test_a_source_without_end_is_read_as_records_are_taken():
    taken = itertools.count()
    texts = (Unlabelled("x" * (1 + next(taken) % 9)) for _ in itertools.repeat(None))
    assert len(list(itertools.islice(label(texts, batch_size=2, max_length=16), 40))) == 40
    assert next(taken) <= 64  # two times 16 batches of 2
