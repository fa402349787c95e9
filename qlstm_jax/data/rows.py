"""Labelled texts: checked rows as `Examples`, and a report of those left out."""

import dataclasses
import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypedDict

import numpy as np
from jaxtyping import Int

# Undecodable bytes become these under errors="surrogateescape", and so do unpaired escapes in JSON.
NOT_TEXT = re.compile("[\ud800-\udfff]")
LINE_BREAK = re.compile(r"(?i)<br\s*/?>")
_INTEGER = re.compile(r"[+-]?[0-9]+")
_SKIP_HINT = "on_bad_row='skip' leaves such rows out and counts them in the report"


def is_empty(text: str | None) -> bool:
    """Returns whether a text or label is missing, or is of blanks, line-break tags and invisible characters alone.

    Invisible are control and format characters, such as a byte-order mark or a zero-width space.
    """
    return text is None or all(
        letter.isspace() or unicodedata.category(letter) in ("Cc", "Cf") for letter in LINE_BREAK.sub("", text)
    )


class DataError(ValueError):
    """Data that cannot be used as given; the message names the place, what was expected and how to fix it."""


class Row(NamedTuple):
    """The values of one row in the columns that were asked for, None where one is missing, and its "file:line"."""

    values: tuple[str | None, ...]
    where: str


class Refused(NamedTuple):
    """A row, or `lost` lines, that cannot be read; arguments as for `Collector.bad`."""

    reason: str
    where: str
    message: str
    lost: int = 1


@dataclasses.dataclass
class LoadReport:
    """Numbers of rows of one source that were read, kept and skipped.

    Attributes:
      source: the file, folder or dataset that was read.
      rows: how many rows it holds (the header is not one).
      kept: how many of them became examples.
      skipped: reason → how many rows were left out for it.
      first: reason → "file:line" of the first such row.
      notes: what else is to be known of the source, a sentence each.
    """

    source: str
    rows: int = 0
    kept: int = 0
    skipped: dict[str, int] = dataclasses.field(default_factory=dict)
    first: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)

    def summary(self) -> str:
        """Returns one line for a log, such as `a.csv: 9 rows, 8 kept, 1 skipped (1 empty text, first at a.csv:4)`."""
        line = f"{self.source}: {self.rows} rows, {self.kept} kept"
        if not self.skipped:
            return line
        reasons = "; ".join(f"{n} {reason}, first at {self.first[reason]}" for reason, n in self.skipped.items())
        return f"{line}, {sum(self.skipped.values())} skipped ({reasons})"


class ExamplesRecord(TypedDict):
    """Identifies examples."""

    source: str
    texts: int
    sha256: str  # of texts and labels


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """N labelled texts.

    Attributes:
      texts: N strings, as in the source.
      labels: (N,) int32, indices into `label_names`.
      label_names: the classes; evaluation data take those of the training data.
      report: what was read and what was left out.
      groups: N names, None where the source has none. Examples of one group are kept together by a split, as reviews of
        one film must be.
    """

    texts: tuple[str, ...]
    labels: Int[np.ndarray, " n"]
    label_names: tuple[str, ...]
    report: LoadReport
    groups: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def record(self) -> ExamplesRecord:
        """Returns what identifies these examples: source, number, and a SHA-256 digest of texts and labels in order."""
        digest = hashlib.sha256()
        for text, label in zip(self.texts, self.labels, strict=True):
            for field in (text, self.label_names[label]):
                content = field.encode(errors="surrogatepass")
                digest.update(len(content).to_bytes(8, "little") + content)
        return {"source": self.report.source, "texts": len(self), "sha256": digest.hexdigest()}

    def take(self, indices: Sequence[int] | Int[np.ndarray, " m"], name: str) -> "Examples":
        """Returns the examples at `indices` (M,), in that order; `name` tells the part in its report."""
        report = LoadReport(f"{self.report.source} [{name}]", rows=len(indices), kept=len(indices))
        texts = tuple(self.texts[i] for i in indices)
        groups = None if self.groups is None else tuple(self.groups[i] for i in indices)
        return Examples(texts, self.labels[np.asarray(indices, np.int64)], self.label_names, report, groups)


