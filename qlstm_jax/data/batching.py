"""Batches of token ids in a few fixed lengths, in an order that a seed and a position alone determine.

Every length is one compiled program and every padded cell is wasted work: buckets trade one for the other.
"""

import itertools
import queue
import threading
from collections.abc import Generator, Iterable, Sequence
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Float, Int, Integer
from numpy.typing import ArrayLike

from qlstm_jax.data.checks import count, flag, integers, is_integer, shown, token_arrays
from qlstm_jax.data.rows import DataError

_MOST_CANDIDATES = 1024

Batch = TypeVar("Batch")
Batch_co = TypeVar("Batch_co", covariant=True)


class TextBatch(NamedTuple):
    """B padded texts; a pytree. The filler rows that complete a bucket's last batch are empty and weigh 0."""

    ids: Int[np.ndarray, "batch time"]  # int32, 0 beyond each row's length
    lengths: Int[np.ndarray, " batch"]  # int32, 0 to T
    labels: Int[np.ndarray, " batch"]  # int32
    weights: Float[np.ndarray, " batch"]  # float32, 1 for an example and 0 for a filler row


def bucket_boundaries(lengths: ArrayLike, *, max_length: int, num_buckets: int) -> tuple[int, ...]:
    """Returns the bucket lengths with the fewest padded cells.

    Minimises sum_i (b(l_i) - l_i) over all choices of at most `num_buckets` boundaries, where b(l) is the
    smallest boundary ≥ l, and lengths above `max_length` count as `max_length`. Dynamic programming finds the
    optimum over the different lengths (evenly thinned to 1,024 if there are more). Filler rows are not
    counted: with few batches in a bucket, fewer buckets can waste less.

    Args:
      lengths: (N,) integers ≥ 0, N ≥ 1, in tokens.
      max_length: the longest allowed, ≥ 1.
      num_buckets: how many at most, ≥ 1.

    Returns:
      Ascending integers; the last is the longest length present or `max_length`, whichever is smaller, and at
      least 1.

    Raises:
      DataError: for numbers out of range.
    """
    lengths = integers("lengths", lengths)
    for name, value in (("max_length", max_length), ("num_buckets", num_buckets)):
        count(name, value, 1)
    if not lengths.size:
        raise DataError("lengths is empty; give at least one length")
    clipped = np.clip(lengths, 1, max_length)
    present = np.unique(clipped)
    thinned = np.linspace(0, len(present) - 1, min(len(present), _MOST_CANDIDATES)).round().astype(int)
    candidates = present[thinned]
    # texts[j]: how many texts are at most as long as candidate j - 1; there are none before the first.
    texts = np.concatenate([[0], np.searchsorted(np.sort(clipped), candidates, side="right")])

    # cost[j]: the fewest cells for all texts up to candidate j - 1. The tokens in them are the same for every
    # choice, so the fewest cells have the least padding.
    cost = np.full(len(candidates) + 1, np.inf)
    cost[0] = 0
    choices: list[Int[np.ndarray, " boundaries"]] = []
    for _ in range(min(num_buckets, len(candidates))):
        previous, cost = cost, cost.copy()
        choice = np.arange(len(cost))  # itself: no boundary is added
        for j in range(1, len(cost)):
            with_boundary = previous[:j] + candidates[j - 1] * (texts[j] - texts[:j])
            best = int(np.argmin(with_boundary))
            if with_boundary[best] < cost[j]:
                cost[j], choice[j] = with_boundary[best], best
        choices.append(choice)

    boundaries, j = [], len(candidates)
    for choice in reversed(choices):
        if choice[j] != j:
            boundaries.append(int(candidates[j - 1]))
            j = choice[j]
    return tuple(reversed(boundaries))


def _iterable(value: object) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str | bytes)


