import itertools
import threading

import numpy as np
import pytest

from qlstm_jax.data.batching import Batches, bucket_boundaries, stream
from qlstm_jax.data.text import DataError


def texts(n=103, longest=40, seed=0):
    """Texts of 0 to `longest` tokens; the first token of text i, if there is one, is i + 1."""
    rng = np.random.default_rng(seed)
    return [np.full(length, i + 1, np.int32) for i, length in enumerate(rng.integers(0, longest + 1, n))]


def batches(encoded=None, **options):
    encoded = texts() if encoded is None else encoded
    options = {"batch_size": 8, "buckets": (10, 20, 30, 40), "seed": 0, **options}
    return Batches(encoded, np.arange(len(encoded)), **options)


def padding(lengths, boundaries):
    lengths = np.minimum(lengths, boundaries[-1])
    return int((np.asarray(boundaries)[np.searchsorted(boundaries, lengths)] - lengths).sum())


@pytest.mark.parametrize("num_buckets", [1, 2, 3, 4])
def test_boundaries_pad_least_of_all_choices(num_buckets):
    lengths = np.random.default_rng(1).choice([0, 1, 3, 4, 9, 10, 17, 30], size=50, p=np.arange(1, 9) / 36)
    found = bucket_boundaries(lengths, max_length=20, num_buckets=num_buckets)
    assert found[-1] == 20
    assert len(found) <= num_buckets
    every = itertools.combinations(range(1, 20), num_buckets - 1)
    assert padding(lengths, found) == min(padding(lengths, (*choice, 20)) for choice in every)


def test_boundaries_at_the_edges():
    assert bucket_boundaries([3, 7, 5], max_length=100, num_buckets=9) == (3, 5, 7)
    assert bucket_boundaries([3, 700, 5], max_length=100, num_buckets=1) == (100,)
    assert bucket_boundaries([0, 0], max_length=5, num_buckets=3) == (1,)
    many = bucket_boundaries(np.arange(5000), max_length=4000, num_buckets=4)  # more lengths than candidates
    assert many[-1] == 4000
    np.testing.assert_allclose(many, (1000, 2000, 3000, 4000), atol=8)
    for lengths, max_length, num_buckets in [([], 5, 1), ([-1], 5, 1), ([1], 0, 1), ([1], 5, 0), ([1.5], 5, 1)]:
        with pytest.raises(DataError, match="give"):
            bucket_boundaries(lengths, max_length=max_length, num_buckets=num_buckets)


def test_an_epoch_visits_every_example_once_in_its_bucket():
    encoded = texts()
    plan = batches(encoded).plan(3)
    assert sorted(i for _, indices in plan for i in indices) == list(range(103))
    shorter = {10: -1, 20: 10, 30: 20, 40: 30}
    assert all(shorter[length] < len(encoded[i]) <= length for length, indices in plan for i in indices)
    assert batches(encoded).batches_per_epoch(3) == len(plan)


def as_lists(plan):
    return [(length, indices.tolist()) for length, indices in plan]


def test_the_order_depends_on_seed_and_epoch_alone():
    one, other = batches(), batches()
    other.plan(0), np.random.default_rng(0).random()
    assert as_lists(one.plan(7)) == as_lists(other.plan(7))
    assert as_lists(one.plan(7)) != as_lists(one.plan(8))
    assert as_lists(one.plan(7)) != as_lists(batches(seed=1).plan(7))
    together = [{frozenset(indices.tolist()) for _, indices in one.plan(epoch)} for epoch in (7, 8)]
    assert len(together[0] & together[1]) < 3  # other examples share a batch, not just another order of batches
    lengths = [length for length, _ in one.plan(7)]
    assert lengths != sorted(lengths)  # the order of the batches is shuffled too
    sizes = [len(indices) for _, indices in one.plan(7)]
    assert sum(size < 8 for size in sizes) <= 4  # only the last of a bucket is incomplete


def test_without_shuffling_the_order_is_that_of_the_data():
    plan = batches(shuffle=False).plan(0)
    assert as_lists(plan) == as_lists(batches(shuffle=False, seed=9).plan(5))
    for length, group in itertools.groupby(plan, key=lambda batch: batch[0]):
        indices = [i for _, part in group for i in part]
        assert indices == sorted(indices), length


