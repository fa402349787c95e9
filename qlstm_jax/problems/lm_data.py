"""The text of a language model: its corpus, tokenizer, and windows of each part."""

import json
from functools import cached_property
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from qlstm_jax.data import corpus as corpora
from qlstm_jax.data import tfds_corpus
from qlstm_jax.data.rows import DataError
from qlstm_jax.data.tokenizer import Tokenizer
from qlstm_jax.data.windows import Bytes, Windows, as_texts, encode
from qlstm_jax.data.windows import windows as token_windows
from qlstm_jax.problems import inherited, kept
from qlstm_jax.problems.config import as_flags, run_exists

PARTS = ("train", "validation", "test")


class LMData:
    """`qlstm_jax.data.corpus` in as many parallel streams as a batch has rows, window by window.

    The workdir's folder lm keeps the tokenizer, made from the training part, and a digest of the corpus.

    Args:
        config: of the run.
        workdir: its folder.
        corpus: a text of your own in place of the one that the config names.
    """

    def __init__(self, config: ConfigDict, workdir: str | Path, *, corpus: corpora.Corpus | None = None) -> None:
        self.config = config
        self._own = corpus
        self.folder = Path(workdir) / "lm"
        self.resumed = run_exists(workdir)
        if self.resumed:
            bpe = config.lm.tokenizer == "bpe"
            self.tokenizer: Tokenizer | Bytes = Tokenizer.load(self.folder / "tokenizer.json") if bpe else Bytes()
        else:
            self._start_anew()

    def _start_anew(self) -> None:
        options = self.config.lm
        self.tokenizer = Bytes()
        if options.tokenizer == "bpe":
            self.tokenizer = inherited.tokenizer(self.config, "lm") or Tokenizer.train(
                as_texts(self.contents["train"], self.corpus.source),
                kind="bpe",
                vocab_size=options.vocab_size,
                lowercase=False,
            )
        # What a user may have to mend comes before anything is written.
        for part in PARTS:
            self.windows(part)
        if isinstance(self.tokenizer, Tokenizer):
            self.tokenizer.save(self.folder / "tokenizer.json")
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "corpus.json").write_text(json.dumps(self.corpus.record(), indent=2) + "\n")

    @cached_property
    @as_flags("lm", "pattern")
    def corpus(self) -> corpora.Corpus:
        """The files, read when first wanted.

        Raises:
            DataError: if they cannot be read, or are not those that the run began with.
        """
        options = self.config.lm
        if self._own is not None:
            found = self._own
        elif options.dataset:
            where = {"data_dir": options.path or None, "feature": options.feature}
            found = tfds_corpus.load(options.dataset, **where, max_bytes=options.max_bytes)
        else:
            found = corpora.load(options.path, pattern=options.pattern, max_bytes=options.max_bytes)
        if self.resumed:
            now = found.record()
            began = kept.record(self.folder / "corpus.json", *now)
            if began["sha256"] != now["sha256"]:
                described = [f"{r['source']}, {r['files']} files, {r['bytes']} bytes" for r in (began, now)]
                raise DataError(
                    f"{self.folder.parent} was trained on another text ({described[0]}) than is there now "
                    f"({described[1]}); bring that text back, or give another --workdir"
                )
        return found

    @cached_property
    def contents(self) -> dict[str, list[bytes]]:
        """The bytes of each part."""
        options = self.config.lm
        shares = {"validation": options.validation, "test": options.test}
        return corpora.split(self.corpus, **shares, seed=options.split_seed)

    @cached_property
    def tokens(self) -> dict[str, np.ndarray]:
        """Each part as one array of tokens (N,)."""
        return {part: encode(self.contents[part], self.tokenizer, self.corpus.source) for part in PARTS}

    def windows(self, part: str) -> Windows:
        """Returns the windows of a part, in a stream for each row of a batch; but for training fewer will do."""
        sizes = self.config.train.batch_size, self.config.lm.length
        name = f"the {part} part of lm"
        if part == "train":
            return Windows(self.tokens[part], *sizes, restart=self.config.lm.restart, name=name)
        return token_windows(self.tokens[part], *sizes, name=name)

    def notes(self) -> list[str]:
        """Notes the corpus, its parts, the vocabulary, and the windows in a pass."""
        sizes = ", ".join(f"{part} {len(self.tokens[part])}" for part in PARTS)
        train = self.windows("train")
        return [
            self.corpus.summary(),
            *self.corpus.notes,
            f"{sizes} tokens; vocabulary of {self.tokenizer.vocab_size} tokens",
            f"{train.batch_size} streams of {train.stream_size} tokens: {train.per_pass} windows of {train.length} "
            "in a pass",
        ]
