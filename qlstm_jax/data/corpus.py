"""Text for language modelling: files to parts, parts to an array of tokens each, arrays to windows of parallel streams.

Loss in nats a token becomes comparable between tokenizers as bits per byte:

    bits per byte = loss / ln 2 · tokens / bytes
"""

import dataclasses
import hashlib
import math
import os
import platform
import sysconfig
from pathlib import Path
from typing import NamedTuple, TypedDict

import numpy as np
from jaxtyping import Bool, Int, Integer, UInt
from numpy.typing import ArrayLike

from qlstm_jax.data.checks import check_shares, count, integers, is_number, shown, string
from qlstm_jax.data.files import check_path, read_bytes
from qlstm_jax.data.folders import part_hidden
from qlstm_jax.data.rows import DataError
from qlstm_jax.data.tokenizer import Tokenizer

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
        """Source, number of files and bytes, and a SHA-256 digest of the contents, which identify this corpus."""
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
        """One line for a log."""
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
    """The file, or a folder's files named like `pattern` that are not hidden, and notes of those left out."""
    if root.is_file():
        return [root], []
    return part_hidden(root, sorted(p for p in root.rglob(pattern) if p.is_file()))


def cut(contents: list[bytes], max_bytes: int) -> list[bytes]:
    """The first `max_bytes` of all contents, or all for 0, without empty ones or half letters.

    Raises:
      DataError: if max_bytes is no integer of at least 0, or the contents are no list of bytes.
    """
    count("max_bytes", max_bytes)
    _check_bytes(contents)
    left = max_bytes or sum(map(len, contents))
    kept: list[bytes] = []
    for content in contents:
        kept.append(content[: _letter_start(content, left)])
        left -= len(content)
        if left <= 0:
            break
    return [content for content in kept if content]


def _check_bytes(contents: object) -> None:
    if not isinstance(contents, list | tuple) or not all(isinstance(content, bytes) for content in contents):
        raise DataError(f"contents is {shown(contents)}; give a list of bytes")


def _letter_start(content: bytes, place: int) -> int:
    """The nearest place at or before `place` where no UTF-8 letter is cut in two."""
    if place >= len(content):
        return len(content)
    while place > 0 and content[place] & 0xC0 == 0x80:
        place -= 1
    return place