def test_batch_holds_its_examples_and_fillers():
    encoded = texts()
    source = batches(encoded)
    plan = source.plan(0)
    for position, (length, indices) in enumerate(plan):
        batch = source.batch(position)
        assert batch.ids.shape == (8, length)
        assert [a.dtype for a in batch] == [np.int32, np.int32, np.int32, np.float32]
        for row, i in enumerate(indices):
            n = len(encoded[i])
            assert batch.ids[row].tolist() == encoded[i].tolist() + [0] * (length - n)
            assert (batch.lengths[row], batch.labels[row], batch.weights[row]) == (n, i, 1)
        for array in batch:
            assert not array[len(indices) :].any()
    assert sum(source.batch(p).weights.sum() for p in range(len(plan))) == 103


def test_resuming_needs_the_position_alone():
    whole = batches()
    per_epoch = whole.batches_per_epoch(0)
    straight = [whole.batch(p) for p in range(2 * per_epoch + 3)]
    for p in (per_epoch - 1, per_epoch, 2 * per_epoch + 2):
        for a, b in zip(straight[p], batches().batch(p), strict=True):
            np.testing.assert_array_equal(a, b)
    first = [batch.labels.tolist() for batch in straight[:per_epoch]]
    assert first != [batch.labels.tolist() for batch in straight[per_epoch : 2 * per_epoch]]


def test_buckets_pad_less_than_one_length():
    encoded = texts(n=1000)
    lengths = [len(ids) for ids in encoded]
    one = batches(encoded, buckets=bucket_boundaries(lengths, max_length=40, num_buckets=1))
    five = batches(encoded, buckets=bucket_boundaries(lengths, max_length=40, num_buckets=5))
    assert five.padding_fraction(0) < 0.5 * one.padding_fraction(0)
    cells = sum(batch.ids.size for batch in stream(five, 0, five.batches_per_epoch(0)))
    assert five.padding_fraction(0) == pytest.approx(1 - sum(lengths) / cells)


def test_longer_texts_keep_their_first_tokens_and_are_counted():
    encoded = [np.arange(1, n + 1, dtype=np.int32) for n in (3, 9, 5, 6)]
    source = batches(encoded, buckets=(5,), shuffle=False)
    assert source.truncated == 2
    batch = source.batch(0)
    assert batch.ids[1].tolist() == [1, 2, 3, 4, 5]
    assert batch.lengths[:4].tolist() == [3, 5, 5, 5]
    assert source.padding_fraction(0) == pytest.approx(1 - 18 / 40)


def prefetchers():
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def test_stream_gives_the_same_batches_across_epochs_and_ends():
    source, other = batches(), batches()
    stop = source.batches_per_epoch(0) + 4
    got = list(stream(source, 2, stop, prefetch=3))
    assert len(got) == stop - 2
    for p, batch in enumerate(got, 2):
        np.testing.assert_array_equal(batch.ids, other.batch(p).ids)
    assert not prefetchers()


class Recorder:
    """Batches that are their own position; number 3 fails."""

    def __init__(self):
        self.made = []

    def batch(self, position):
        if position == 3:
            raise OSError("disk is gone")
        self.made.append(position)
        return position


def test_error_in_the_thread_surfaces_where_its_batch_was_due():
    source = stream(Recorder(), 0)
    assert [next(source) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="disk is gone"):
        next(source)
    assert not prefetchers()


def test_stream_is_bounded_and_closes_while_its_thread_waits():
    recorder = Recorder()
    source = stream(recorder, 10, prefetch=2)
    assert next(source) == 10
    source.close()  # joins the thread, so what it made is final
    assert not prefetchers()
    assert recorder.made[0] == 10
    assert len(recorder.made) <= 3


def test_errors():
    for options in ({"buckets": ()}, {"buckets": (5, 5)}, {"buckets": (0, 5)}):
        with pytest.raises(DataError, match="ascending lengths"):
            batches(**options)
    for options in ({"batch_size": 0}, {"seed": -1}):
        with pytest.raises(DataError, match=f"{next(iter(options))} is"):
            batches(**options)
    with pytest.raises(DataError, match="a label for each text"):
        Batches(texts(), [1], batch_size=1, buckets=(5,), seed=0)
    with pytest.raises(DataError, match="numbered from 0"):
        batches().batch(-1)
    for start, stop, prefetch in ((-1, None, 2), (3, 2, 2), (0, None, 0)):
        with pytest.raises(DataError, match="prefetch="):
            stream(batches(), start, stop, prefetch=prefetch)
