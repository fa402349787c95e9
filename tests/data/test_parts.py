"""Parts that a user has made: by files, by folders, in a dataset on disk."""

import pytest

from qlstm_jax.data.parts import Paths, Shares, load_parts
from qlstm_jax.data.rows import DataError
from qlstm_jax.data.splits import part_notes
from tests.data.test_arrow import save_to_disk, table

COUNTS = {"train": 20, "validation": 4, "test": 6}


def rows_of(part, count=None):
    """(text, label) of a part."""
    return [(f"{part} {i}", ("cat", "dog")[i % 2]) for i in range(count or COUNTS[part])]


def csv(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))


def class_folders(path, rows):
    for i, (text, label) in enumerate(rows):
        (path / label).mkdir(parents=True, exist_ok=True)
        (path / label / f"{i:03}.txt").write_text(text)


def dataset(path, rows):
    labels = [("cat", "dog").index(label) for _, label in rows]
    save_to_disk(path, table(labels, [text for text, _ in rows]))


WRITERS = {
    "{}.csv": csv,
    "{}": class_folders,
    "{}/": dataset,
    "{}.tsv": lambda path, rows: path.write_text("text\tlabel\n" + "".join(f"{t}\t{n}\n" for t, n in rows)),
    "{}.jsonl": lambda path, rows: path.write_text(
        "".join(f'{{"text": "{text}", "label": "{label}"}}\n' for text, label in rows)
    ),
}


def sizes(parts):
    return {part: len(examples) for part, examples in parts.items()}


@pytest.mark.parametrize(
    "names", [("train", "validation", "test"), ("Train", "dev", "Testing"), ("training", "val", "test")]
)
@pytest.mark.parametrize("form", WRITERS)
def test_a_folder_that_holds_all_parts(tmp_path, form, names):
    for part, name in zip(COUNTS, names, strict=True):
        WRITERS[form](tmp_path / form.format(name), rows_of(part))
    (tmp_path / "README.md").write_text("about")
    parts, reports = load_parts(Paths(str(tmp_path)))
    assert sizes(parts) == COUNTS
    for part, examples in parts.items():
        assert all(text.startswith(part) for text in examples.texts)
    assert parts["test"].label_names in (("cat", "dog"), ("down", "up"))
    assert [report.kept for report in reports] == [20, 4, 6]
    assert part_notes(parts) == []


def test_a_part_without_a_source_is_a_share_of_the_training_file(tmp_path):
    csv(tmp_path / "train.csv", rows_of("train"))
    csv(tmp_path / "test.csv", rows_of("test"))
    assert sizes(load_parts(Paths(str(tmp_path)), Shares(0.2, 0.3))[0]) == {"train": 16, "validation": 4, "test": 6}
    assert sizes(load_parts(Paths(str(tmp_path)), Shares(0.0, 0.3))[0]) == {"train": 20, "validation": 0, "test": 6}
    paths = Paths(str(tmp_path / "train.csv"), validation=str(tmp_path / "test.csv"))
    assert sizes(load_parts(paths, Shares(0.2, 0.3))[0]) == {"train": 14, "validation": 6, "test": 6}
    assert sizes(load_parts(paths, Shares(0.2, 0.0))[0]) == {"train": 20, "validation": 6, "test": 0}
    paths = Paths(*(str(tmp_path / name) for name in ("train.csv", "test.csv", "test.csv")))
    assert sizes(load_parts(paths)[0]) == {"train": 20, "validation": 6, "test": 6}


def test_the_shards_of_a_table_are_one_part(tmp_path):
    for i in range(3):
        csv(tmp_path / f"train-0000{i}-of-00003.csv", rows_of("train")[i::3])
    csv(tmp_path / "test-00000-of-00001.csv", rows_of("test"))
    csv(tmp_path / "sample.csv", rows_of("test"))
    parts, (report, _) = load_parts(Paths(str(tmp_path)), Shares(validation=0.0))
    assert sizes(parts) == {"train": 20, "validation": 0, "test": 6}
    assert report.source.endswith("train-00000-of-00003.csv and 2 more")
    assert report.notes == [f"{tmp_path}: left out, as no part is named so: sample.csv"]


def test_a_label_that_training_lacks_is_a_bad_row(tmp_path):
    csv(tmp_path / "train.csv", rows_of("train"))
    csv(tmp_path / "test.csv", [*rows_of("test"), ("a new one", "bird")])
    with pytest.raises(DataError, match=r"test\.csv:8: label never seen in training: .*'bird'.*'cat', 'dog'"):
        load_parts(Paths(str(tmp_path)))
    parts, (_, report) = load_parts(Paths(str(tmp_path)), on_bad_row="skip")
    assert len(parts["test"]) == 6 and report.skipped == {"label never seen in training": 1}


def test_texts_of_two_parts_and_labels_that_a_part_lacks_are_told(tmp_path):
    csv(tmp_path / "train.csv", rows_of("train"))
    csv(tmp_path / "dev.csv", [("dev 1", "cat"), ("DEV 2", "dog")])
    csv(tmp_path / "test.csv", [("Train  2", "cat"), ("dev 2", "cat"), ("train 4<br />", "cat"), ("dev 1", "cat")])
    notes = part_notes(load_parts(Paths(str(tmp_path)))[0])
    assert "test texts that are in the training part too: 2 of 4" in notes
    assert "test texts that are in the validation part too: 2 of 4" in notes
    assert "test has no text of 'dog'" in notes
    assert any(
        note.startswith("texts with contradictory labels: 1, in 2 rows, such as 'DEV 2' (cat, dog)") for note in notes
    )


def test_two_sources_of_one_part_are_refused(tmp_path):
    csv(tmp_path / "train.csv", rows_of("train"))
    csv(tmp_path / "val.csv", rows_of("validation"))
    with pytest.raises(
        DataError, match=r"holds a validation part, val\.csv, and text\.validation_path is .*train\.csv"
    ):
        load_parts(Paths(str(tmp_path), validation=str(tmp_path / "train.csv")))
    csv(tmp_path / "dev.csv", rows_of("validation"))
    with pytest.raises(DataError, match=r"holds several validation parts, dev\.csv and val\.csv; keep one"):
        load_parts(Paths(str(tmp_path)))


def test_what_is_not_a_folder_of_parts(tmp_path):
    class_folders(tmp_path / "animals", rows_of("train"))
    class_folders(tmp_path / "animals", [(f"{i}", "train") for i in range(20)])  # a class of that name
    assert load_parts(Paths(str(tmp_path / "animals")))[0]["train"].label_names == ("cat", "dog", "train")
    csv(tmp_path / "tables" / "test.csv", rows_of("test"))
    with pytest.raises(DataError, match=r"holds no class folder .*did you mean .*test\.csv"):
        load_parts(Paths(str(tmp_path / "tables")))
