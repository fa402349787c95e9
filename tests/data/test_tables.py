"""Damaged .csv and .tsv files: no row is lost without being counted."""

import pytest

from qlstm_jax.data.text import DataError, load

LOST = "lines lost to an unbalanced quote"


def write(folder, content, name="a.csv"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def many(*rows):
    """A table of two columns: `rows` amid 300 good ones."""
    good = [f"row {i},{i % 2}" for i in range(300)]
    return "\n".join(["text,label", *good[:2], rows[0], *good[2:], *rows[1:]]) + "\n"


@pytest.mark.parametrize(
    ("content", "opened", "lost", "message"),
    [
        # The quote is met again amid the text of a later row.
        (many('"open,1', 'the "best" of all,0', "last,1"), 4, 300, "line 303"),
        # It is never met again.
        (many('"open,1', "last,1"), 4, 300, "never closed, so that lines 4 to 303"),
        # It is met again in its own row's second field, which opens another one.
        ('text,label\na,1\nb,0\n"two\nlines","1\nc,0\nd,0\n', 5, 4, "never closed, so that lines 4 to 7"),
        # Blank lines are no rows; doubled quotes open nothing.
        ('text,label\na,1\nb,0\n"say ""no"",\n\nc,0\n', 4, 2, "never closed"),
    ],
)
def test_all_lines_that_an_unbalanced_quote_takes_with_it_are_counted(tmp_path, content, opened, lost, message):
    path = write(tmp_path, content)
    with pytest.raises(DataError) as error:
        load(path)
    told = str(error.value)
    assert told.startswith(f"{path}:{opened}: {LOST}: ")
    assert message in told and "close it" in told and "on_bad_row='skip'" in told

    report = load(path, on_bad_row="skip").report
    assert report.skipped == {LOST: lost}
    assert report.rows == len([line for line in content.splitlines() if line]) - 1


def test_a_row_of_one_line_with_stray_quotes_takes_no_other_with_it(tmp_path):
    report = load(write(tmp_path, 'text,label\n"a"b,1\n"c, d",1\ne,0\n'), on_bad_row="skip").report
    assert (report.rows, report.kept, report.skipped) == (3, 2, {"malformed quotes": 1})


def test_rows_of_several_lines_are_told(tmp_path):
    """Two stray quotes may make one text of many rows, which is a right table and cannot be refused."""
    report = load(write(tmp_path, 'text,label\n"a,1\nb,0\nc",1\n"d\ne",0\n')).report
    assert (report.rows, report.kept) == (2, 2)
    assert len(report.notes) == 1
    assert report.notes[0].startswith("2 rows are of several lines") and "has 3 lines" in report.notes[0]
    assert report.notes[0].endswith("a.csv:2")
    assert not load(write(tmp_path, "text,label\na,1\nb,0\n")).report.notes


@pytest.mark.parametrize(
    ("name", "separator", "words"),
    [
        ("a.csv", ";", "semicolons, not by commas as .csv"),
        ("a.csv", "\t", "tabs, not by commas as .csv"),
        ("a.csv", "|", "vertical bars, not by commas as .csv"),
        ("a.tsv", ",", "commas, not by tabs as .tsv"),
        ("a.tsv", ";", "semicolons, not by tabs as .tsv"),
    ],
)
def test_another_separator_that_gives_the_columns_is_read_and_told(tmp_path, name, separator, words):
    rows = ['"text"', "label"], [f'"one{separator} ""two"""', "up"], ["it is 6, at most", "down"]
    if separator == ",":
        rows[2][0] = "it is 6"
    path = write(tmp_path, "\r\n".join(map(separator.join, rows)) + "\r\n", name)
    examples = load(path)
    assert examples.texts == (f'one{separator} "two"', rows[2][0])
    assert examples.report.notes == [f"{path} is separated by {words} files are, and was read so"]
    # A quote that is not closed is found there too.
    path.write_text(path.read_text() + f'"open{separator}up\nmore{separator}down\n')
    with pytest.raises(DataError, match=rf"{name}:4: {LOST}"):
        load(path)


def test_another_separator_that_does_not_give_the_columns_is_named(tmp_path):
    path = write(tmp_path, "review;stars\nnice, really;up\nbad;down\n")
    with pytest.raises(DataError) as error:
        load(path)
    assert "no column 'text'; the columns found are 'review', 'stars' (separated by semicolons)" in str(error.value)
    assert len(load(path, text_column="review", label_column="stars")) == 2


def test_the_separator_of_the_suffix_goes_first(tmp_path):
    path = write(tmp_path, "text;more,label,text,a;b\nx,1,y;z,c\nx,0,w,c\n")
    examples = load(path)
    assert examples.texts == ("y;z", "w") and not examples.report.notes
    path = write(tmp_path, "text,label\na;b;c,1\nd,e,0\n")
    with pytest.raises(DataError, match="found 3 columns and the header has 2, separated by commas; put quotes"):
        load(path)
