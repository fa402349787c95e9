import json

import numpy as np
import pytest

from qlstm_jax.data.text import DataError, load


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# name of the file, its content, the reason, the line, and how many rows are left
BAD_ROWS = [
    ("a.csv", b"text,label\ngood,pos\nbad \xff,neg\nfine,neg\n", "invalid UTF-8", 3, 2),
    ("a.csv", "text,label\ngood,pos\n  ,neg\nfine,neg\n", "empty text", 3, 2),
    ("a.csv", "text,label\ngood,pos\nfine,neg\nbad, \n", "missing label", 4, 2),
    ("a.csv", "text,label\ngood,pos\na,b,neg\nfine,neg\n", "wrong number of columns", 3, 2),
    ("a.csv", 'text,label\n"two\nlines",pos\n\nbad\nfine,neg\n', "wrong number of columns", 5, 2),
    ("a.csv", 'text,label\ngood,pos\n"bad"ly,neg\nfine,neg\n', "malformed quotes", 3, 2),
    ("a.tsv", b"text\tlabel\ngood\tpos\nbad \xff\tneg\nfine\tneg\n", "invalid UTF-8", 3, 2),
    ("a.tsv", "text\tlabel\ngood\tpos\n\tneg\nfine\tneg\n", "empty text", 3, 2),
    ("a.tsv", "text\tlabel\ngood\tpos\nbad\t\nfine\tneg\n", "missing label", 3, 2),
    ("a.tsv", "text\tlabel\r\ngood\tpos\r\nfine\tneg\r\nbad\r\n", "wrong number of columns", 4, 2),
    (
        "a.jsonl",
        b'{"text":"a","label":1}\n{"text":"\xff","label":2}\n{"text":"c","label":2}\n',
        "invalid UTF-8",
        2,
        2,
    ),
    (
        "a.jsonl",
        '{"text":"a","label":1}\n\n{"text":"","label":2}\n{"text":"c","label":2}\n',
        "empty text",
        3,
        2,
    ),
    ("a.jsonl", '{"text":"a","label":1}\n{"label":2}\n{"text":"c","label":2}\n', "empty text", 2, 2),
    ("a.jsonl", '{"text":"a","label":1}\n{"text":"b"}\n{"text":"c","label":2}\n', "missing label", 2, 2),
    (
        "a.jsonl",
        '{"text":"a","label":1}\n{"text":"b","label":null}\n{"text":"c","label":2}',
        "missing label",
        2,
        2,
    ),
    ("a.jsonl", '{"text":"a","label":1}\n{"text":"b",\n{"text":"c","label":2}\n', "invalid JSON", 2, 2),
    ("a.jsonl", '{"text":"a","label":1}\n["b"]\n{"text":"c","label":2}\n', "invalid JSON", 2, 2),
    ("a.jsonl", '{"text":"a","label":1}\n{"text":5,"label":1}\n{"text":"c","label":2}\n', "wrong type", 2, 2),
]


@pytest.mark.parametrize(("name", "content", "reason", "line", "kept"), BAD_ROWS)
def test_bad_row_is_told_with_its_line_or_skipped_and_counted(tmp_path, name, content, reason, line, kept):
    path = write(tmp_path, name, content)
    with pytest.raises(DataError) as error:
        load(path)
    assert str(error.value).startswith(f"{path}:{line}: {reason}: ")
    assert "on_bad_row='skip'" in str(error.value)

    examples = load(path, on_bad_row="skip")
    assert len(examples) == kept
    assert examples.report.rows == kept + 1
    assert examples.report.skipped == {reason: 1}
    assert examples.report.first == {reason: f"{path}:{line}"}
    assert f"1 skipped (1 {reason}, first at {path}:{line})" in examples.report.summary()


EMPTY = ["", "  ", "\u00a0\u3000", "<br />", " <BR><br/> ", "\u200b", "\ufeff", "\x0b\x00"]


def in_folder(folder, rows):
    for number, (text, label) in enumerate(rows):
        (folder / label).mkdir(exist_ok=True)
        write(folder, f"{label}/{number}.txt", text)
    return folder


READERS = {
    "csv": lambda folder, rows: write(folder, "a.csv", "\n".join(map(",".join, [("text", "label"), *rows]))),
    "tsv": lambda folder, rows: write(folder, "a.tsv", "\n".join(map("\t".join, [("text", "label"), *rows]))),
    "jsonl": lambda folder, rows: write(
        folder, "a.jsonl", "\n".join(json.dumps({"text": text, "label": label}) for text, label in rows)
    ),
    "folder": in_folder,
}


