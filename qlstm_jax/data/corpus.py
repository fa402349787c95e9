"""Reads the files of a text for language modelling and splits them into parts."""

import dataclasses
import hashlib
import os
import platform
import sysconfig
from pathlib import Path
from typing import TypedDict

import numpy as np

from qlstm_jax.data.checks import check_shares, count, shown
from qlstm_jax.data.files import check_path, read_bytes
from qlstm_jax.data.folders import part_hidden
from qlstm_jax.data.rows import DataError

MANY = 20  # files, from which on a split is by whole files
NOT_LIBRARY = {"site-packages", "dist-packages", "test", "tests", "idlelib"}  # folders


class CorpusRecord(TypedDict):
    """Identifies a corpus."""

    source: str
    files: int
    bytes: int
    sha256: str  # of the contents


@dataclasses.dataclass(frozen=True, eq=False)
class Corpus:
    """The contents of some files, in the order of their names.

    Attributes:
      source: what was read, in words.
      contents: the bytes of each file.
      parts: of each file, "train", "validation" or "test", where the source says so; else nothing.
      notes: what else is to be known of the source, a sentence each.
    """

    source: str
    contents: tuple[bytes, ...]
    parts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def num_bytes(self) -> int:
        """Bytes of all files together."""
        return sum(map(len, self.contents))

    def record(self) -> CorpusRecord:
        """Returns what identifies this corpus: source, numbers of files and bytes, SHA-256 digest of the contents."""
        digest = hashlib.sha256()
        for content in self.contents:
            digest.update(len(content).to_bytes(8, "little") + content)
        return {
            "source": self.source,
            "files": len(self.contents),
            "bytes": self.num_bytes,
            "sha256": digest.hexdigest(),
        }

    def summary(self) -> str:
        """Returns one line for a log."""
        return f"{self.source}: {len(self.contents)} files, {self.num_bytes} bytes"


def load(path: str | os.PathLike[str] = "", *, pattern: str = "*.txt", max_bytes: int = 0) -> Corpus:
    """Reads a corpus.

    Args:
      path: a file, or a folder whose files named like `pattern` are read at any depth, but for hidden ones, which are
        noted. "" is the standard library of the running Python: all its *.py but those in folders of installed packages
        and of tests, and idlelib.
      pattern: a shell pattern.
      max_bytes: cut after so many bytes, the last letter being left whole; 0 for all.

    Raises:
      DataError: if the path does not exist, or there is nothing to read.
    """
    hint = "give a text file, a folder of such, or '' for the standard library"
    root = check_path(path or sysconfig.get_paths()["stdlib"], hint, folder=True)
    source = str(root) if path else f"the standard library of Python {platform.python_version()}"
    files, notes = _find_files(root, pattern if path else "*.py")
    if not path:
        files = [p for p in files if not NOT_LIBRARY & set(p.relative_to(root).parts[:-1])]
    if not files:
        reason = f" ({notes[0]})" if notes else ""
        raise DataError(f"{root} has no file named like {pattern!r}{reason}; give that of its texts with pattern=...")
    contents = cut([read_bytes(p, hint) for p in files], max_bytes)
    if not contents:
        raise DataError(f"{source}: its {len(files)} files hold no text; give others")
    return Corpus(source, tuple(contents), notes=tuple(notes))


def _find_files(root: Path, pattern: str) -> tuple[list[Path], list[str]]:
    """Returns the file, or a folder's files named like `pattern` that are not hidden, and notes of those left out."""
    if root.is_file():
        return [root], []
    return part_hidden(root, sorted(p for p in root.rglob(pattern) if p.is_file()))


def cut(contents: list[bytes], max_bytes: int) -> list[bytes]:
    """Returns the first `max_bytes` of all contents, or all for 0, without empty ones or half letters.

    Raises:
      DataError: if max_bytes is no integer of at least 0, or the contents are no list of bytes.
    """
    count("max_bytes", max_bytes)
    check_contents(contents)
    left = max_bytes or sum(map(len, contents))
    kept: list[bytes] = []
    for content in contents:
        kept.append(content[: _letter_start(content, left)])
        left -= len(content)
        if left <= 0:
            break
    return [content for content in kept if content]


def check_contents(contents: object) -> None:
    """Raises DataError for what is no list of bytes."""
    if not isinstance(contents, list | tuple) or not all(isinstance(content, bytes) for content in contents):
        raise DataError(f"contents is {shown(contents)}; give a list of bytes")


def _letter_start(content: bytes, place: int) -> int:
    """Returns the nearest place at or before `place` where no UTF-8 letter is cut in two."""
    if place >= len(content):
        return len(content)
    while place > 0 and content[place] & 0xC0 == 0x80:
        place -= 1
    return place


def split(corpus: Corpus, *, validation: float, test: float, seed: int) -> dict[str, list[bytes]]:
    """Splits a corpus into three parts without a byte in common: "train", "validation" and "test".

    A corpus that names three parts of its own has those. Of others, from 20 files on, whole files are dealt out in an
    order drawn by `seed`, to each part until it has its share of the bytes; within a part they are in the order of
    their names. Fewer are read as one text, the end of which is tested on and what comes before that end validated on.

    Args:
      corpus: from `load`.
      validation, test: shares of the bytes, each more than 0, together less than 1.
      seed: of the order.

    Raises:
      DataError: for shares out of range, or if a part gets nothing.
    """
    check_shares(validation, test)
    count("seed", seed)
    if not isinstance(corpus, Corpus):
        raise DataError(f"corpus is {shown(corpus)}; give a Corpus, such as from load")
    if set(corpus.parts) == {"train", "validation", "test"}:
        named = list(zip(corpus.contents, corpus.parts, strict=True))
        return {part: [c for c, p in named if p == part] for part in ("train", "validation", "test")}
    if len(corpus.contents) < MANY:
        text = b"".join(corpus.contents)
        ends = [_letter_start(text, int(len(text) * share)) for share in (1 - validation - test, 1 - test)]
        parts = {"train": [text[: ends[0]]], "validation": [text[ends[0] : ends[1]]], "test": [text[ends[1] :]]}
    else:
        dealt: dict[str, list[int]] = {"test": [], "validation": [], "train": []}
        ahead = 0
        for number in np.random.default_rng(seed).permutation(len(corpus.contents)):
            share = ahead / corpus.num_bytes
            part = "test" if share < test else "validation" if share < test + validation else "train"
            dealt[part].append(number)
            ahead += len(corpus.contents[number])
        parts = {part: [corpus.contents[n] for n in sorted(dealt[part])] for part in ("train", "validation", "test")}
    for part, texts in parts.items():
        if not sum(map(len, texts)):
            raise DataError(f"{corpus.summary()}: nothing is left for the {part} part; give more text or other shares")
    return parts
