"""Labels for texts without number, in batches of bounded memory and few lengths."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from qlstm_jax.data.unlabelled import Unlabelled

SORTED = 16  # batches whose texts are sorted by length together
SHORTEST = 16  # tokens; shorter texts are padded to it, longer ones to a power of two

Encode = Callable[[list[str]], list[Int[np.ndarray, " _"]]]
Probabilities = Callable[[Int[np.ndarray, "batch time"], Int[np.ndarray, " batch"]], Float[np.ndarray, "batch classes"]]


def records(
    texts: Iterable[Unlabelled],
    label_names: tuple[str, ...],
    encode: Encode,
    probabilities: Probabilities,
    *,
    batch_size: int,
    max_length: int,
) -> Iterator[dict[str, Any]]:
    """Yields a record for each text in their order, as they are read: its label and the probability of every label.

    One that has a note has neither. At most 16 batches of texts are held, and at most one is computed, at a time.

    Args:
        texts: without end, if need be.
        label_names: C names.
        encode: texts to their ids, of at most `max_length` each.
        probabilities: of ids and lengths.
        batch_size: B, texts at a time.
        max_length: in tokens.
    """
    source = iter(texts)
    while some := list(itertools.islice(source, SORTED * batch_size)):
        encoded = encode([text for text, note in some if not note])
        rows = iter(_in_batches(encoded, probabilities, batch_size, max_length))
        for text, note in some:
            if note:
                yield {"text": text, "label": None, "probabilities": None, "note": note}
                continue
            row = next(rows)
            chances = {name: round(float(q), 6) for name, q in zip(label_names, row, strict=True)}
            yield {"text": text, "label": label_names[int(np.argmax(row))], "probabilities": chances}


def _in_batches(
    encoded: list[Int[np.ndarray, " _"]], probabilities: Probabilities, batch_size: int, max_length: int
) -> list[Float[np.ndarray, " classes"]]:
    """Returns the probabilities of each text. Batches are of one number of rows and of few lengths, each a program."""
    result: list[Any] = [None] * len(encoded)
    size = min(batch_size, _power_of_two(len(encoded)))
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
    for start in range(0, len(order), size):
        members = order[start : start + size]
        longest = max(SHORTEST, *(len(encoded[i]) for i in members))
        ids = np.zeros((size, min(_power_of_two(longest), max_length)), np.int32)
        lengths = np.zeros(size, np.int32)
        for row, i in enumerate(members):
            lengths[row] = len(encoded[i])
            ids[row, : lengths[row]] = encoded[i]
        for i, chances in zip(members, probabilities(ids, lengths), strict=False):  # the rest are rows of no text
            result[i] = chances
    return result


def _power_of_two(number: int) -> int:
    """Returns the least power of two that is not below a number of at least 1."""
    return 1 << max(number - 1, 0).bit_length()
