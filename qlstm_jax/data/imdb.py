"""The IMDB reviews (Maas et al., ACL 2011), from a local copy or by name through TFDS, without TensorFlow."""

import collections
import functools
import http.client
import lzma
import os
import re
import tarfile
import threading
import urllib.request
import zlib
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from qlstm_jax.data import text
from qlstm_jax.data.folders import is_hidden
from qlstm_jax.data.rows import Collector, DataError, Examples, LoadReport

URL = "http://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz"
LABEL_NAMES = ("neg", "pos")
REVIEWS = 12_500  # of each label in each split of the whole set
# The folder aclImdb may have another name, or be missing.
_MEMBER = re.compile(r"(?:\./)?((?:[^/]+/)?)(train|test)/(neg|pos|unsup)/[^/]+\.txt")
_URLS = re.compile(r"(?:\./)?(?:[^/]+/)?(train|test)/urls_(neg|pos)\.txt")
_TITLE = re.compile(r"tt\d+")
_NUMBER = re.compile(r"(?:^|/)(\d+)_\d+\.txt$")
_WAY_OUT = (
    f"On a machine with a network get {URL} (80 MiB) and name it, or the folder unpacked from it: "
    "--config.text.path=/path/to/aclImdb on the command line, load_imdb(path=...) in Python."
)


def is_copy(path: Path) -> bool:
    """Returns whether this is a local copy of IMDB: an archive, or a folder of that name or with its lists of films."""
    archive = path.name.endswith((".tar.gz", ".tgz", ".tar.xz"))
    has_lists = (path / "train" / "urls_pos.txt").is_file()
    return archive or has_lists or (path.name.lower().startswith("aclimdb") and (path / "train").is_dir())


def load_imdb(
    split: str = "train",
    *,
    data_dir: str | os.PathLike[str] | None = None,
    path: str | os.PathLike[str] | None = None,
    on_bad_row: str = "error",
) -> Examples:
    """Loads the 25,000 labelled reviews of one split of IMDB, classes "neg" and "pos".

    Args:
      split: 'train' or 'test'.
      data_dir: where TFDS keeps its datasets; None is TFDS's own default, ~/tensorflow_datasets.
      path: a local copy to read instead: the folder aclImdb, or aclImdb_v1.tar.gz as downloaded (or a .tar.xz). None
        takes `imdb_reviews` from TFDS, which is downloaded and prepared under `data_dir` the first time.
      on_bad_row: as for `text.load`.

    Returns:
      Examples, whose order differs between a local copy (by name) and TFDS (shuffled once, always the same). Those of a
      local copy that has its lists of films, urls_pos.txt and urls_neg.txt, have the film of each review as its group.
      The report notes it if a local copy is not of 12,500 reviews a label.

    Raises:
      DataError: if the copy is missing, damaged or has no such split, if an archive has not one review for each line of
        its lists of films, or if the dataset is to be downloaded and its host cannot be reached, which is known within
        seconds.

    Example:
      train, test = load_imdb("train"), load_imdb("test", path="~/data/aclImdb_v1.tar.gz")
    """
    if split not in ("train", "test"):
        raise DataError(f"split is {split!r}; give 'train' or 'test'")
    if path is None:
        return _load_tfds(split, data_dir, on_bad_row)
    path = Path(path).expanduser()
    if path.is_dir():
        return _load_folder(split, path, on_bad_row)
    if path.is_file():
        return _load_archive(split, path, on_bad_row)
    raise DataError(f"{path} does not exist. {_WAY_OUT}")


def _load_folder(split: str, path: Path, on_bad_row: str) -> Examples:
    for root in (path, path / "aclImdb"):
        if (root / split).is_dir():
            lists = {name: root / split / f"urls_{name}.txt" for name in LABEL_NAMES}
            whole = all(path.is_file() for path in lists.values())
            films = {name: _films(path.read_bytes()) for name, path in lists.items()} if whole else None
            group_of = None if films is None else partial(_film, films)
            examples = text.load(root / split, on_bad_row=on_bad_row, label_names=LABEL_NAMES, group_of=group_of)
            counts = np.bincount(examples.labels, minlength=len(LABEL_NAMES)).tolist()
            _note_counts(dict(zip(LABEL_NAMES, counts, strict=True)), split, examples.report)
            return examples
    found = sorted(child.name for child in path.iterdir())[:8]
    raise DataError(f"{path} holds {found} and no folder {split!r}; name the one that holds train and test: aclImdb")