class Batches:
    """All batches of a training or evaluation run, by their number.

    A batch holds texts of one bucket. An epoch visits every example once; its order is a function of the seed
    and the epoch's number, so training resumes from a batch number alone.

    Args:
      encoded: N arrays (length,) of integer ids; those longer than the last bucket keep their first tokens.
      labels: (N,) integers.
      batch_size: B, rows in every batch.
      buckets: ascending lengths T, as from `bucket_boundaries`.
      seed: an int ≥ 0, the source of the order.
      shuffle: False keeps the order of the examples within each bucket, the same in every epoch.

    Attributes:
      truncated: how many texts were cut.

    Raises:
      DataError: for unequal or no lengths, buckets that do not ascend, or numbers out of range.

    Example:
      buckets = bucket_boundaries([len(ids) for ids in encoded], max_length=512, num_buckets=6)
      batches = Batches(encoded, labels, batch_size=32, buckets=buckets, seed=0)
      for batch in stream(batches, start=step):
        ...
    """

    def __init__(
        self,
        encoded: Sequence[Integer[np.ndarray, " _"]],
        labels: ArrayLike,
        *,
        batch_size: int,
        buckets: Iterable[int],
        seed: int,
        shuffle: bool = True,
    ) -> None:
        labels = integers("labels", labels)
        token_arrays("encoded", encoded)
        if not len(encoded) or labels.shape != (len(encoded),):
            raise DataError(f"{len(encoded)} texts and labels of shape {labels.shape}; give a label for each text")
        count("batch_size", batch_size, 1)
        count("seed", seed)
        flag("shuffle", shuffle)
        sizes = tuple(int(length) for length in integers("buckets", list(buckets) if _iterable(buckets) else buckets))
        if not sizes or sizes[0] < 1 or any(a >= b for a, b in itertools.pairwise(sizes)):
            raise DataError(f"buckets is {sizes}; give ascending lengths of at least 1, see bucket_boundaries")
        lengths = np.asarray([len(ids) for ids in encoded], np.int64)
        self.truncated = int((lengths > sizes[-1]).sum())
        self._encoded = encoded
        self._labels = labels.astype(np.int32)
        self._lengths = np.minimum(lengths, sizes[-1])
        self._batch_size, self._seed, self._shuffle = batch_size, seed, shuffle
        bucket_of = np.searchsorted(sizes, self._lengths)
        members = [(length, np.flatnonzero(bucket_of == i)) for i, length in enumerate(sizes)]
        self._members = [(length, indices) for length, indices in members if indices.size]
        self._per_epoch = sum(-(-len(indices) // batch_size) for _, indices in self._members)
        self._latest: tuple[int, list[tuple[int, Int[np.ndarray, " _"]]]] | None = None

    def plan(self, epoch: int) -> list[tuple[int, Int[np.ndarray, " _"]]]:
        """Returns the epoch's batches in order, each as (T, the indices (n,) of its n ≤ B examples)."""
        count("epoch", epoch)
        latest = self._latest  # one reference, read once: a prefetching thread may replace it meanwhile
        if latest is not None and latest[0] == epoch:
            return list(latest[1])
        rng = np.random.default_rng([self._seed, epoch])
        batches = []
        for length, indices in self._members:
            if self._shuffle:
                indices = rng.permutation(indices)
            starts = range(0, len(indices), self._batch_size)
            batches += [(length, indices[start : start + self._batch_size]) for start in starts]
        if self._shuffle:
            batches = [batches[i] for i in rng.permutation(len(batches))]
        self._latest = (epoch, batches)
        return list(batches)

    def batches_per_epoch(self, epoch: int = 0) -> int:
        """Returns the number of batches in an epoch, the same for all epochs."""
        return len(self.plan(epoch))

    def padding_fraction(self, epoch: int = 0) -> float:
        """Returns the share of the epoch's B x T cells that hold no token: padding within rows and filler rows."""
        cells = self._batch_size * sum(length for length, _ in self.plan(epoch))
        return 1 - int(self._lengths.sum()) / cells

    def batch(self, position: int) -> TextBatch:
        """Makes batch number `position` ≥ 0 since the start of training, epochs being joined end to end."""
        count("position", position, why=": batches are numbered from 0")
        epoch, place = divmod(position, self._per_epoch)
        length, indices = self.plan(epoch)[place]
        size = self._batch_size
        batch = TextBatch(
            ids=np.zeros((size, length), np.int32),
            lengths=np.zeros(size, np.int32),
            labels=np.zeros(size, np.int32),
            weights=np.zeros(size, np.float32),
        )
        for row, index in enumerate(indices):
            ids = self._encoded[index][:length]
            batch.ids[row, : len(ids)] = ids
        batch.lengths[: len(indices)] = self._lengths[indices]
        batch.labels[: len(indices)] = self._labels[indices]
        batch.weights[: len(indices)] = 1
        return batch


@runtime_checkable
class BatchSource(Protocol[Batch_co]):
    """Batches by their number."""

    def batch(self, number: int, /) -> Batch_co:
        """Returns batch number `number` ≥ 0."""


def stream(
    batches: BatchSource[Batch], start: int, stop: int | None = None, *, prefetch: int = 2
) -> Generator[Batch, None, None]:
    """Yields batches `start`, `start` + 1, ... up to (not including) `stop`, or without end, made ahead in a thread.

    At most `prefetch` of them wait at a time. An error in making one is raised where that batch was due.
    The thread ends with the iterator: at the end, at an error, at `.close()` or when the iterator is dropped.

    Raises:
      DataError: if `batches` has no `batch`, `start` is below 0, `stop` below `start` or `prefetch` below 1.
    """
    sizes = (start, prefetch) if stop is None else (start, prefetch, stop)
    if not all(map(is_integer, sizes)) or start < 0 or (stop is not None and stop < start) or prefetch < 1:
        raise DataError(f"start={start}, stop={stop}, prefetch={prefetch}; give 0 ≤ start ≤ stop and prefetch ≥ 1")
    if not isinstance(batches, BatchSource):
        raise DataError(f"batches is {shown(batches)}; give what has a method batch(number), such as Batches")
    return _stream(batches, start, stop, prefetch)


def _stream(batches: BatchSource[Batch], start: int, stop: int | None, prefetch: int) -> Generator[Batch, None, None]:
    ready: queue.SimpleQueue[Batch | Exception] = queue.SimpleQueue()
    room = threading.Semaphore(prefetch)
    closed = threading.Event()

    def work() -> None:
        position = start
        while stop is None or position < stop:
            room.acquire()
            if closed.is_set():
                return
            try:
                ready.put(batches.batch(position))
            except Exception as error:  # raised in the consumer's thread
                ready.put(error)
                return
            position += 1

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        position = start
        while stop is None or position < stop:
            item = ready.get()
            room.release()
            if isinstance(item, Exception):
                raise item
            yield item
            position += 1
    finally:
        closed.set()
        room.release()
        thread.join()