@pytest.mark.parametrize("empty", EMPTY, ids=ascii)
@pytest.mark.parametrize("reader", READERS)
def test_what_an_empty_text_or_label_is_is_the_same_everywhere(tmp_path, reader, empty):
    good = [("a", "pos"), ("null", "neg"), ("NaN", "none"), ("0", "0"), ("<br>.", "pos")]
    bad = [(empty, "pos"), ("b", empty)] if reader != "folder" else [(empty, "pos")]
    examples = load(READERS[reader](tmp_path, [*good, *bad]), on_bad_row="skip")
    assert sorted(examples.texts) == sorted(text for text, _ in good)
    assert examples.label_names == ("0", "neg", "none", "pos")
    assert examples.report.skipped == {"empty text": 1, **({"missing label": 1} if reader != "folder" else {})}


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl"])
def test_lines_of_blanks_alone_are_passed_over(tmp_path, name):
    lines = {"a.csv": ["text,label", "a,1", "b,0"], "a.tsv": ["text\tlabel", "a\t1", "b\t0"]}.get(
        name, ["", '{"text": "a", "label": 1}', '{"text": "b", "label": 0}']
    )
    report = load(write(tmp_path, name, "\n\n  \n".join(["", *lines, ""]))).report
    assert (report.rows, report.kept) == (2, 2)


@pytest.mark.parametrize("value", ["null", "NaN"])
def test_what_is_missing_in_json(tmp_path, value):
    rows = ['{"text": "a", "label": 1}', '{"text": "b", "label": 0.5}']
    bad = [f'{{"text": {value}, "label": 1}}', f'{{"text": "c", "label": {value}}}', '{"text": "d"}', '{"label": 1}']
    report = load(write(tmp_path, "a.jsonl", "\n".join(rows + bad)), on_bad_row="skip").report
    assert report.skipped == {"empty text": 2, "missing label": 2}


@pytest.mark.parametrize(("text", "label"), [("0", "1"), ("false", "1"), ("[]", "1"), ('"a"', "[]"), ('"a"', "{}")])
def test_values_of_json_that_are_no_text_are_not_taken_as_missing(tmp_path, text, label):
    path = write(tmp_path, "a.jsonl", f'{{"text": {text}, "label": {label}}}\n')
    with pytest.raises(DataError, match="wrong type"):
        load(path)


def test_a_label_outside_the_training_datas_is_a_bad_row(tmp_path):
    path = write(tmp_path, "a.csv", "text,label\na,neg\nb,meh\nc,neg\n")
    with pytest.raises(DataError, match=r"a\.csv:3: label never seen in training: .*'meh'.*'pos', 'neg'"):
        load(path, label_names=("pos", "neg"))
    examples = load(path, label_names=("pos", "neg"), on_bad_row="skip")
    assert examples.label_names == ("pos", "neg")
    assert examples.labels.tolist() == [1, 1]
    assert examples.report.skipped == {"label never seen in training": 1}


def test_csv_quotes_commas_embedded_line_ends_and_byte_order_mark(tmp_path):
    content = 'label,text,id\r\npos,"one, ""two""\nthree",1\r\nneg,it is 6" wide,2\r\n'
    examples = load(write(tmp_path, "a.CSV", b"\xef\xbb\xbf" + content.encode()))
    assert examples.texts == ('one, "two"\nthree', 'it is 6" wide')
    assert examples.labels.tolist() == [1, 0]
    assert examples.labels.dtype == np.int32
    assert examples.label_names == ("neg", "pos")


def test_csv_field_longer_than_the_csv_modules_default(tmp_path):
    long = "word " * 40_000
    assert load(write(tmp_path, "a.csv", f"text,label\n{long},1\nshort,2\n")).texts[0] == long


def test_tsv_quotes_and_carriage_returns_belong_to_the_text(tmp_path):
    path = write(tmp_path, "a.tsv", b'\xef\xbb\xbftext\tlabel\n"open\tpos\na "b"\rc\tneg\n"whole"\tpos\n')
    assert load(path).texts == ('"open', 'a "b"\rc', '"whole"')


def test_jsonl_with_other_column_names_and_mixed_labels(tmp_path):
    lines = [{"body": "a\u2028b\n", "y": 10}, {"y": "9", "body": "c", "more": []}, {"body": "d", "y": 10}]
    content = "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    examples = load(write(tmp_path, "a.jsonl", content), text_column="body", label_column="y")
    assert examples.texts == ("a\u2028b\n", "c", "d")
    assert examples.label_names == ("9", "10")  # numeric order
    assert examples.labels.tolist() == [1, 0, 1]


