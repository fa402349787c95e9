"""The texts that a config names: where each part comes from, and whether they are those that a run began with."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from qlstm_jax.data import imdb, splits
from qlstm_jax.data.parts import Paths, Shares, load_parts
from qlstm_jax.data.rows import DataError, Examples, LoadReport
from qlstm_jax.problems import kept
from qlstm_jax.problems.config import ConfigError


def check(options: ConfigDict) -> None:
    """Checks a config's section `text`.

    Raises:
        ConfigError: where it names no texts, or two places for one part.
    """
    own = [f"text.{part}_path" for part in ("train", "validation", "test") if options[f"{part}_path"]]
    if not (options.path or options.dataset or options.train_path):
        raise ConfigError(
            "text.path is '' and text.dataset is ''; expected --config.text.path=FILE for a file or folder of your "
            "own, --config.text.train_path=FILE with others for the other parts, or "
            "--config.text.dataset=imdb_reviews, with a path too for a local copy of it"
        )
    if options.path and options.train_path:
        raise ConfigError(f"text.path is {options.path!r} and text.train_path {options.train_path!r}; expected one")
    if own and (options.dataset or imdb.is_copy(Path(options.path).expanduser())):
        raise ConfigError(f"{own[0]} is given beside IMDB, which has parts of its own; expected one of them")


def unused(options: ConfigDict, plain: ConfigDict) -> list[str]:
    """Notes on shares, other than those of `plain`, of parts that have a file of their own."""
    return [
        f"text.{part}: not used, as text.{part}_path is given"
        for part in ("validation", "test")
        if options[f"{part}_path"] and options[part] != plain[part]
    ]


def read(
    options: ConfigDict, *, lowercase: bool, label_names: tuple[str, ...] | None
) -> tuple[dict[str, Examples], list[LoadReport]]:
    """Returns the parts that a config's section `text` names, and what was read for them.

    Args:
        options: the section.
        lowercase: whether texts that differ in case alone are one.
        label_names: of a run that goes on.

    Raises:
        DataError: if they cannot be read.
    """
    shares = Shares(options.validation, options.test, options.split_seed, lowercase)
    if options.dataset and options.dataset != "imdb_reviews":
        raise DataError(f"text.dataset is {options.dataset!r}; expected imdb_reviews, or a file in text.path")
    root = Path(options.path).expanduser()
    if options.dataset or (options.path and imdb.is_copy(root)):
        source: dict[str, Any] = {"path": root if options.path else None, "on_bad_row": options.on_bad_row}
        train, test = imdb.load_imdb("train", **source), imdb.load_imdb("test", **source)
        sources = [train.report, test.report]
        train, validation, _ = splits.split(
            train, validation=shares.validation, test=0, seed=shares.seed, lowercase=lowercase
        )
        return {"train": train, "validation": validation, "test": test}, sources
    return load_parts(
        Paths(options.path or options.train_path, options.validation_path, options.test_path),
        shares,
        text_column=options.text_column,
        label_column=options.label_column,
        on_bad_row=options.on_bad_row,
        label_names=label_names,
    )


def keep(folder: Path, parts: Mapping[str, Examples]) -> None:
    """Writes the names of the labels, and what tells these parts from others."""
    names = list(parts["train"].label_names)
    records = {part: examples.record() for part, examples in parts.items()}
    (folder / "labels.json").write_text(json.dumps(names) + "\n")
    (folder / "texts.json").write_text(json.dumps({**records, "labels": names}, indent=2) + "\n")


def check_same(
    folder: Path, parts: Mapping[str, Examples], label_names: tuple[str, ...], changing: Collection[str] = ()
) -> None:
    """Checks that these are the parts that `keep` wrote of, but for those that may change.

    Raises:
        DataError: if they are not, or if that cannot be told.
    """
    path = folder / "texts.json"
    if not path.exists():
        raise DataError(
            f"{path} is missing, so that it cannot be told whether the texts are those of training; bring it back, "
            "or train anew in another --workdir (a run of an earlier version has none)"
        )
    fields = ("source", "texts", "sha256")
    began = kept.read(path, lambda c: all(f in c[p] for p in parts for f in fields), "record of each part")
    if began.get("labels", list(label_names)) != list(label_names):
        raise DataError(
            f"{folder / 'labels.json'} has {', '.join(label_names)}, and the run was trained with "
            f"{', '.join(began['labels'])} in that order; bring that file back"
        )
    for part, examples in parts.items():
        then, now = began[part], examples.record()
        if part not in changing and then["sha256"] != now["sha256"]:
            described = [f"{record['source']}, {record['texts']} texts" for record in (then, now)]
            raise DataError(
                f"{folder.parent} was trained with another {part} part ({described[0]}) than there is now "
                f"({described[1]}): the texts changed; bring those back, or give another --workdir"
            )