class Collector:
    """Takes rows one by one, refuses or counts the bad ones, and hands back `Examples`.

    Args:
      source: the name of what is read, for the report and for errors.
      on_bad_row: 'error' raises at the first bad row, 'skip' counts it in the report.
      label_names: the only labels allowed, those of the training data; None takes the labels as they come.
    """

    def __init__(
        self, source: str | os.PathLike[str], on_bad_row: str = "error", label_names: Sequence[str] | None = None
    ) -> None:
        if on_bad_row not in ("error", "skip"):
            raise DataError(f"on_bad_row is {on_bad_row!r}; give 'error' or 'skip'")
        if isinstance(label_names, str) or (label_names is not None and len(set(label_names)) != len(label_names)):
            raise DataError(f"label_names is {label_names!r}; give a sequence of different strings, or None")
        self._skip = on_bad_row == "skip"
        self._known = None if label_names is None else tuple(str(name) for name in label_names)
        self._texts: list[str] = []
        self._labels: list[str] = []
        self._groups: list[str | None] = []
        self.report = LoadReport(str(source))

    def take(self, rows: Iterable[Row | Refused]) -> None:
        """Takes the rows of a table, whose columns are the text and the label."""
        for row in rows:
            if isinstance(row, Refused):
                self.bad(*row)
            else:
                text, label = row.values
                self.add(text, label, row.where)

    def add(self, text: str | None, label: str | None, where: str, group: str | None = None) -> None:
        """Adds one row; `where` is its "file:line", `group` what it has in common with other rows. None is missing."""
        text, label = text or "", (label or "").strip()
        if NOT_TEXT.search(text) or NOT_TEXT.search(label):
            self.bad("invalid UTF-8", where, "the text or label holds bytes that are not UTF-8; save it as UTF-8")
        elif is_empty(text):
            self.bad("empty text", where, "the text is missing or blank; give a text or remove the row")
        elif is_empty(label):
            self.bad("missing label", where, "the label is missing or blank; give a label or remove the row")
        elif self._known is not None and label not in self._known:
            self.bad(
                "label never seen in training",
                where,
                f"the label is {label!r} and those of training are {', '.join(map(repr, self._known))}; "
                "correct it, or train on data that have it",
            )
        else:
            self.report.rows += 1
            self.report.kept += 1
            self._texts.append(text)
            self._labels.append(label)
            self._groups.append(group)

    def bad(self, reason: str, where: str, message: str, count: int = 1) -> None:
        """Takes a row, or `count` lines, that cannot be used; `message` says what is wrong and how to fix it.

        Raises:
          DataError: under on_bad_row='error'.
        """
        if not self._skip:
            raise DataError(f"{where}: {reason}: {message} ({_SKIP_HINT})")
        self.leave_out(reason, where, count)

    def leave_out(self, reason: str, where: str, count: int) -> None:
        """Counts `count` rows, the first at `where`, that are left out whatever `on_bad_row` says."""
        self.report.rows += count
        self.report.skipped[reason] = self.report.skipped.get(reason, 0) + count
        self.report.first.setdefault(reason, where)

    def finish(self) -> Examples:
        """Returns the rows as `Examples`.

        Raises:
          DataError: if no row is left, or, with no `label_names` given, if all have one label.
        """
        if not self._texts:
            raise DataError(f"no usable rows: {self.report.summary()}; give at least one row with a text and a label")
        names = self._known or label_order(self._labels)
        if len(names) < 2:
            raise DataError(
                f"{self.report.source}: every row has the label {names[0]!r}; a classifier needs at least "
                "two classes (to evaluate on such data, give the training data's label_names)"
            )
        index = {name: i for i, name in enumerate(names)}
        labels = np.asarray([index[label] for label in self._labels], np.int32)
        groups = None if None in self._groups else tuple(str(group) for group in self._groups)
        return Examples(tuple(self._texts), labels, names, self.report, groups)


def label_order(labels: Iterable[str]) -> tuple[str, ...]:
    """Returns the different strings of `labels`: in numeric order if all are integers, else alphabetical."""
    names = sorted(set(labels))
    if all(_INTEGER.fullmatch(name) for name in names):
        names.sort(key=int)
    return tuple(names)
