"""Corpora of TensorFlow Datasets (TFDS) by name, read without TensorFlow."""

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qlstm_jax.data.corpus import Corpus, cut
from qlstm_jax.data.rows import DataError

PARTS = ("train", "validation", "test")


def load(
    name: str, *, data_dir: str | os.PathLike[str] | None = None, feature: str = "text", max_bytes: int = 0
) -> Corpus:
    """Loads the texts of a dataset, an example each, with a line break at its end where it has none.

    A dataset that is not there yet is downloaded and prepared, for which most builders of TFDS want TensorFlow; to read
    what is prepared as array_record, on this machine or another, nothing of it is needed.

    Args:
      name: as TFDS knows it, "tiny_shakespeare", "wiki40b/en", "lm1b:1.1.0".
      data_dir: where TFDS keeps its datasets; None is TFDS's own default, ~/tensorflow_datasets.
      feature: of an example, that holds its text.
      max_bytes: each part is read until it has so many bytes, its last letter being left whole; 0 for all.

    Returns:
      A Corpus whose parts are the dataset's own train, validation and test, as far as it has them.

    Raises:
      DataError: if there is no such dataset, feature or part, if it was prepared in a format that only TensorFlow
        reads, or cannot be prepared here.

    Example:
      corpus = load("tiny_shakespeare")
    """
    builder = _builder(name, data_dir)
    if not builder.is_prepared():
        _prepare(builder, name)
    formats = sorted(file_format.value for file_format in builder.info.available_file_formats())
    if "array_record" not in formats:
        raise DataError(
            f"{builder.data_dir} was prepared as {', '.join(formats)}, which only TensorFlow reads; prepare it anew "
            f"with tfds build {name} --file_format=array_record, or give another folder (--config.lm.path=FOLDER)"
        )
    if feature not in builder.info.features:
        there = ", ".join(builder.info.features)
        raise DataError(f"{name} has no feature {feature!r}; give one of {there} (--config.lm.feature=NAME)")
    contents: list[bytes] = []
    parts: list[str] = []
    for part in PARTS:
        if part in builder.info.splits:
            texts = _texts(builder.as_data_source(part), feature, max_bytes)
            contents += texts
            parts += [part] * len(texts)
    if not contents:
        raise DataError(f"{name} has no text in {', '.join(PARTS)}; its parts are {', '.join(builder.info.splits)}")
    return Corpus(f"{builder.info.full_name} of TFDS", tuple(contents), tuple(parts))


def _texts(source: Sequence[Mapping[str, Any]], feature: str, max_bytes: int) -> list[bytes]:
    texts: list[bytes] = []
    size = 0
    for number in range(len(source)):
        text = source[number][feature]
        if not isinstance(text, bytes):
            raise DataError(
                f"the feature {feature!r} holds {type(text).__name__}, no text; give another (--config.lm.feature=NAME)"
            )
        texts.append(text if text.endswith(b"\n") else text + b"\n")
        size += len(texts[-1])
        if 0 < max_bytes <= size:
            break
    return cut(texts, max_bytes)


def _builder(name: str, data_dir: str | os.PathLike[str] | None) -> Any:
    # Importing TFDS takes a second, which a user of local files need not wait for.
    import tensorflow_datasets as tfds

    try:
        return tfds.builder(name, data_dir=data_dir, file_format="array_record")
    except tfds.core.registered.DatasetNotFoundError as error:
        near = difflib.get_close_matches(name, tfds.list_builders(with_community_datasets=False), n=3)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "see tensorflow.org/datasets/catalog"
        raise DataError(f"TFDS has no dataset {name!r}; {hint}") from error


def _prepare(builder: Any, name: str) -> None:
    import tensorflow_datasets as tfds

    way_out = (
        f"Prepare it on a machine with a network and TensorFlow, by tfds build {name} --file_format=array_record, and "
        "name the folder that holds it (--config.lm.path=FOLDER)"
    )
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    try:
        builder.download_and_prepare(download_config=config, file_format="array_record")
    except ImportError as error:
        where = Path(builder.data_dir)
        raise DataError(f"{name} is not in {where}, and its builder wants {error.name or error}. {way_out}") from error
    except (OSError, tfds.core.download.DownloadError) as error:
        raise DataError(f"{name} could not be prepared in {builder.data_dir}: {error}. {way_out}") from error
