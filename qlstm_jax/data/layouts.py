"""Where the training, validation and test parts of a folder are, and the files of a Hugging Face dataset on disk."""

import json
import re
from pathlib import Path
from typing import NamedTuple

from qlstm_jax.data.folders import is_hidden
from qlstm_jax.data.readers import SUFFIXES
from qlstm_jax.data.rows import DataError

NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
STATE = "state.json"  # that `Dataset.save_to_disk` of Hugging Face writes
_SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}")


class Layout(NamedTuple):
    """The parts of a folder.

    Attributes:
      parts: name → files, or the one folder, for `qlstm_jax.data.text.load`; {} where there is no training part.
      others: names of what could be a part but is named like none.
    """

    parts: dict[str, tuple[Path, ...]]
    others: tuple[str, ...] = ()


def find_parts(root: Path) -> Layout:
    """Returns the parts that a folder, or none if it is a file, holds by name.

    A part is a folder of class folders, a table (or the numbered shards of one, train-00000-of-00002.parquet) or a
    dataset on disk, that is named train, validation (or valid, val, dev) or test.

    Raises:
      DataError: if there are two that could be one part.
    """
    found: dict[str, dict[str, list[Path]]] = {}
    others: list[str] = []
    for child in sorted(root.iterdir()) if root.is_dir() else ():
        if is_hidden(Path(child.name)) or not _is_source(child):
            continue
        shard = _SHARD.fullmatch(child.stem)
        name = (shard[1] if shard else child.stem if child.suffix else child.name).lower()
        part = next((part for part, names in NAMES.items() if name in names), None)
        if part is None:
            others.append(child.name)
        else:
            found.setdefault(part, {}).setdefault(f"{name}{child.suffix}", []).append(child)
    for part, sources in found.items():
        if len(sources) > 1:
            raise DataError(
                f"{root} holds several {part} parts, {' and '.join(sources)}; keep one, or name each part by itself: "
                "text.train_path, text.validation_path, text.test_path"
            )
    if "train" not in found:
        return Layout({})
    return Layout({p: tuple(files) for p in NAMES if p in found for files in found[p].values()}, tuple(others))


def _is_source(path: Path) -> bool:
    if path.is_file():
        return path.suffix.lower() in SUFFIXES
    return is_dataset(path) or any(not is_hidden(file.relative_to(path)) for file in path.glob("*/*.txt"))


def is_dataset(path: Path) -> bool:
    """Returns whether a folder is one that `Dataset.save_to_disk` wrote."""
    return (path / STATE).is_file()


def dataset_files(path: Path) -> list[Path]:
    """Returns the files of such a folder, in their order.

    Raises:
      DataError: if it is damaged, or its rows are chosen by a list of indices that stands beside them.
    """
    try:
        state = json.loads((path / STATE).read_text(encoding="utf-8"))
        names = [entry["filename"] for entry in state["_data_files"]]
        indices = state.get("_indices_data_files")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path / STATE} is damaged ({type(error).__name__}: {error}); save the dataset anew"
        ) from error
    if indices:
        raise DataError(f"{path} holds a list of indices beside its rows; save dataset.flatten_indices() instead")
    missing = [name for name in names if not (path / name).is_file()]
    if missing or not names:
        raise DataError(f"{path} lacks its files {', '.join(map(str, missing)) or '(it names none)'}; save it anew")
    return [path / name for name in names]
