"""Training, validation and test texts, from files of their own or dealt from one."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from qlstm_jax.data.layouts import find_parts
from qlstm_jax.data.rows import DataError, Examples, LoadReport
from qlstm_jax.data.splits import split
from qlstm_jax.data.text import load


class Paths(NamedTuple):
    """Where the parts come from; "" where one is dealt from the training file.

    Attributes:
      train: a file or folder, or a folder that holds several parts by name.
      validation, test: files or folders.
    """

    train: str
    validation: str = ""
    test: str = ""


class Shares(NamedTuple):
    """How parts without a source of their own are dealt, as for `qlstm_jax.data.splits.split`."""

    validation: float = 0.1
    test: float = 0.1
    seed: int = 0
    lowercase: bool = True


def load_parts(
    paths: Paths,
    shares: Shares = Shares(),  # noqa: B008 - a tuple does not change
    *,
    text_column: str = "text",
    label_column: str = "label",
    on_bad_row: str = "error",
    label_names: Sequence[str] | None = None,
) -> tuple[dict[str, Examples], list[LoadReport]]:
    """Loads the parts "train", "validation" and "test", and the report of each source that was read.

    A validation or test part without a source of its own is the training file's share. The classes are those of the
    training part: another label of another part is a bad row.

    Args:
      paths, shares: where parts come from.
      text_column, label_column, on_bad_row: as for `load`.
      label_names: of a run that goes on, else None.

    Raises:
      DataError: as for `load` and `split`, or if a part has two sources.
    """
    layout = find_parts(Path(paths.train).expanduser())
    sources = layout.parts or {"train": (Path(paths.train),)}
    for part in ("validation", "test"):
        own = getattr(paths, part)
        if own and part in sources:
            raise DataError(
                f"{paths.train} holds a {part} part, {sources[part][0].name}, and text.{part}_path is {own}"
            )
        if own:
            sources[part] = (Path(own),)
    read = partial(load, text_column=text_column, label_column=label_column, on_bad_row=on_bad_row)
    train = read(sources.pop("train"), label_names=label_names)
    others = {part: read(source, label_names=train.label_names) for part, source in sources.items()}
    if layout.others:
        train.report.notes.append(f"{paths.train}: left out, as no part is named so: {', '.join(layout.others)}")
    reports = [examples.report for examples in (train, *others.values())]
    train, validation, test = split(
        train,
        validation=0 if "validation" in others else shares.validation,
        test=0 if "test" in others else shares.test,
        seed=shares.seed,
        lowercase=shares.lowercase,
    )
    return {"train": train, "validation": validation, "test": test, **others}, reports
