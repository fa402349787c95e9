"""Windows of tokens for language modelling: texts as one array of ids, read as parallel streams.

Loss in nats a token becomes comparable between tokenizers as bits per byte:

    bits per byte = loss / ln 2 · tokens / bytes
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Integer, UInt
from numpy.typing import ArrayLike

from qlstm_jax.data.checks import count, integers, is_number, shown, string
from qlstm_jax.data.corpus import check_contents
from qlstm_jax.data.rows import DataError
from qlstm_jax.data.tokenizer import Tokenizer


class Bytes:
    """The tokenizer of bytes: the 256 values are the ids, any content can be encoded, and nothing is learnt."""

    vocab_size = 256

    def encode(self, text: str) -> Int[np.ndarray, " n"]:
        """Encodes a text as its UTF-8 bytes, (n,) int32; raises DataError if it is no string."""
        string("text", text)
        return np.frombuffer(text.encode(), np.uint8).astype(np.int32)

    def decode(self, ids: ArrayLike) -> str:
        """Decodes ids (n,); bytes that are no UTF-8 become U+FFFD. Raises DataError for ids outside 0..255."""
        numbers = integers("ids", ids)
        if numbers.size and numbers.max() > 255:
            raise DataError(f"ids has {numbers.max()}; give ids in 0..255, the bytes")
        return bytes(numbers.astype(np.uint8)).decode(errors="replace")


def as_texts(contents: list[bytes], source: str) -> list[str]:
    """Decodes contents, for a tokenizer that reads text.

    Raises:
      DataError: if one is not UTF-8, or no bytes.
    """
    check_contents(contents)
    try:
        return [content.decode() for content in contents]
    except UnicodeDecodeError as error:
        raise DataError(
            f"{source} is not all UTF-8 ({error.reason}: {error.object[error.start : error.end]!r}); "
            "convert it, or read bytes (--config.lm.tokenizer=byte)"
        ) from error


def encode(contents: list[bytes], tokenizer: Tokenizer | Bytes, source: str) -> UInt[np.ndarray, " n"]:
    """Encodes all contents, end to end, as ids (n,) of the smallest unsigned type that holds the vocabulary.

    Raises:
      DataError: if they are not UTF-8 and the tokenizer reads text.
    """
    check_contents(contents)
    if not isinstance(tokenizer, Bytes | Tokenizer):
        raise DataError(f"tokenizer is {shown(tokenizer)}; give a Tokenizer or Bytes()")
    if isinstance(tokenizer, Bytes):
        return np.frombuffer(b"".join(contents), np.uint8)
    ids = tokenizer.encode_batch(as_texts(contents, source))
    return np.concatenate([np.zeros(0, np.int32), *ids]).astype(np.min_scalar_type(tokenizer.vocab_size - 1))


def bits_per_byte(nats: float, tokens: int, num_bytes: int) -> float:
    """Converts a mean loss in nats per token to bits per byte, for a text of so many tokens and bytes.

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
        """Makes window number `number` ≥ 0, passes being joined end to end."""
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
    """Returns `Windows` in up to `batch_size` streams: fewer where the text is too short for a window each.

    Raises:
      DataError: if there is not one window.
    """
    count("batch_size", batch_size, 1)
    count("length", length, 1)
    tokens = integers("tokens", tokens)
    return Windows(tokens, max(1, min(batch_size, len(tokens) // (length + 1))), length, name=name)
