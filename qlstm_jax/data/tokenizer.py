"""Text to token ids: words, byte-level byte-pair encoding, or bytes, over the `tokenizers` package.

Ids 0 (padding) and 1 (unknown) are the same in all three kinds, and no text is ever encoded as padding.
"""

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from jaxtyping import Int
from numpy.typing import ArrayLike
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from qlstm_jax.data.checks import flag, integers, is_integer, shown, string, strings
from qlstm_jax.data.rows import DataError

PAD_ID = 0
UNK_ID = 1
KINDS = ("word", "bpe", "byte")
# Neither a word nor a byte-level token holds a blank, so no text can spell these.
_SPECIAL = ("< pad >", "< unk >")
_FORMAT = "qlstm_jax.tokenizer.v1"
# Words with inner apostrophes (don't, l'eau) stay whole; any other mark is a token of its own.
_WORD = tokenizers.Regex(r"\w+(?:['’]\w+)*|[^\w\s]")
_LINE_BREAK = tokenizers.Regex(r"(?i)<br\s*/?>")


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """A vocabulary and the way to split text into it; make one with `train` or `load`.

    Attributes:
      kind: 'word' (words and punctuation marks, rare ones unknown), 'bpe' (pieces of UTF-8 bytes) or 'byte'
        (one id for each UTF-8 byte, 2 + its value).
      lowercase: whether text is lower-cased first; 'byte' never does.
      vocab: the tokens in the order of their ids; empty for 'byte'.
      merges: the pairs of tokens that 'bpe' joins, in the order of their priority.

    Example:
      tokenizer = Tokenizer.train(train.texts, kind="word", vocab_size=20_000)
      ids = tokenizer.encode("A fine film!", max_length=256)   # (4,) int32
      tokenizer.save("tokenizer.json")
    """

    kind: str
    lowercase: bool
    vocab: tuple[str, ...] = ()
    merges: tuple[tuple[str, str], ...] = ()

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        *,
        kind: str = "word",
        vocab_size: int = 20_000,
        min_frequency: int = 2,
        lowercase: bool = True,
    ) -> "Tokenizer":
        """Trains a tokenizer on these texts; the same texts in any order give the same one.

        Args:
          texts: strings, of the training data alone. 'byte' learns nothing from them.
          kind: 'word', 'bpe' or 'byte'.
          vocab_size: at most so many ids, the two special ones among them: ≥ 3 for 'word', ≥ 258 for 'bpe';
            'byte' always has 258. 'word' keeps the most frequent words, alphabetically among equals.
          min_frequency: words (or, for 'bpe', pairs) seen less often get no id of their own, ≥ 1.
          lowercase: whether 'word' and 'bpe' lower-case; decoding then gives lower case.

        Raises:
          DataError: for an unknown kind, a number out of range, or texts that are no list of strings.
        """
        _check_kind(kind)
        if kind == "byte":
            return cls(kind, lowercase=False)
        flag("lowercase", lowercase)
        texts = strings("texts", texts)
        smallest = 3 if kind == "word" else 258
        if not is_integer(vocab_size) or not is_integer(min_frequency) or vocab_size < smallest or min_frequency < 1:
            raise DataError(
                f"vocab_size={shown(vocab_size)}, min_frequency={shown(min_frequency)}; a {kind!r} tokenizer needs at "
                f"least {smallest} ids and a frequency of at least 1"
            )
        options: dict[str, Any] = {
            "vocab_size": vocab_size,
            "min_frequency": min_frequency,
            "special_tokens": list(_SPECIAL),
            "show_progress": False,
        }
        if kind == "word":
            trainer: trainers.Trainer = trainers.WordLevelTrainer(**options)
        else:
            trainer = trainers.BpeTrainer(**options, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
        learner = _backend(kind, lowercase, (), ())
        learner.train_from_iterator(texts, trainer)
        # The learner would also find its special tokens in a text; one rebuilt from the vocabulary does not.
        model = json.loads(learner.to_str())["model"]
        vocab = tuple(sorted(model["vocab"], key=model["vocab"].get))
        return cls(kind, lowercase, vocab, tuple(map(tuple, model.get("merges", ()))))

    @property
    def vocab_size(self) -> int:
        """Number of ids, the rows of an embedding."""
        return 258 if self.kind == "byte" else len(self.vocab)

    @property
    def pad_id(self) -> int:
        """The id of padding, 0."""
        return PAD_ID

    @property
    def unk_id(self) -> int:
        """The id of a word that is not in the vocabulary, 1; 'bpe' and 'byte' never need it."""
        return UNK_ID

    @functools.cached_property
    def _backend(self) -> tokenizers.Tokenizer:
        return _backend(self.kind, self.lowercase, self.vocab, self.merges)

    def encode(self, text: str, *, max_length: int | None = None) -> Int[np.ndarray, " length"]:
        """Encodes one text as ids, (length,) int32, cut to the first `max_length`.

        The length is 0 for an empty text, and for 'word' for one of blanks and line-break tags alone.
        """
        string("text", text)
        return self.encode_batch([text], max_length)[0]

    def encode_batch(self, texts: Iterable[str], max_length: int | None = None) -> list[Int[np.ndarray, " _"]]:
        """Encodes many texts, on all cores: a list of (length,) int32.

        Raises:
          DataError: if `max_length` is below 1, or `texts` is no list of strings.
        """
        texts = list(strings("texts", texts))
        if max_length is not None and (not is_integer(max_length) or max_length < 1):
            raise DataError(f"max_length={shown(max_length)}; give at least 1, or None for no limit")
        if self.kind == "byte":
            arrays = [np.frombuffer(text.encode(), np.uint8).astype(np.int32) + 2 for text in texts]
        else:
            encodings = self._backend.encode_batch_fast(texts, add_special_tokens=False)
            arrays = [np.asarray(encoding.ids, np.int32) for encoding in encodings]
        return [array[:max_length] for array in arrays]

    def decode(self, ids: ArrayLike) -> str:
        """Decodes ids (length,) to text, without padding; unknown words read `< unk >`.

        'byte' and 'bpe' give back what was encoded (with U+FFFD for a letter that was cut in two), 'word'
        gives the words with blanks between them.

        Raises:
          DataError: for an id outside 0..vocab_size-1.
        """
        numbers = integers("ids", np.atleast_1d(ids) if is_integer(ids) else ids, minimum=np.iinfo(np.int64).min)
        outside = numbers[(numbers < 0) | (numbers >= self.vocab_size)]
        if outside.size:
            raise DataError(f"id {outside[0]} is not in 0..{self.vocab_size - 1}; was it made by this tokenizer?")
        numbers = numbers[numbers != PAD_ID]
        if self.kind == "word":
            return " ".join(self.vocab[i] for i in numbers)
        if self.kind == "byte":
            unknown = _SPECIAL[UNK_ID].encode()
            content = b"".join(unknown if i == UNK_ID else bytes([i - 2]) for i in numbers)
            return content.decode(errors="replace")
        return self._backend.decode(numbers.tolist(), skip_special_tokens=False)

    def hugging_face(self) -> str:
        """The same of kind 'word' or 'bpe' as the JSON that `tokenizers.Tokenizer.from_str` reads.

        Its `encode(text, add_special_tokens=False).ids` are the ids of `encode`.

        Raises:
          DataError: for 'byte', which is no such tokenizer: an id is a byte of the UTF-8 text plus 2.
        """
        if self.kind == "byte":
            raise DataError("the kind is 'byte'; expected 'word' or 'bpe': a byte's id is its value plus 2")
        return self._backend.to_str()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes everything to one JSON file, whose folder is made if it is missing."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"format": _FORMAT, **dataclasses.asdict(self), "sha256": self._digest()}
        path.write_text(json.dumps(content, ensure_ascii=False, indent=0), encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Tokenizer":
        """Loads a tokenizer that `save` wrote.

        Raises:
          DataError: if the file is missing, is not such a file, or was changed after it was written.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except (FileNotFoundError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise DataError(f"{path} is no tokenizer: {error}; name a file written by Tokenizer.save") from error
        if not isinstance(content, dict) or content.pop("format", None) != _FORMAT:
            raise DataError(f"{path} has not the format {_FORMAT!r}; name a file written by Tokenizer.save")
        digest = content.pop("sha256", None)  # an earlier version wrote none
        try:
            _check_kind(content["kind"])
            merges = tuple((str(a), str(b)) for a, b in content["merges"])
            found = cls(content["kind"], bool(content["lowercase"]), tuple(map(str, content["vocab"])), merges)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path} is damaged ({type(error).__name__}: {error}); bring it back") from error
        if digest is not None and digest != found._digest():
            raise DataError(
                f"{path} was changed after it was written: its ids are no longer those of training; bring it back"
            )
        return found

    def _digest(self) -> str:
        """Returns the SHA-256 of all that it holds."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self)).encode()).hexdigest()


def _check_kind(kind: str) -> None:
    if not isinstance(kind, str) or kind not in KINDS:
        raise DataError(f"the kind of tokenizer is {shown(kind)}; give one of {', '.join(map(repr, KINDS))}")


def _backend(
    kind: str, lowercase: bool, vocab: Sequence[str], merges: Sequence[tuple[str, str]]
) -> tokenizers.Tokenizer:
    """Returns the splitting and numbering of kind 'word' or 'bpe'."""
    ids = {token: i for i, token in enumerate(vocab)}
    lower: list[normalizers.Normalizer] = [normalizers.Lowercase()] if lowercase else []
    if kind == "word":
        backend = tokenizers.Tokenizer(models.WordLevel(ids, unk_token=_SPECIAL[UNK_ID]))
        steps = [normalizers.NFC(), normalizers.Replace(_LINE_BREAK, " "), *lower]
        backend.pre_tokenizer = pre_tokenizers.Split(_WORD, behavior="removed", invert=True)
    else:
        backend = tokenizers.Tokenizer(models.BPE(ids, list(merges)))
        steps = lower
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
    backend.normalizer = normalizers.Sequence(steps)
    return backend