def _load_archive(split: str, path: Path, on_bad_row: str) -> Examples:
    collector = Collector(path, on_bad_row, LABEL_NAMES)
    documents, films, unlabelled = _read_archive(split, path)
    if not documents:
        raise DataError(f"{path} holds no {split}/neg/*.txt or {split}/pos/*.txt; is it the right one? {_WAY_OUT}")
    counts = collections.Counter(label for label, _ in documents.values())
    for label, known in films.items():
        if counts[label] not in (REVIEWS, len(known)):
            raise DataError(
                f"{path} is damaged or incomplete: it holds {counts[label]} reviews {split}/{label}/*.txt, and its "
                f"list {split}/urls_{label}.txt names the films of {len(known)}. Download it again, or leave the "
                f"lists out if it is a selection of your own. {_WAY_OUT}"
            )
    _note_counts(counts, split, collector.report)
    if unlabelled:
        collector.leave_out(f"unlabelled ({text.UNLABELLED})", f"{path}/{min(unlabelled)}:1", len(unlabelled))
    for name, (label, content) in sorted(documents.items()):
        group = _film(films, label, name) if set(films) == set(LABEL_NAMES) else None
        text.add_document(collector, content, label, f"{path}/{name}", group)
    return collector.finish()


def _read_archive(split: str, path: Path) -> tuple[dict[str, tuple[str, bytes]], dict[str, list[str]], list[str]]:
    """Reads a split: name → (label, content) of each review, label → film of each, names of unlabelled reviews."""
    documents: dict[str, tuple[str, bytes]] = {}
    films: dict[str, list[str]] = {}
    unlabelled: list[str] = []
    roots: set[str] = set()
    try:
        for name, file in _members(path):
            if is_hidden(Path(name)):
                continue
            if (match := _MEMBER.fullmatch(name)) and match[2] == split:
                roots.add(match[1])
                if match[3] == text.UNLABELLED:
                    unlabelled.append(name)
                else:
                    documents[name] = (match[3], file.read())
            elif (found := _URLS.fullmatch(name)) and found[1] == split:
                films[found[2]] = _films(file.read())
    # A damaged header may hold what is no number, or no UTF-8: ValueError.
    except (tarfile.TarError, EOFError, OSError, ValueError, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"{path} is no complete archive ({error}); download it again. {_WAY_OUT}") from error
    if len(roots) > 1:
        found_roots = ", ".join(repr(root or "./") for root in sorted(roots))
        raise DataError(f"{path} holds {split} reviews in several folders, {found_roots}; keep one of them. {_WAY_OUT}")
    return documents, films, unlabelled


def _note_counts(counts: Mapping[str, int], split: str, report: LoadReport) -> None:
    other = [f"{counts[label]} {label}" for label in LABEL_NAMES if counts[label] != REVIEWS]
    if other:
        report.notes.append(f"{report.source}: {split} has {' and '.join(other)} reviews, not {REVIEWS} as all of IMDB")


def _films(urls: bytes) -> list[str]:
    """Returns the film of each review: line n, from 0, is the page of that of review n."""
    return [title[0] if (title := _TITLE.search(line)) else line for line in urls.decode(errors="replace").splitlines()]


def _film(films: dict[str, list[str]], label: str, name: str) -> str | None:
    """Returns the film of the review in the file ID_RATING.txt; None, so no groups, if the lists are too short."""
    number, known = _NUMBER.search(name), films[label]
    return known[int(number[1])] if number and int(number[1]) < len(known) else None


