"""Several sequences in a row, each after a reset, in place of a row with padding for each.

    packed = pack(sequences, row_length=1024)
    carry, ys = layer(embed(packed.ids), seq_lengths=packed.lengths, resets=packed.resets, return_carry=True)
    outputs = unpack(ys, packed)                            # one array (length, ...) for each sequence

`PackedBatches` deals labelled texts so, in batches of one shape.
"""

import bisect
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Integer
from numpy.typing import ArrayLike

from qlstm_jax.data.checks import as_array, count, integers, shown, token_arrays
from qlstm_jax.data.rows import DataError

_SHORT = 2  # a row has places for so many times as many sequences as it holds on average


class Packed(NamedTuple):
    """R rows of L tokens."""

    ids: Int[np.ndarray, "rows length"]  # int32, 0 beyond each row's length
    lengths: Int[np.ndarray, " rows"]  # int32, tokens of each row
    resets: Bool[np.ndarray, "rows length"]  # true at the first token of each sequence
    sequence: Int[np.ndarray, "rows places"]  # int32, the index of each sequence of the row in its order; −1: none


class PackedBatch(NamedTuple):
    """R rows with at most P labelled texts each; a pytree. Places without a text weigh 0."""

    ids: Int[np.ndarray, "rows length"]  # int32, 0 beyond each row's length
    lengths: Int[np.ndarray, " rows"]  # int32
    resets: Bool[np.ndarray, "rows length"]
    labels: Int[np.ndarray, "rows places"]  # int32
    weights: Float[np.ndarray, "rows places"]  # float32, 1 for a text and 0 for none


def plan_rows(lengths: ArrayLike, row_length: int, *, most: int | None = None) -> list[list[int]]:
    """Assigns sequences to rows: each to the row with the least room that holds it (best fit), else a new one.

    Args:
        lengths: (N,) integers from 1 to row_length, in the order in which sequences are placed.
        row_length: L.
        most: sequences that a row may hold; None for any number.

    Returns:
        For each row the places in `lengths` of its sequences, in the order in which they were placed.

    Raises:
        DataError: for lengths outside 1..row_length, or numbers that are no positive integers.
    """
    count("row_length", row_length, 1)
    if most is not None:
        count("most", most, 1)
    lengths = integers("lengths", lengths, minimum=1)
    if lengths.size and lengths.max() > row_length:
        raise DataError(f"lengths has {lengths.max()}; give lengths up to row_length={row_length}")
    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (tokens, row) of rows that are not full, the fewest tokens first
    for index, length in enumerate(lengths.tolist()):
        found = bisect.bisect_left(room, (length, -1))
        free, row = room.pop(found) if found < len(room) else (row_length, len(rows))
        if row == len(rows):
            rows.append([])
        rows[row].append(index)
        if free > length and len(rows[row]) != most:
            bisect.insort(room, (free - length, row))
    return rows


def pack(sequences: Sequence[Integer[np.ndarray, " _"]], row_length: int) -> Packed:
    """Lays sequences of token ids side by side, the longest first.

    Args:
        sequences: N arrays of integers, each of 1 to row_length.
        row_length: L.

    Raises:
        DataError: for a sequence that is empty or longer than a row.
    """
    count("row_length", row_length, 1)
    token_arrays("sequences", sequences)
    lengths = np.array([len(ids) for ids in sequences], np.int64)
    bad = np.flatnonzero((lengths < 1) | (lengths > row_length))
    if bad.size:
        raise DataError(
            f"sequence {bad[0]} has {lengths[bad[0]]} tokens; expected 1 to row_length={row_length}: cut it, leave it "
            "out or make rows longer"
        )
    order = np.argsort(-lengths, kind="stable")
    rows = [[int(order[i]) for i in row] for row in plan_rows(lengths[order], row_length)]
    return _lay(sequences, rows, len(rows), row_length, max(map(len, rows), default=0))


def _lay(
    sequences: Sequence[Integer[np.ndarray, " _"]], rows: Sequence[Sequence[int]], count: int, length: int, places: int
) -> Packed:
    packed = Packed(
        ids=np.zeros((count, length), np.int32),
        lengths=np.zeros(count, np.int32),
        resets=np.zeros((count, length), bool),
        sequence=np.full((count, places), -1, np.int32),
    )
    for row, members in enumerate(rows):
        packed.sequence[row, : len(members)] = members
        end = 0
        for index in members:
            begin, end = end, end + len(sequences[index])
            packed.resets[row, begin] = True
            packed.ids[row, begin:end] = sequences[index]
        packed.lengths[row] = end
    return packed


