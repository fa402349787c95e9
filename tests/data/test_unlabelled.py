import json

import pytest

from qlstm_jax.data.rows import DataError
from qlstm_jax.data.unlabelled import Unlabelled, read_texts


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def texts(path, **options):
    return [text for text, _ in read_texts(path, **options)]


LINES = ["a fine\u2028picture", "a dull\u0085picture\x0bhere", "page one\x0cpage\u2029two", "\x1c\x1dplain", "  kept  "]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_lines_end_at_line_ends_alone(tmp_path, end, mark):
    content = mark + end.join(LINES)
    assert texts(write(tmp_path, "a.txt", content)) == LINES
    assert texts(write(tmp_path, "b.txt", content + end)) == LINES


def test_blank_lines_keep_their_place(tmp_path):
    found = list(read_texts(write(tmp_path, "a", "\na\n\n \t\u200b\nb<br>\n<br/>\n")))
    notes = {"": "empty text", " \t\u200b": "empty text", "<br/>": "empty text"}
    assert found == [Unlabelled(t, notes.get(t, "")) for t in ["", "a", "", " \t\u200b", "b<br>", "<br/>"]]
    assert list(read_texts(write(tmp_path, "none.txt", ""))) == []


ROWS = [("one, two\nand a second line", 1), ("", 2), ('say "no"', 3)]
TABLES = {
    "a.csv": 'id,review\n1,"one, two\nand a second line"\n2,\n3,"say ""no"""\n',
    "a.jsonl": "\n".join(json.dumps({"review": text, "id": i}) for text, i in ROWS),
    "b.csv": '\ufeffid;review\n1;"one, two\nand a second line"\n2;\n3;"say ""no"""\n',
}


@pytest.mark.parametrize("name", TABLES)
def test_texts_of_a_table(tmp_path, name):
    path = write(tmp_path, name, TABLES[name])
    found = list(read_texts(path, text_column="review"))
    assert found == [Unlabelled(text, "" if text else "empty text") for text, _ in ROWS]
    with pytest.raises(DataError, match=r"no column 'text'; the columns found are .*'review'.*text_column"):
        texts(path)


def test_of_tsv_nothing_is_special(tmp_path):
    assert texts(write(tmp_path, "a.tsv", 'text\tid\n"a\t1\nb\t2\n')) == ['"a', "b"]


@pytest.mark.parametrize(
    ("name", "content", "line", "reason", "rest"),
    [
        ("a.txt", b"a\nb\xffc\nd", 2, "invalid UTF-8", ["a", "b\ufffdc", "d"]),
        ("a.txt", "a\nb".encode("utf-16-le"), 1, "a zero byte", ["a\0", "\0b\0"]),
        ("a.csv", 'text,id\na,1\nb\n"c,2\nd,3\n', 3, "wrong number of columns", ["a", "", ""]),
        ("a.jsonl", '{"text": "a"}\n{"text": 5}\n[]\n{"text": null}', 2, "wrong type", ["a", "", "", ""]),
        ("a.jsonl", '{"text": "a", "n": 1' + "0" * 5000 + '}\n{"text": "b"}', 1, "invalid JSON", ["", "b"]),
    ],
)
def test_a_bad_row_is_told_or_keeps_its_place(tmp_path, name, content, line, reason, rest):
    path = write(tmp_path, name, content)
    with pytest.raises(DataError, match=rf"a\.\w+:{line}: {reason}: .*on_bad_row='skip'") as error:
        texts(path)
    assert "\n" not in str(error.value)
    found = list(read_texts(path, on_bad_row="skip"))
    assert [text for text, _ in found] == rest
    assert any(note.startswith(f"{path}:{line}: {reason}: ") for _, note in found)


def test_texts_come_as_they_are_read(tmp_path):
    path = write(tmp_path, "a.txt", b"a\n" * 100_000 + b"\xff\n")
    source = read_texts(path)
    assert next(source) == Unlabelled("a")
    with pytest.raises(DataError, match="100001: invalid UTF-8"):
        list(source)


def test_what_is_no_file(tmp_path):
    for path in (tmp_path, tmp_path / "gone.txt"):
        with pytest.raises(DataError, match="is no file"):
            next(read_texts(path))