def _members(path: str | os.PathLike[str]) -> Iterator[tuple[str, IO[bytes]]]:
    """(name, open file) of every file in a tar archive, in one pass and without unpacking to disk.

    Raises:
      tarfile.ReadError, and what the decompressors raise: if anything in it is damaged.
    """
    with tarfile.open(path) as archive:
        for member in archive:
            if member.isfile() and (file := archive.extractfile(member)) is not None:
                yield member.name, file
        # A damaged header looks like the end of the archive, and the checksum of a compressed one stands at its end.
        while archive.fileobj is not None and (block := archive.fileobj.read(1 << 20)):
            if block.strip(b"\0"):
                raise tarfile.ReadError("there is more after its last file, whose header is damaged")


def _load_tfds(split: str, data_dir: str | os.PathLike[str] | None, on_bad_row: str) -> Examples:
    builder = _builder_class()(data_dir=data_dir)
    if not builder.is_prepared():
        _prepare(builder)
    formats = {file_format.value for file_format in builder.info.available_file_formats()}
    if "array_record" not in formats:
        raise DataError(
            f"{builder.data_dir} was prepared as {', '.join(sorted(formats))}, which only TensorFlow reads; "
            "give another data_dir, where it will be prepared as array_record"
        )
    name = f"{builder.info.full_name} [{split}]"
    collector = Collector(f"TFDS {name} in {builder.data_dir}", on_bad_row, LABEL_NAMES)
    for i, example in enumerate(builder.as_data_source(split), 1):
        label = LABEL_NAMES[int(example["label"])]
        text.add_document(collector, example["text"], label, f"{name} example {i}")
    return collector.finish()


def _prepare(builder: Any) -> None:
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

    downloads = Path(builder.data_dir_root) / "downloads"
    cached = [file for file in downloads.rglob("*aclImdb*.gz") if ".tmp." not in str(file.parent)]
    problem = None if cached else unreachable(URL)
    if problem:
        raise DataError(f"imdb_reviews is not in {builder.data_dir}, and {URL} gives no answer: {problem}. {_WAY_OUT}")
    # The copy prepared by TFDS's authors is tfrecord, and asking for it would mean one more host to wait for.
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    broken = (OSError, tfds.core.download.DownloadError, NonMatchingChecksumError)
    try:
        builder.download_and_prepare(download_config=config, file_format="array_record")
    except broken as error:
        raise DataError(f"imdb_reviews could not be prepared in {builder.data_dir}: {error}. {_WAY_OUT}") from error


def unreachable(url: str, timeout: float = 3.0) -> str | None:
    """Returns why `url` cannot be had, or None if it can.

    Asks for its header, through the proxies of the environment as any download would, and gives up after
    `timeout` seconds of silence or twice that in all; a download would go on trying for minutes.
    """
    answer: list[str | None] = []

    def ask() -> None:
        try:
            # An opener of its own: urlopen keeps the proxies that it found at its first call.
            opener = urllib.request.build_opener()
            with opener.open(urllib.request.Request(url, method="HEAD"), timeout=timeout):
                answer.append(None)
        except (OSError, http.client.HTTPException) as error:
            answer.append(str(error) or type(error).__name__)

    # A thread, because the timeout of a socket does not cover the look-up of the host's name.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(2 * timeout)
    return answer[0] if answer else f"nothing within {2 * timeout:g} s"


@functools.cache
def _builder_class() -> Any:
    """Returns TFDS's imdb_reviews without its archive reader, the one part of it that needs TensorFlow."""
    # Importing TFDS takes a second, which a user of local files need not wait for.
    from tensorflow_datasets.datasets.imdb_reviews import imdb_reviews_dataset_builder as stock

    class Downloads:
        """The part of a download manager that the builder uses."""

        def __init__(self, manager: Any) -> None:
            self.download = manager.download
            self.iter_archive = _members

    # TFDS has no types, so that its Builder is Any to a checker.
    class Builder(stock.Builder, skip_registration=True):  # type: ignore[misc, call-arg]
        name = "imdb_reviews"
        # TFDS looks for these beside the file of the class, which is this one.
        pkg_dir_path = stock.Builder._get_pkg_dir_path()
        url_infos = stock.Builder.url_infos

        def _split_generators(self, dl_manager: Any) -> Any:
            return super()._split_generators(Downloads(dl_manager))

    return Builder