def unpack(outputs: Any, packed: Packed) -> list[np.ndarray]:
    """Returns the outputs of each sequence, in the order of `pack`'s argument.

    Args:
        outputs: (R, L, ...), one for each token of the rows.
        packed: from `pack`.

    Returns:
        For each sequence an array (its length, ...).

    Raises:
        DataError: if the outputs are not of these rows.
    """
    if not isinstance(packed, Packed):
        raise DataError(f"packed is {shown(packed)}; give what pack has returned")
    outputs = np.asarray(as_array("outputs", outputs, f"an array of shape {packed.ids.shape} and more axes"))
    if outputs.shape[:2] != packed.ids.shape:
        raise DataError(
            f"outputs have shape {outputs.shape}; expected {packed.ids.shape} as first axes, rows of tokens"
        )
    found: dict[int, np.ndarray] = {}
    for row, members in enumerate(packed.sequence):
        begins = np.flatnonzero(packed.resets[row])
        ends = [*begins[1:], packed.lengths[row]]
        for index, begin, end in zip(members, begins, ends, strict=False):
            found[int(index)] = outputs[row, begin:end]
    return [found[index] for index in range(len(found))]


class PackedBatches:
    """Batches of packed rows of labelled texts, by their number: `Batches`, with several texts in a row.

    An epoch visits every text once, in rows that a function of the seed and the epoch's number deals, so training
    resumes from a batch number alone.

    Args:
        encoded: N arrays (length,) of integer ids; those longer than max_length keep their first tokens. Texts of no
            token count as one of id 0.
        labels: (N,) integers.
        batch_size: R, rows in every batch; those that complete the last batch of an epoch are empty.
        max_length: tokens of a text.
        row_length: L, tokens of a row.
        seed: an int ≥ 0, the source of the order.

    Attributes:
        places: P, the most texts of a row.

    Raises:
        DataError: for a row_length below max_length, or unequal or no lengths.
    """

    def __init__(
        self,
        encoded: Sequence[Integer[np.ndarray, " _"]],
        labels: ArrayLike,
        *,
        batch_size: int,
        max_length: int,
        row_length: int,
        seed: int,
    ) -> None:
        labels = integers("labels", labels)
        token_arrays("encoded", encoded)
        for name, value in (("batch_size", batch_size), ("max_length", max_length), ("row_length", row_length)):
            count(name, value, 1)
        count("seed", seed)
        if not len(encoded) or labels.shape != (len(encoded),):
            raise DataError(f"{len(encoded)} texts and labels of shape {labels.shape}; give a label for each text")
        if not 1 <= max_length <= row_length:
            raise DataError(f"row_length is {row_length}; expected at least max_length, which is {max_length}")
        nothing = np.zeros(1, np.int32)
        self._encoded = [ids[:max_length] if len(ids) else nothing for ids in encoded]
        self._labels = labels.astype(np.int32)
        self._lengths = np.array([len(ids) for ids in self._encoded], np.int64)
        self._batch_size, self._row_length, self._seed = batch_size, row_length, seed
        self.places = _SHORT * max(1, round(row_length / float(self._lengths.mean())))
        self._numbers: list[int] = []  # batches up to the end of each epoch
        self._latest: tuple[int, list[list[int]]] | None = None

    def rows(self, epoch: int) -> list[list[int]]:
        """Returns the epoch's rows, each as the indices of its texts."""
        count("epoch", epoch)
        latest = self._latest  # one reference, read once: a prefetching thread may replace it meanwhile
        if latest is not None and latest[0] == epoch:
            return latest[1]
        rng = np.random.default_rng([self._seed, epoch])
        order = rng.permutation(len(self._encoded))
        dealt = plan_rows(self._lengths[order], self._row_length, most=self.places)
        rows = [[int(order[i]) for i in dealt[row]] for row in rng.permutation(len(dealt))]
        self._latest = (epoch, rows)
        return rows

    def batches_per_epoch(self, epoch: int = 0) -> int:
        """Returns the number of batches in an epoch; epochs may differ by one."""
        return -(-len(self.rows(epoch)) // self._batch_size)

    def padding_fraction(self, epoch: int = 0) -> float:
        """Returns the share of the epoch's cells that hold no token: the ends of rows, and empty rows."""
        cells = self.batches_per_epoch(epoch) * self._batch_size * self._row_length
        return 1 - int(self._lengths.sum()) / cells

    def batch(self, position: int) -> PackedBatch:
        """Makes batch number `position` ≥ 0 since the start of training, epochs being joined end to end."""
        count("position", position, why=": batches are numbered from 0")
        epoch, place = self._place(position)
        chosen = self.rows(epoch)[place * self._batch_size : (place + 1) * self._batch_size]
        packed = _lay(self._encoded, chosen, self._batch_size, self._row_length, self.places)
        there = packed.sequence >= 0
        labels = np.where(there, self._labels[packed.sequence], 0).astype(np.int32)
        return PackedBatch(packed.ids, packed.lengths, packed.resets, labels, there.astype(np.float32))

    def _place(self, position: int) -> tuple[int, int]:
        """Returns the epoch of a batch and its place in it."""
        while not self._numbers or self._numbers[-1] <= position:
            before = self._numbers[-1] if self._numbers else 0
            self._numbers.append(before + self.batches_per_epoch(len(self._numbers)))
        epoch = bisect.bisect_right(self._numbers, position)
        return epoch, position - (self._numbers[epoch - 1] if epoch else 0)
