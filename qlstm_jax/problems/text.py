"""Text classification, from a file or folder of the user's own or from TFDS."""

from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Key
from ml_collections import ConfigDict, config_dict

from qlstm_jax.data import splits, text
from qlstm_jax.data.batching import Batches, stream
from qlstm_jax.data.packing import PackedBatch
from qlstm_jax.data.rows import Examples
from qlstm_jax.data.unlabelled import Unlabelled, read_texts
from qlstm_jax.problems import metrics, plots, text_parts, text_predictions, tokenizers
from qlstm_jax.problems.base import Batch, Interface, Model, Problem, Sums, classification_sums, shapes
from qlstm_jax.problems.config import ConfigError, as_flags, fraction, not_negative, one_of, positive
from qlstm_jax.problems.models import classifier
from qlstm_jax.problems.text_data import TextData
from qlstm_jax.shardings import split_rows, whole_rows


class TextProblem(TextData, Problem):
    """Predicts the label of each text of `TextData`."""

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
        """Returns the section of the config."""
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

    def __init__(self, config: ConfigDict, workdir: str | Path, *, parts: dict[str, Examples] | None = None) -> None:
        super().__init__(config, workdir, parts=parts)
        self._logits = jax.jit(self._read_rows, static_argnums=0)

    def stream(self, start: int) -> Generator[Batch, None, None]:
        """Yields training batches from number `start` on, without end."""
        if self.config.text.pack:
            return stream(self.packed, start)
        return stream(self.batches("train", shuffle=True), start)

    def largest_batch(self) -> Any:
        """Returns the shapes of a packed batch, or of the first batch of the longest bucket."""
        if self.config.text.pack:
            return shapes(self.packed.batch(0))
        batches = self.batches("train", shuffle=False)
        lengths = [length for length, _ in batches.plan(0)]
        return shapes(batches.batch(lengths.index(max(lengths))))

    def interface(self) -> Interface:
        """Returns the labels in the order of the logits, the tokenizer, and the length that texts are cut to."""
        read = tokenizers.interface(self.tokenizer)
        about = {"labels": list(self.label_names), "max_length": self.config.text.max_length}
        return Interface(about | read.about, read.files)

    def model(self, rngs: nnx.Rngs) -> nnx.Module:
        """Returns a `Classifier` of the tokenizer's vocabulary."""
        return classifier(self.config.model, self.tokenizer.vocab_size, len(self.label_names), rngs)

    def loss(self, model: Model, batch: Batch, rngs: nnx.Rngs | None) -> Sums:
        """Returns the cross-entropy and accuracy of the label; filler rows weigh nothing."""
        smoothing = self.config.text.label_smoothing
        if isinstance(batch, PackedBatch):
            masks = {"seq_lengths": batch.lengths, "resets": batch.resets}
            logits = model.packed(batch.ids, max_sequences=batch.labels.shape[1], rngs=rngs, **masks)
        else:
            logits = model(batch.ids, seq_lengths=batch.lengths, rngs=rngs)
        return classification_sums(logits, batch.labels, batch.weights, batch.lengths, smoothing=smoothing)

    def _read_rows(self, graphdef: nnx.GraphDef[Any], params: Any, ids: Array, lengths: Array) -> Any:
        ids, lengths = split_rows((ids, lengths))
        return whole_rows(nnx.merge(graphdef, params)(ids, seq_lengths=lengths))

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
        """Returns accuracy, macro-F1 and cross-entropy on the validation part; none where that part is empty."""
        if not len(self.parts["validation"].texts):
            return {}
        confusion, loss = self._confusion(model, self.batches("validation", shuffle=False))
        figures = metrics.classification(confusion, self.label_names)
        return {"accuracy": figures["accuracy"], "macro_f1": figures["macro_f1"], "loss": loss}

    def report(self, model: Model, key: Key[Array, ""], folder: Path, options: ConfigDict) -> dict[str, Any]:
        """Reports accuracy, macro-F1 and figures by class on the test part, and a picture of the confusion matrix."""
        part = "test" if len(self.parts["test"].texts) else "validation"
        figures = self._figures(model, self.batches(part, shuffle=False), part, folder / "confusion_matrix.png")
        return {"part": part, **figures}

    def score_file(self, model: Model, path: Path, folder: Path) -> dict[str, Any]:
        """Scores another file or folder, read as those of training are; its labels must be among the run's."""
        options, columns = self.config.text, ("text_column", "label_column", "on_bad_row")
        with as_flags("text", *columns):
            examples = text.load(path, label_names=self.label_names, **{name: options[name] for name in columns})
        batches = self.batches_of(examples)
        report = {"file": str(path), "rows": examples.report.rows, "skipped": examples.report.skipped}
        report["notes"] = examples.report.notes + splits.part_notes({"file": examples}, lowercase=self.lowercase)
        picture = folder / f"confusion_matrix_{path.stem}.png"
        return report | self._figures(model, batches, path.name, picture)

    def _figures(self, model: Model, batches: Batches, what: str, picture: Path) -> dict[str, Any]:
        """Returns the figures of classification over batches, and their picture; `what` names them in its title."""
        confusion, loss = self._confusion(model, batches)
        figures = metrics.classification(confusion, self.label_names)
        title = f"{what}, {self.config.model.cell}: accuracy {figures['accuracy']:.3f}"
        plots.confusion_matrix(confusion, self.label_names, title, picture)
        return {"loss": loss, **figures}

    def predict(self, model: Model, lines: list[str]) -> list[dict[str, Any]]:
        """Returns the label and the probability of every label, for each line."""
        return list(self._label(model, map(Unlabelled, lines)))

    def predict_file(self, model: Model, path: Path) -> Iterator[dict[str, Any]]:
        """Yields a prediction for each line of a file, or row of a table, by `qlstm_jax.data.unlabelled.read_texts`."""
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
