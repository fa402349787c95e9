import numpy as np
import pytest

from qlstm_jax.data.packing import PackedBatches, pack, plan_rows, unpack
from qlstm_jax.data.rows import DataError


def texts(n=200, longest=40, seed=0):
    """Texts of 1 to `longest` tokens; all tokens of text i are i + 1."""
    lengths = np.random.default_rng(seed).integers(1, longest + 1, n)
    return [np.full(length, i + 1, np.int32) for i, length in enumerate(lengths)]


def test_best_fit_by_hand():
    assert plan_rows([6, 5, 4, 3, 2], 10) == [[0, 2], [1, 3, 4]]
    assert plan_rows([1, 1, 1, 1], 10, most=3) == [[0, 1, 2], [3]]
    assert plan_rows([], 10) == []


def test_rows_hold_each_sequence_once_after_a_reset():
    given = texts()
    packed = pack(given, 64)
    assert packed.ids.shape[1] == 64
    assert sorted(packed.sequence[packed.sequence >= 0]) == list(range(len(given)))
    for row, members in enumerate(packed.sequence):
        members = members[members >= 0]
        tokens = np.concatenate([given[i] for i in members])
        np.testing.assert_array_equal(packed.ids[row], np.pad(tokens, (0, 64 - len(tokens))))
        assert packed.lengths[row] == len(tokens)
        begins = np.cumsum([0, *(len(given[i]) for i in members[:-1])])
        np.testing.assert_array_equal(np.flatnonzero(packed.resets[row]), begins)
    assert packed.lengths.sum() / packed.ids.size > 0.97


def test_unpack_inverts_pack():
    given = texts()
    packed = pack(given, 50)
    for found, wanted in zip(unpack(packed.ids[:, :, None], packed), given, strict=True):
        np.testing.assert_array_equal(found[:, 0], wanted)
    with pytest.raises(DataError, match=r"outputs have shape \(1, 50\); expected"):
        unpack(packed.ids[:1], packed)


def test_sequences_that_do_not_fit():
    with pytest.raises(DataError, match="sequence 1 has 9 tokens; expected 1 to row_length=8"):
        pack([np.ones(8, int), np.ones(9, int)], 8)
    with pytest.raises(DataError, match="sequence 0 has 0 tokens"):
        pack([np.zeros(0, int)], 8)
    empty = pack([], 8)
    assert empty.ids.shape == (0, 8) and unpack(np.zeros((0, 8)), empty) == []


def batches(encoded=None, **options):
    encoded = texts() if encoded is None else encoded
    options = {"batch_size": 4, "max_length": 40, "row_length": 64, "seed": 0, **options}
    return PackedBatches(encoded, np.arange(len(encoded)), **options)


def visited(source, start, stop):
    """The labels of some batches, and a check that each text stands where its label says."""
    labels = []
    for number in range(start, stop):
        batch = source.batch(number)
        for row in range(len(batch.ids)):
            begins = np.flatnonzero(batch.resets[row])
            assert batch.weights[row].sum() == len(begins)
            found = batch.ids[row, begins] - 1
            np.testing.assert_array_equal(batch.labels[row, : len(begins)], found)
            labels += found.tolist()
    return labels


def test_an_epoch_visits_every_text_once_in_an_order_of_its_own():
    source = batches()
    first, second = (source.batches_per_epoch(epoch) for epoch in (0, 1))
    one, two = visited(source, 0, first), visited(source, first, first + second)
    assert sorted(one) == sorted(two) == list(range(200))
    assert one != two


def test_a_batch_depends_on_its_number_alone():
    ahead, straight = batches(), batches()
    for number in (57, 3, 120, 3):
        for a, b in zip(ahead.batch(number), straight.batch(number), strict=True):
            np.testing.assert_array_equal(a, b)
    assert any((batches(seed=1).batch(0).ids != straight.batch(0).ids).ravel())


def test_long_texts_are_cut_and_empty_ones_are_a_token():
    source = batches([np.full(90, 1), np.zeros(0, int), np.full(3, 3)], batch_size=1)
    batch = source.batch(0)
    assert batch.lengths.tolist() == [44]
    assert sorted(batch.labels[batch.weights > 0].tolist()) == [0, 1, 2]
    assert source.padding_fraction() == pytest.approx(1 - 44 / 64)


def test_bad_arguments():
    with pytest.raises(DataError, match="row_length is 30; expected at least max_length, which is 40"):
        batches(row_length=30)
    with pytest.raises(DataError, match="give a label for each text"):
        PackedBatches([], [], batch_size=1, max_length=1, row_length=1, seed=0)
    with pytest.raises(DataError, match="position is -1"):
        batches().batch(-1)