def split(corpus: Corpus, *, validation: float, test: float, seed: int) -> dict[str, list[bytes]]:
    """Three parts without a byte in common: "train", "validation" and "test".

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


class Bytes:
    """The tokenizer of bytes: the 256 values are the ids, any content can be encoded, and nothing is learnt."""

    vocab_size = 256

    def encode(self, text: str) -> Int[np.ndarray, " n"]:
        """The UTF-8 bytes of a text, (n,) int32; raises DataError for what is no string."""
        string("text", text)
        return np.frombuffer(text.encode(), np.uint8).astype(np.int32)

    def decode(self, ids: ArrayLike) -> str:
        """The text of ids (n,); what is no UTF-8 reads U+FFFD. Raises DataError for ids outside 0..255."""
        numbers = integers("ids", ids)
        if numbers.size and numbers.max() > 255:
            raise DataError(f"ids has {numbers.max()}; give ids in 0..255, the bytes")
        return bytes(numbers.astype(np.uint8)).decode(errors="replace")


def as_texts(contents: list[bytes], source: str) -> list[str]:
    """Contents as text, for a tokenizer that reads text.

    Raises:
      DataError: if one is not UTF-8, or no bytes.
    """
    _check_bytes(contents)
    try:
        return [content.decode() for content in contents]
    except UnicodeDecodeError as error:
        raise DataError(
            f"{source} is not all UTF-8 ({error.reason}: {error.object[error.start : error.end]!r}); "
            "convert it, or read bytes (--config.lm.tokenizer=byte)"
        ) from error


def encode(contents: list[bytes], tokenizer: Tokenizer | Bytes, source: str) -> UInt[np.ndarray, " n"]:
    """All contents, end to end, as one array of ids (n,), of the smallest unsigned type that holds the vocabulary.

    Raises:
      DataError: if they are not UTF-8 and the tokenizer reads text.
    """
    _check_bytes(contents)
    if not isinstance(tokenizer, Bytes | Tokenizer):
        raise DataError(f"tokenizer is {shown(tokenizer)}; give a Tokenizer or Bytes()")
    if isinstance(tokenizer, Bytes):
        return np.frombuffer(b"".join(contents), np.uint8)
    ids = tokenizer.encode_batch(as_texts(contents, source))
    return np.concatenate([np.zeros(0, np.int32), *ids]).astype(np.min_scalar_type(tokenizer.vocab_size - 1))


def bits_per_byte(nats: float, tokens: int, num_bytes: int) -> float:
    """A mean loss in nats a token as bits a byte, for a text of so many tokens and bytes.

    Raises:
      DataError: if nats is no number, or there are no bytes.
    """
    if not (isinstance(nats, float | np.floating) or is_number(nats)):  # of a run that diverged it is NaN
        raise DataError(f"nats is {shown(nats)}; give a number")
    count("tokens", tokens)
    count("num_bytes", num_bytes, 1)
    return nats / math.log(2) * tokens / num_bytes


class Window(NamedTuple):
    """T + 1 consecutive tokens of each of B streams: T inputs, and from the second on the T targets."""

    tokens: Int[np.ndarray, "batch time_plus_1"]  # int32
    starts: Bool[np.ndarray, " batch"]  # whether a row begins here, so that nothing goes before its first token


class Windows:
    """Consecutive windows of B streams that lie side by side in an array of tokens.

    With S = floor(N / B) tokens a stream and W = floor((S - 1) / T) windows a pass, window number n holds for row b

        tokens[b·S + (n mod W)·T + i],  i = 0 .. T

    so that it is a function of its number alone, and window n + 1 goes on exactly where n ends until a new pass begins.
    With R = `restart` above 0 a row also begins anew every R windows, rows taking turns:

        starts_b = (n mod W = 0)  or  ((n mod W) + floor(b·R / B)) mod R = 0

    Args:
      tokens: (N,) ids.
      batch_size: B.
      length: T.
      restart: R, windows; 0 for never within a pass.
      name: of the tokens, for the error.

    Raises:
      DataError: if there are not T + 1 tokens for each stream, or a number is out of range.
    """

    def __init__(
        self,
        tokens: Integer[np.ndarray, " n"],
        batch_size: int,
        length: int,
        *,
        restart: int = 0,
        name: str = "the text",
    ) -> None:
        count("batch_size", batch_size, 1)
        count("length", length, 1)
        count("restart", restart)
        tokens = integers("tokens", tokens)
        self.tokens, self.batch_size, self.length, self.restart = tokens, batch_size, length, restart
        self.stream_size = len(tokens) // batch_size
        self.per_pass = (self.stream_size - 1) // length
        if self.per_pass < 1:
            raise DataError(
                f"{name} has {len(tokens)} tokens; expected at least {batch_size * (length + 1)}, so that "
                f"{batch_size} streams have a window of {length} and its last target each. Give more text, or a "
                "smaller lm.length or train.batch_size"
            )

    def batch(self, number: int) -> Window:
        """Window number `number` ≥ 0, passes being joined end to end."""
        count("number", number)
        place = number % self.per_pass
        rows = np.arange(self.batch_size)
        first = rows * self.stream_size + place * self.length
        tokens = self.tokens[first[:, None] + np.arange(self.length + 1)[None, :]].astype(np.int32)
        starts = np.full(self.batch_size, place == 0)
        if self.restart:
            starts |= (place + rows * self.restart // self.batch_size) % self.restart == 0
        return Window(tokens, starts)


def windows(tokens: Integer[np.ndarray, " n"], batch_size: int, length: int, *, name: str = "the text") -> Windows:
    """`Windows` in up to `batch_size` streams: fewer where the text has not a window for each, as in evaluation.

    Raises:
      DataError: if there is not one window.
    """
    count("batch_size", batch_size, 1)
    count("length", length, 1)
    tokens = integers("tokens", tokens)
    return Windows(tokens, max(1, min(batch_size, len(tokens) // (length + 1))), length, name=name)
