"""Parquet files and Hugging Face datasets on disk. The datasets are written here as `Dataset.save_to_disk` 5.2 does."""

import json
import sys

import pyarrow as pa
import pytest
from pyarrow import parquet

from qlstm_jax.data.rows import DataError
from qlstm_jax.data.text import load
from qlstm_jax.data.unlabelled import Unlabelled, read_texts

TEXTS = ["one, two\nlines", "café", None, "zwei"]
FEATURES = {"text": {"dtype": "string", "_type": "Value"}, "label": {"names": ["down", "up"], "_type": "ClassLabel"}}


def table(labels=("1", "2", "1", "2"), texts=TEXTS, metadata=None, **kinds):
    columns = {"id": list(range(len(texts))), "text": texts, "label": list(labels)}
    return pa.table({k: pa.array(v, kinds.get(k)) for k, v in columns.items()}).replace_schema_metadata(metadata)


def write(path, rows):
    parquet.write_table(rows, path, row_group_size=3)
    return path


def save_to_disk(folder, rows, shards=1):
    """A dataset as `datasets` saves it, with the names of its classes."""
    folder.mkdir(parents=True)
    rows = rows.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": FEATURES}})})
    names = [f"data-{i:05}-of-{shards:05}.arrow" for i in range(shards)]
    each = -(-len(rows) // shards)
    for i, name in enumerate(names):
        with pa.OSFile(str(folder / name), "wb") as sink, pa.ipc.new_stream(sink, rows.schema) as writer:
            writer.write_table(rows.slice(i * each, each), max_chunksize=2)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    return folder


KINDS = {
    "strings": (("1", "2", "1", "2"), {}),
    "integers": ((1, 2, 1, 2), {"label": pa.int8()}),
    "large strings": (("1", "2", "1", "2"), {"label": pa.large_string(), "text": pa.large_string()}),
    "categories": (("1", "2", "1", "2"), {"label": pa.dictionary(pa.int32(), pa.string())}),
}


@pytest.mark.parametrize(("labels", "kinds"), KINDS.values(), ids=KINDS)
def test_parquet(tmp_path, labels, kinds):
    path = write(tmp_path / "a.parquet", table(labels, **kinds))
    examples = load(path, on_bad_row="skip")
    assert examples.texts == ("one, two\nlines", "café", "zwei")
    assert [examples.label_names[i] for i in examples.labels] == ["1", "2", "2"]
    assert examples.report.first == {"empty text": f"{path}:3"}
    assert list(read_texts(path)) == [Unlabelled(t or "", "" if t else "empty text") for t in TEXTS]


def test_missing_labels_and_bytes_that_are_no_utf_8(tmp_path):
    bad = pa.array([b"a", b"b\xff", b"c", b"d"]).cast(pa.string(), safe=False)
    rows = pa.table({"text": bad, "label": pa.array([0.5, 1.5, None, float("nan")])})
    report = load(write(tmp_path / "a.parquet", rows), on_bad_row="skip", label_names=("0.5", "1.5")).report
    assert report.skipped == {"invalid UTF-8": 1, "missing label": 2}


def test_what_cannot_be_read_is_told_in_one_line(tmp_path, monkeypatch):
    path = write(tmp_path / "a.parquet", table())
    cases = {
        "the column 'id' holds int64; name one of strings with text_column=": {"text_column": "id"},
        "no column 'Text'; .*did you mean text_column='text'": {"text_column": "Text"},
    }
    for message, options in cases.items():
        with pytest.raises(DataError, match=message):
            load(path, **options)
    nested = write(tmp_path / "b.parquet", pa.table({"text": ["a"], "label": [[1]]}))
    with pytest.raises(DataError, match=r"the column 'label' holds list<.*strings or numbers with label_column="):
        load(nested)
    content = path.read_bytes()
    for damaged in (content[:50], content[:-50], b"PAR1" + bytes(100) + content[-8:]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"a\.parquet cannot be read as \.parquet") as error:
            load(path)
        assert "\n" not in str(error.value)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        DataError, match=r'needs pyarrow, which is not installed; run: pip install "qlstm_jax\[parquet\]"'
    ):
        load(path)


def test_a_dataset_on_disk(tmp_path):
    rows = table((1, 0, -1, 1, 1), [*TEXTS[:2], "no label", "zwei", "drei"])
    for shards in (1, 2):
        folder = save_to_disk(tmp_path / str(shards), rows, shards)
        examples = load(folder, on_bad_row="skip")
        assert examples.texts == ("one, two\nlines", "café", "zwei", "drei")
        assert examples.label_names == ("down", "up") and examples.labels.tolist() == [1, 0, 1, 1]
        assert list(examples.report.skipped) == ["missing label"]
    file = folder / "data-00000-of-00002.arrow"
    assert [text for text, _ in read_texts(file)] == ["one, two\nlines", "café", "no label"]
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"arrow cannot be read as \.arrow"):
        load(folder)
    file.unlink()
    with pytest.raises(DataError, match="lacks its files data-00000-of-00002"):
        load(folder)
    (folder / "state.json").write_text("{")
    with pytest.raises(DataError, match=r"state\.json is damaged"):
        load(folder)


def test_a_file_of_arrows_other_form(tmp_path):
    path, rows = tmp_path / "a.arrow", table(text=pa.string_view())
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, rows.schema) as writer:
        writer.write_table(rows)
    assert load(path, on_bad_row="skip").texts == ("one, two\nlines", "café", "zwei")


def test_a_class_without_a_name_and_damaged_metadata(tmp_path):
    metadata = {"huggingface": json.dumps({"info": {"features": FEATURES}})}
    path = write(tmp_path / "a.parquet", table((0, 1, 5, 1), list("abcd"), metadata))
    with pytest.raises(DataError, match=r"parquet:3: a class without a name: its number is 5 of 2 classes"):
        load(path)
    write(path, table((0, 1, 1, 1), list("abcd"), {"huggingface": "{"}))
    with pytest.raises(DataError, match="metadata 'huggingface' is damaged"):
        load(path)
