"""The division of labelled texts into training, validation and test parts without a text in common."""

import itertools
import unicodedata
from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from qlstm_jax.data.checks import count, flag, is_number, shown
from qlstm_jax.data.rows import LINE_BREAK, DataError, Examples


def text_key(text: str, *, lowercase: bool = True) -> str:
    """Returns a key that is the same for all texts that are one text to a model.

    They differ in blanks, line-break tags, Unicode form (é as one character or as two) and, with `lowercase`, in case.

    Raises:
      DataError: if the text is no string, or lowercase no flag.
    """
    if not isinstance(text, str):
        raise DataError(f"text is {shown(text)}; give a string")
    flag("lowercase", lowercase)
    text = LINE_BREAK.sub(" ", unicodedata.normalize("NFC", text))
    if lowercase:
        text = text.lower().replace("ς", "σ")  # Python writes the one at the end of a word, tokenizers the other
    return "".join(text.split())


def split(
    examples: Examples, *, validation: float = 0.1, test: float = 0.1, seed: int = 0, lowercase: bool = True
) -> tuple[Examples, Examples, Examples]:
    """Divides examples into training, validation and test parts, each with the classes in equal proportion.

    Rows of one text, as `text_key` has it, or of one group are always in the same part, so no text of training is in
    another part. The result depends on the examples and the arguments alone.

    Args:
      examples: N examples.
      validation: the share of each class for validation, at least 0; 0 gives an empty part.
      test: the share for testing, likewise; the two leave more than nothing to training.
      seed: an int ≥ 0; another seed gives another division.
      lowercase: whether texts that differ in case alone are one text.

    Returns:
      (train, validation, test), each in the order of `examples`.

    Raises:
      DataError: for shares out of range, or if a class has too few different texts for each part to have one.
    """
    both = is_number(validation) and is_number(test)
    if not both or min(validation, test) < 0 or validation + test >= 1:
        raise DataError(f"validation={shown(validation)}, test={shown(test)}; give shares ≥ 0 whose sum is below 1")
    count("seed", seed)
    if not isinstance(examples, Examples):
        raise DataError(f"examples is {shown(examples)}; give Examples, such as from text.load")
    by_label = defaultdict(list)
    for rows in _together(examples, lowercase):
        by_label[int(examples.labels[rows[0]])].append(rows)

    parts: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    for label, members in sorted(by_label.items()):
        total = sum(map(len, members))
        room = {"validation": _share(validation, total), "test": _share(test, total)}
        wanted = {"train", *(name for name, count in room.items() if count)}
        rng = np.random.default_rng([seed, label])
        for i in rng.permutation(len(members)):
            rows = members[i]
            name = next((name for name in ("test", "validation") if len(rows) <= room.get(name, 0)), "train")
            parts[name].extend(rows)
            room[name] = room.get(name, 0) - len(rows)
            wanted.discard(name)
        if wanted:
            raise DataError(
                f"{examples.report.source}: the class {examples.label_names[label]!r} has {len(members)} "
                f"different texts in {total} rows, too few to give {' and '.join(sorted(wanted))} one; add "
                "examples or set a share to 0"
            )
    train, held_out, tested = (examples.take(np.sort(np.asarray(rows, np.int64)), n) for n, rows in parts.items())
    return train, held_out, tested


def _together(examples: Examples, lowercase: bool) -> list[list[int]]:
    """Returns the rows that a split may not part, those of one text or one group, in the order of their first."""
    names = [("text", text_key(text, lowercase=lowercase)) for text in examples.texts]
    parent = list(range(len(names)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    keys = [names] if examples.groups is None else [names, [("group", group) for group in examples.groups]]
    for column in keys:
        first: dict[tuple[str, str], int] = {}
        for i, key in enumerate(column):
            a, b = sorted((root(first.setdefault(key, i)), root(i)))
            parent[b] = a
    rows = defaultdict(list)
    for i in range(len(names)):
        rows[root(i)].append(i)
    return list(rows.values())


def _share(share: float, total: int) -> int:
    return max(1, round(share * total)) if share else 0


FULL = {"train": "training"}


def part_notes(parts: Mapping[str, Examples], *, lowercase: bool = True) -> list[str]:
    """Returns notes on texts with several labels, texts that stand in two parts, and labels that a part lacks.

    A line each. The first happens in any data, the others in parts that `split` did not make.
    """
    labels: dict[str, set[str]] = defaultdict(set)
    rows: dict[str, int] = defaultdict(int)
    keys: dict[str, list[str]] = {}
    for part, examples in parts.items():
        keys[part] = [text_key(text, lowercase=lowercase) for text in examples.texts]
        for key, label in zip(keys[part], examples.labels, strict=True):
            labels[key].add(examples.label_names[label])
            rows[key] += 1
    notes: list[str] = []
    several = [key for key, names in labels.items() if len(names) > 1]
    if several:
        all_texts = (text for part, examples in parts.items() for text in zip(keys[part], examples.texts, strict=True))
        example = next(text for key, text in all_texts if key == several[0]).strip()
        notes.append(
            f"texts with contradictory labels: {len(several)}, in {sum(rows[key] for key in several)} rows, such as "
            f"{example[:40]!r} ({', '.join(sorted(labels[several[0]]))})"
        )
    for part, other in itertools.combinations(keys, 2):
        known = set(keys[part])
        count = sum(key in known for key in keys[other])
        if count:
            notes.append(
                f"{other} texts that are in the {FULL.get(part, part)} part too: {count} of {len(keys[other])}"
            )
        lacking = sorted(set(range(len(parts[other].label_names))) - set(parts[other].labels.tolist()))
        if part == "train" and lacking and len(parts[other]):
            notes.append(f"{other} has no text of {', '.join(repr(parts[other].label_names[i]) for i in lacking)}")
    return notes
