"""Text classification, from a file or folder of the user's own or from TFDS."""

from collections.abc import Generator, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Key
from ml_collections import ConfigDict, config_dict

from qlstm_jax.data import splits, text
from qlstm_jax.data.batching import Batches, bucket_boundaries, stream
from qlstm_jax.data.packing import PackedBatch, PackedBatches
from qlstm_jax.data.tokenizer import Tokenizer
from qlstm_jax.data.unlabelled import Unlabelled, read_texts
from qlstm_jax.problems import inherited, kept, metrics, plots, text_parts, text_predictions, tokenizers
from qlstm_jax.problems.base import Batch, Interface, Model, Problem, Sums, classification_sums, shapes
from qlstm_jax.problems.config import ConfigError, as_flags, fraction, not_negative, one_of, positive, run_exists
from qlstm_jax.problems.models import classifier


class TextProblem(Problem):
    """Texts with labels. The tokenizer and the label names are made from the training part and kept in the workdir.

    So is what tells the parts from others: a run is neither continued nor evaluated on other ones.

    Args:
        config: of the run.
        workdir: its folder.
        parts: texts of your own, "train", "validation" and "test", in place of those that the config names. Of a run
            that is evaluated, "test" may be another one than it was trained beside.
    """

    name = "text"
    evaluates = ()
    validation_metrics = ("accuracy", "macro_f1", "loss")
    rules: ClassVar = {
        "on_bad_row": one_of("error", "skip"),
        "validation": fraction,
        "test": fraction,
        "split_seed": not_negative,
        "tokenizer": one_of("word", "bpe", "byte"),
        "vocab_size": positive,
        "min_frequency": positive,
        "max_length": positive,
        "label_smoothing": fraction,
        "num_buckets": positive,
        "row_length": positive,
    }
    on_device = False

    @classmethod
    def defaults(cls) -> ConfigDict:
        """The section of the config."""
        return config_dict.create(
            path="",  # a csv, tsv, jsonl or parquet file, a folder of class folders, or one that holds parts by name
            train_path="",  # or each part by itself; one that is not given is a share of the training file
            validation_path="",
            test_path="",
            dataset="",  # or a TFDS name, imdb_reviews; then path may name a local copy, aclImdb or its archive
            text_column="text",
            label_column="label",
            on_bad_row="error",  # or skip: count and report them
            validation=0.1,  # shares of the rows
            test=0.1,
            split_seed=0,
            tokenizer="word",  # word, bpe or byte
            vocab_size=20000,
            min_frequency=2,
            lowercase=True,
            max_length=256,  # tokens; longer texts are cut
            label_smoothing=0.0,  # share of the target that is spread over all labels
            num_buckets=4,  # lengths that are compiled for
            pack=False,  # in training several texts a row, each after a reset, in place of padding
            row_length=1024,  # tokens of such a row; train.batch_size counts rows
        )

    @classmethod
    def check(cls, config: ConfigDict) -> None:
        """Checks that there are texts, each part from one place, and that a packed row holds any text.

        Raises:
            ConfigError: where that is not so.
        """
        text_parts.check(config.text)
        if config.text.pack and config.text.row_length < config.text.max_length:
            raise ConfigError(
                f"text.row_length is {config.text.row_length}; expected at least text.max_length, which is "
                f"{config.text.max_length}, so that a row holds any text"
            )

    @classmethod
    def unused(cls, config: ConfigDict) -> list[str]:
        """Notes on shares of parts that have a file of their own."""
        return text_parts.unused(config.text, cls.defaults())

    def __init__(
        self, config: ConfigDict, workdir: str | Path, *, parts: dict[str, text.Examples] | None = None
    ) -> None:
        self.config = config
        self._own = parts
        self.folder = Path(workdir) / "text"
        self.resumed = run_exists(workdir)
        if not self.resumed:
            self._start_anew()
        self.tokenizer = Tokenizer.load(self.folder / "tokenizer.json")
        self.label_names = kept.label_names(self.folder / "labels.json")
        self._logits = jax.jit(lambda graphdef, p, ids, n: nnx.merge(graphdef, p)(ids, seq_lengths=n), static_argnums=0)

    def _start_anew(self) -> None:
        train, options = self.parts["train"], self.config.text
        tokenizer = inherited.tokenizer(self.config, self.name) or Tokenizer.train(
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
    def _lowercase(self) -> bool:
        """Whether texts that differ in case alone are one text to the model."""
        return bool(self.config.text.lowercase) and self.config.text.tokenizer != "byte"

    @cached_property
    def parts(self) -> dict[str, text.Examples]:
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
                raise text.DataError(f"the labels of the {part} part are {found}; expected those of training, {wanted}")
        if self.resumed:
            changing = ("test",) if self._own is not None else ()
            text_parts.check_same(self.folder, parts, self.label_names, changing)
        return parts

    @as_flags("text", "text_column", "label_column", "on_bad_row")
    def _read(self) -> tuple[dict[str, text.Examples], list[text.LoadReport]]:
        """The parts that the config names, and what was read for them."""
        known = self.label_names if self.resumed else None
        return text_parts.read(self.config.text, lowercase=self._lowercase, label_names=known)

    @cached_property
    def encoded(self) -> dict[str, list[np.ndarray]]:
        """The tokens of each part's texts."""
        return {part: self.tokenizer.encode_batch(list(e.texts)) for part, e in self.parts.items()}

    @cached_property
    def buckets(self) -> tuple[int, ...]:
        """One set of lengths for all parts, so that each is compiled once to train and once to evaluate."""
        return self._buckets([len(ids) for part in self.encoded.values() for ids in part])

    def _buckets(self, lengths: list[int]) -> tuple[int, ...]:
        options = self.config.text
        return bucket_boundaries(lengths, max_length=options.max_length, num_buckets=options.num_buckets)

    def batches(self, part: str, *, shuffle: bool) -> Batches:
        """The batches of a part: "train", "validation" or "test"."""
        return self._batches(self.encoded[part], self.parts[part].labels, self.buckets, shuffle=shuffle)

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

    def stream(self, start: int) -> Generator[Batch, None, None]:
        """Training batches from number `start` on, without end."""
        if self.config.text.pack:
            return stream(self.packed, start)
        return stream(self.batches("train", shuffle=True), start)

    def largest_batch(self) -> Any:
        """The shapes of a packed batch, or of the first batch of the longest bucket."""
        if self.config.text.pack:
            return shapes(self.packed.batch(0))
        batches = self.batches("train", shuffle=False)
        lengths = [length for length, _ in batches.plan(0)]
        return shapes(batches.batch(lengths.index(max(lengths))))

    def notes(self) -> list[str]:
        """Rows skipped, parts, vocabulary, texts cut and padding."""
        train, train_groups = self.batches("train", shuffle=True), self.parts["train"].groups
        sizes = ", ".join(f"{part} {len(e.texts)}" for part, e in self.parts.items())
        return [
            # A part's own report knows of no skipped rows.
            *(line for source in self.sources for line in (source.summary(), *source.notes)),
            *(["split by group: no film is on both sides"] if train_groups else []),
            *splits.part_notes(self.parts, lowercase=self._lowercase),
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

    def interface(self) -> Interface:
        """The labels in the order of the logits, the tokenizer, and the length that texts are cut to."""
        read = tokenizers.interface(self.tokenizer)
        about = {"labels": list(self.label_names), "max_length": self.config.text.max_length}
        return Interface(about | read.about, read.files)

    def model(self, rngs: nnx.Rngs) -> nnx.Module:
        """A `Classifier` of the tokenizer's vocabulary."""
        return classifier(self.config.model, self.tokenizer.vocab_size, len(self.label_names), rngs)

    def loss(self, model: Model, batch: Batch, rngs: nnx.Rngs | None) -> Sums:
        """Cross-entropy and accuracy of the label; filler rows weigh nothing."""
        smoothing = self.config.text.label_smoothing
        if isinstance(batch, PackedBatch):
            masks = {"seq_lengths": batch.lengths, "resets": batch.resets}
            logits = model.packed(batch.ids, max_sequences=batch.labels.shape[1], rngs=rngs, **masks)
        else:
            logits = model(batch.ids, seq_lengths=batch.lengths, rngs=rngs)
        return classification_sums(logits, batch.labels, batch.weights, batch.lengths, smoothing=smoothing)

    def _confusion(self, model: Model, batches: Batches) -> tuple[np.ndarray, float]:
        """Counts (true label, predicted label) over all batches, and their mean cross-entropy."""
        graphdef, params = nnx.split(model, nnx.Param)
        confusion, loss = np.zeros((len(self.label_names),) * 2, np.int64), 0.0
        for batch in stream(batches, 0, batches.batches_per_epoch(0)):
            logits = self._logits(graphdef, params, batch.ids, batch.lengths)
            loss += float(classification_sums(logits, batch.labels, batch.weights, batch.lengths)["loss"])
            real = batch.weights > 0
            np.add.at(confusion, (batch.labels[real], np.argmax(logits, axis=-1)[real]), 1)
        return confusion, loss / confusion.sum()

    def validate(self, model: Model, key: Key[Array, ""]) -> dict[str, float]:
        """Accuracy, macro-F1 and cross-entropy on the validation part; none where that part is empty."""
        if not len(self.parts["validation"].texts):
            return {}
        confusion, loss = self._confusion(model, self.batches("validation", shuffle=False))
        figures = metrics.classification(confusion, self.label_names)
        return {"accuracy": figures["accuracy"], "macro_f1": figures["macro_f1"], "loss": loss}

    def report(self, model: Model, key: Key[Array, ""], folder: Path, options: ConfigDict) -> dict[str, Any]:
        """Accuracy, macro-F1 and figures by class on the test part, and a picture of the confusion matrix."""
        part = "test" if len(self.parts["test"].texts) else "validation"
        figures = self._figures(model, self.batches(part, shuffle=False), part, folder / "confusion_matrix.png")
        return {"part": part, **figures}

    def score_file(self, model: Model, path: Path, folder: Path) -> dict[str, Any]:
        """The same of another file or folder, read as those of training are; its labels must be among the run's."""
        options, columns = self.config.text, ("text_column", "label_column", "on_bad_row")
        with as_flags("text", *columns):
            examples = text.load(path, label_names=self.label_names, **{name: options[name] for name in columns})
        encoded = self.tokenizer.encode_batch(list(examples.texts))
        batches = self._batches(encoded, examples.labels, self._buckets(list(map(len, encoded))), shuffle=False)
        report = {"file": str(path), "rows": examples.report.rows, "skipped": examples.report.skipped}
        report["notes"] = examples.report.notes + splits.part_notes({"file": examples}, lowercase=self._lowercase)
        picture = folder / f"confusion_matrix_{path.stem}.png"
        return report | self._figures(model, batches, path.name, picture)

    def _figures(self, model: Model, batches: Batches, what: str, picture: Path) -> dict[str, Any]:
        """Figures of classification over batches, and their picture; `what` names them in its title."""
        confusion, loss = self._confusion(model, batches)
        figures = metrics.classification(confusion, self.label_names)
        title = f"{what}, {self.config.model.cell}: accuracy {figures['accuracy']:.3f}"
        plots.confusion_matrix(confusion, self.label_names, title, picture)
        return {"loss": loss, **figures}

    def predict(self, model: Model, lines: list[str]) -> list[dict[str, Any]]:
        """The label and the probability of every label, for each line."""
        return list(self._label(model, map(Unlabelled, lines)))

    def predict_file(self, model: Model, path: Path) -> Iterator[dict[str, Any]]:
        """The same for each line of a file, or for each row of a table, by `qlstm_jax.data.unlabelled.read_texts`."""
        options = self.config.text
        with as_flags("text", "text_column", "on_bad_row"):
            texts = read_texts(path, text_column=options.text_column, on_bad_row=options.on_bad_row)
            yield from self._label(model, texts)

    def _label(self, model: Model, texts: Iterable[Unlabelled]) -> Iterator[dict[str, Any]]:
        graphdef, params = nnx.split(model, nnx.Param)
        longest = self.config.text.max_length
        return text_predictions.records(
            texts,
            self.label_names,
            lambda some: self.tokenizer.encode_batch(some, max_length=longest),
            lambda ids, lengths: np.asarray(jax.nn.softmax(self._logits(graphdef, params, ids, lengths))),
            batch_size=self.config.train.batch_size,
            max_length=longest,
        )
