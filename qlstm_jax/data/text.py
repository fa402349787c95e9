"""Labelled texts from tables, class folders and Hugging Face datasets on disk."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from qlstm_jax.data.files import check_path, read_bytes
from qlstm_jax.data.folders import is_hidden, part_hidden
from qlstm_jax.data.layouts import dataset_files, is_dataset
from qlstm_jax.data.readers import SUFFIXES, read_rows
from qlstm_jax.data.rows import NOT_TEXT, Collector, DataError, Examples, LoadReport
from qlstm_jax.data.splits import split
from qlstm_jax.data.tables import FORMATS

__all__ = ["DataError", "Examples", "LoadReport", "load", "split"]

UNLABELLED = "unsup"  # the unlabelled third of aclImdb/train


def load(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    text_column: str = "text",
    label_column: str = "label",
    on_bad_row: str = "error",
    label_names: Sequence[str] | None = None,
    group_of: Callable[[str, str], str | None] | None = None,
) -> Examples:
    """Reads labelled texts.

    A .csv and a .tsv file have a header row. In .csv, quotes are put around a field that holds commas, quotes
    (doubled) or line ends; in .tsv nothing is special but the tab and the line end, so quotes are part of the
    text. A file separated by semicolons, say, is read if its header then has both columns, and the report notes it.
    A .jsonl file has one JSON object a line. A .parquet file, and a folder that Hugging Face's `Dataset.save_to_disk`
    wrote, need pyarrow, the extra `parquet`; labels are the names of the dataset's classes where it has such. Any
    other folder has one folder a class, which holds .txt files of one text each; a folder `unsup` is left out and
    counted, and hidden files and folders are left out and noted. All text files are UTF-8, with or without a
    byte-order mark; blank lines are passed over. Labels are strings, whether written as strings or as numbers.

    Args:
      path: the file or folder, or several files that are read as one.
      text_column: the column or key of the text.
      label_column: the column or key of the label.
      on_bad_row: what to do with a row that has invalid UTF-8, an empty text or label (missing, or of blanks,
        line-break tags and invisible characters alone), the wrong number of columns, stray quotes or invalid JSON:
        'error' raises, 'skip' leaves it out and counts it. A quote that is not closed where it should be takes other
        lines with it, and each of them is counted.
      label_names: the training data's, for data to evaluate on: any other label is then a bad row. None takes
        the labels found, in numeric order if all are integers and else alphabetical.
      group_of: of a folder, the name of the group of each text, from the class and the file's name; see `split`.

    Returns:
      Examples, in the order of the file, or of the paths in a folder.

    Raises:
      DataError: for a bad row under 'error', and always for a missing or empty file, an unknown suffix, a
        missing column, no usable row or one class only.

    Example:
      train = load("train.csv", text_column="review", label_column="stars", on_bad_row="skip")
      print(train.report.summary())
      test = load("test.csv", text_column="review", label_column="stars", label_names=train.label_names)
    """
    given = [path] if isinstance(path, str | os.PathLike) else path
    paths = [check_path(p, FORMATS, folder=True) for p in given]
    if not paths:
        raise DataError(f"path is {path!r}; {FORMATS}")
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    collector = Collector(f"{paths[0]}{more}", on_bad_row, label_names)
    columns = {"text_column": text_column, "label_column": label_column}
    for source in paths:
        if source.is_dir() and not is_dataset(source):
            _read_folder(source, collector, group_of)
        else:
            for file in dataset_files(source) if source.is_dir() else [source]:
                collector.take(read_rows(file, columns, collector.report.notes))
    return collector.finish()


def _read_folder(path: Path, collector: Collector, group_of: Callable[[str, str], str | None] | None) -> None:
    files, notes = part_hidden(path, sorted(path.glob("*/*.txt")))
    collector.report.notes += notes
    classes: dict[str, list[Path]] = {child.name: [] for child in _class_folders(path)}
    for file in files:
        classes[file.parent.name].append(file)
    unlabelled = classes.pop(UNLABELLED, [])
    if unlabelled:
        collector.leave_out(f"unlabelled ({UNLABELLED})", f"{unlabelled[0]}:1", len(unlabelled))
    empty = [name for name, texts in classes.items() if not texts]
    if len(empty) == len(classes):
        tables = sorted(child.name for child in path.iterdir() if child.suffix.lower() in SUFFIXES)
        hint = f"did you mean {path / 'train'}?" if "train" in classes else FORMATS
        hint = f"did you mean {path / tables[0]}?" if tables and not classes else hint
        raise DataError(f"{path} holds no class folder with .txt files (its folders: {sorted(classes)}); {hint}")
    if empty:
        collector.report.notes.append(f"{path}: no .txt files, and so no class, in the folders {', '.join(empty)}")
    for name, texts in classes.items():
        for file in texts:
            group = None if group_of is None else group_of(name, file.name)
            add_document(collector, read_bytes(file, FORMATS), name, str(file), group)


def _class_folders(path: Path) -> list[Path]:
    return [child for child in sorted(path.iterdir()) if child.is_dir() and not is_hidden(Path(child.name))]


def add_document(collector: Collector, content: bytes, label: str, where: str, group: str | None = None) -> None:
    """Adds one text that is a file of its own, without the blanks around it; `where` is the file's name."""
    text = content.decode("utf-8-sig", errors="surrogateescape")
    bad = NOT_TEXT.search(text)
    line = 1 + text.count("\n", 0, bad.start() if bad else 0)
    collector.add(text.strip(), label, f"{where}:{line}", group)
