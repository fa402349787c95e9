"""The texts of a classification: their parts, tokenizer, labels and batches."""

from functools import cached_property
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from qlstm_jax.data import splits
from qlstm_jax.data.batching import Batches, bucket_boundaries
from qlstm_jax.data.packing import PackedBatches
from qlstm_jax.data.rows import DataError, Examples, LoadReport
from qlstm_jax.data.tokenizer import Tokenizer
from qlstm_jax.problems import inherited, kept, text_parts
from qlstm_jax.problems.config import as_flags, run_exists


class TextData:
    """Texts with labels. The tokenizer and the label names are made from the training part and kept in the workdir.

    So are digests of the parts: a run is neither continued nor evaluated on other ones.

    Args:
        config: of the run.
        workdir: its folder.
        parts: texts of your own, "train", "validation" and "test", in place of those that the config names. Of a run
            that is evaluated, "test" may be another one than it was trained beside.
    """

    def __init__(self, config: ConfigDict, workdir: str | Path, *, parts: dict[str, Examples] | None = None) -> None:
        self.config = config
        self._own = parts
        self.folder = Path(workdir) / "text"
        self.resumed = run_exists(workdir)
        if not self.resumed:
            self._start_anew()
        self.tokenizer = Tokenizer.load(self.folder / "tokenizer.json")
        self.label_names = kept.label_names(self.folder / "labels.json")

    def _start_anew(self) -> None:
        train, options = self.parts["train"], self.config.text
        tokenizer = inherited.tokenizer(self.config, "text") or Tokenizer.train(
            train.texts,
            kind=options.tokenizer,
            vocab_size=options.vocab_size,
            min_frequency=options.min_frequency,
            lowercase=options.lowercase,
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        text_parts.keep(self.folder, self.parts)
        tokenizer.save(self.folder / "tokenizer.json")

    @property
    def lowercase(self) -> bool:
        """Whether texts that differ in case alone are one text to the model."""
        return bool(self.config.text.lowercase) and self.config.text.tokenizer != "byte"

    @cached_property
    def parts(self) -> dict[str, Examples]:
        """The training, validation and test texts, read when first wanted.

        Raises:
            DataError: if they cannot be read, or are not those that the run began with.
        """
        if self._own is None:
            parts, self.sources = self._read()
        else:
            parts, self.sources = self._own, [examples.report for examples in self._own.values()]
        names = self.label_names if self.resumed else parts["train"].label_names
        for part, examples in parts.items():
            if examples.label_names != names:
                found, wanted = (", ".join(map(repr, given)) for given in (examples.label_names, names))
                raise DataError(f"the labels of the {part} part are {found}; expected those of training, {wanted}")
        if self.resumed:
            changing = ("test",) if self._own is not None else ()
            text_parts.check_same(self.folder, parts, self.label_names, changing)
        return parts

    @as_flags("text", "text_column", "label_column", "on_bad_row")
    def _read(self) -> tuple[dict[str, Examples], list[LoadReport]]:
        """Returns the parts that the config names, and what was read for them."""
        known = self.label_names if self.resumed else None
        return text_parts.read(self.config.text, lowercase=self.lowercase, label_names=known)

    @cached_property
    def encoded(self) -> dict[str, list[np.ndarray]]:
        """The tokens of each part's texts."""
        return {part: self.tokenizer.encode_batch(list(e.texts)) for part, e in self.parts.items()}

    @cached_property
    def buckets(self) -> tuple[int, ...]:
        """One set of lengths for all parts, so that each is compiled once to train and once to evaluate."""
        return self._buckets([ids for part in self.encoded.values() for ids in part])

    def batches(self, part: str, *, shuffle: bool) -> Batches:
        """Returns the batches of a part: "train", "validation" or "test"."""
        return self._batches(self.encoded[part], self.parts[part].labels, self.buckets, shuffle=shuffle)

    def batches_of(self, examples: Examples) -> Batches:
        """Returns the batches of texts that are no part of the run, in their order."""
        encoded = self.tokenizer.encode_batch(list(examples.texts))
        return self._batches(encoded, examples.labels, self._buckets(encoded), shuffle=False)

    def _buckets(self, encoded: list[np.ndarray]) -> tuple[int, ...]:
        options = self.config.text
        return bucket_boundaries([*map(len, encoded)], max_length=options.max_length, num_buckets=options.num_buckets)

    def _batches(
        self, encoded: list[np.ndarray], labels: np.ndarray, buckets: tuple[int, ...], *, shuffle: bool
    ) -> Batches:
        size, seed = self.config.train.batch_size, self.config.seed
        return Batches(encoded, labels, batch_size=size, buckets=buckets, seed=seed, shuffle=shuffle)

    @cached_property
    def packed(self) -> PackedBatches:
        """The training texts in rows of several, as text.pack has them."""
        return PackedBatches(
            self.encoded["train"],
            self.parts["train"].labels,
            batch_size=self.config.train.batch_size,
            max_length=self.config.text.max_length,
            row_length=self.config.text.row_length,
            seed=self.config.seed,
        )

    def notes(self) -> list[str]:
        """Notes rows skipped, parts, vocabulary, texts cut and padding."""
        train = self.batches("train", shuffle=True)
        sizes = ", ".join(f"{part} {len(e.texts)}" for part, e in self.parts.items())
        return [
            # A part's own report knows of no skipped rows.
            *(line for source in self.sources for line in (source.summary(), *source.notes)),
            *(["split by group: no film is on both sides"] if self.parts["train"].groups else []),
            *splits.part_notes(self.parts, lowercase=self.lowercase),
            f"{sizes} texts; labels {', '.join(self.label_names)}; vocabulary of {self.tokenizer.vocab_size} tokens",
            f"buckets of {self.buckets} tokens: {100 * train.padding_fraction(0):.1f} % padding, "
            f"{train.truncated} training texts cut",
            *(self._packing_notes() if self.config.text.pack else []),
        ]

    def _packing_notes(self) -> list[str]:
        packed, rows = self.packed, self.packed.rows(0)
        return [
            f"packed to train: {len(rows)} rows of {self.config.text.row_length} tokens with up to {packed.places} "
            f"texts each, {100 * packed.padding_fraction(0):.1f} % padding"
        ]