def test_labels_that_are_not_all_integers_are_sorted_as_strings(tmp_path):
    examples = load(write(tmp_path, "a.csv", "text,label\na,10\nb,9\nc,x\n"))
    assert examples.label_names == ("10", "9", "x")


def test_class_folder(tmp_path):
    for name, content in [
        ("pos/b", b"\xef\xbb\xbf fine \n"),
        ("pos/a", b"good"),
        ("neg/a", b"bad"),
        ("unsup/a", b"?"),
    ]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path, f"{name}.txt", content)
    write(tmp_path, "pos/ignored.html", "x")
    examples = load(tmp_path)
    assert examples.texts == ("bad", "good", "fine")
    assert examples.labels.tolist() == [0, 1, 1]
    assert examples.report.rows == 4
    assert examples.report.skipped == {"unlabelled (unsup)": 1}

    bad = write(tmp_path, "neg/b.txt", b"one\ntwo \xff\n")
    with pytest.raises(DataError) as error:
        load(tmp_path)
    assert str(error.value).startswith(f"{bad}:2: invalid UTF-8")


def test_hidden_files_and_folders_are_neither_classes_nor_texts(tmp_path):
    names = ["up/a", "up/._a", "down/b", "down/.b", ".ipynb_checkpoints/a-checkpoint", "__MACOSX/c", ".cache/d"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path, f"{name}.txt", name)
    write(tmp_path, ".DS_Store", "x")
    (tmp_path / "empty").mkdir()
    examples = load(tmp_path)
    assert (examples.texts, examples.label_names) == (("down/b", "up/a"), ("down", "up"))
    assert examples.report.rows == 2
    hidden, empty = examples.report.notes
    assert hidden == f"{tmp_path}: hidden files left out: 5, the first {tmp_path}/.cache/d.txt"
    assert empty == f"{tmp_path}: no .txt files, and so no class, in the folders empty"


def test_a_hidden_folder_may_be_read_by_name(tmp_path):
    for name in ("up/a", "down/b"):
        (tmp_path / ".texts" / name).parent.mkdir(parents=True)
        write(tmp_path / ".texts", f"{name}.txt", name)
    examples = load(tmp_path / ".texts")
    assert len(examples) == 2 and not examples.report.notes


def test_missing_column_names_those_found_and_the_nearest(tmp_path):
    path = write(tmp_path, "a.csv", "Review Text,labels\na,1\n")
    with pytest.raises(DataError, match=r"no column 'text'.*'Review Text', 'labels'"):
        load(path, on_bad_row="skip")
    with pytest.raises(DataError, match="did you mean label_column='labels'"):
        load(path, text_column="Review Text", on_bad_row="skip")
    path = write(tmp_path, "a.jsonl", '{"txt": "a", "label": 1}\n')
    with pytest.raises(DataError, match="did you mean text_column='txt'"):
        load(path, on_bad_row="skip")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", "is empty"),
        ("a.csv", "\n\n", "blank lines only"),
        ("a.csv", "text,label\n", "no usable rows"),
        ("a.csv", "text,text,label\na,b,c\n", "2 columns are named 'text'"),
        ("a.csv", "text,label\na,1\nb,1\n", "every row has the label '1'"),
        ("a.csv", "text,label\na,1\n".encode("utf-16"), "the header is not UTF-8"),
        ("a.xlsx", "text,label\n", r"suffix '\.xlsx'.*give a \.csv, \.tsv, \.jsonl or \.parquet file"),
    ],
)
def test_unusable_files(tmp_path, name, content, message):
    with pytest.raises(DataError, match=message):
        load(write(tmp_path, name, content), on_bad_row="skip")


def test_unusable_paths_and_options(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        load(tmp_path / "none.csv")
    with pytest.raises(DataError, match="holds no class folder"):
        load(tmp_path)
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match=r"did you mean .*train"):
        load(tmp_path)
    path = write(tmp_path, "a.csv", "text,label\na,1\nb,2\n")
    with pytest.raises(DataError, match="'error' or 'skip'"):
        load(path, on_bad_row="ignore")
    with pytest.raises(DataError, match="two different columns"):
        load(path, text_column="label")
    with pytest.raises(DataError, match="sequence of different strings"):
        load(path, label_names="12")
