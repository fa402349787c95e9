import numpy as np
import pytest

from qlstm_jax.data import series
from qlstm_jax.data.batching import stream
from qlstm_jax.data.rows import DataError


def write(tmp_path, text, name="a.csv"):
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize(
    ("text", "names", "values", "skipped"),
    [
        ("x,y\n1,2\n3,4\n", ("x", "y"), [[1, 2], [3, 4]], ()),
        ("1,2\n3,4\n", ("1", "2"), [[1, 2], [3, 4]], ()),
        ("\ufeffvalue\r\n1e3\r\n-2.5\r\n", ("value",), [[1000], [-2.5]], ()),
        ("\n7\n8\n\n", ("1",), [[7], [8]], ()),
        ("date,x\n2020-01-01,1\n\n2020-01-02,2\n", ("x",), [[1], [2]], ("date",)),
        ("2020-01-01,1\n2020-01-02,2\n", ("2",), [[1], [2]], ("1",)),
        ("date,0,1\nmon,5,6\ntue,7,8\n", ("1",), None, None),
        (",x\n0,1.5\n1,2.5\n", ("x",), [[1.5], [2.5]], ("1",)),
        ('"a, b","c"\n1,"2"\n', ("a, b", "c"), [[1, 2]], ()),
        ("x,note,\n1,good day,\n2,,\n", ("x",), [[1], [2]], ("note", "3")),
    ],
)
def test_reading(tmp_path, text, names, values, skipped):
    path = write(tmp_path, text)
    if values is None:  # names that are numbers look like data
        assert series.read(path).values[:, 0].tolist() == [0, 5, 7]
        table = series.read(path, header="yes")
        assert (table.names, table.values.tolist()) == (("0", "1"), [[5, 6], [7, 8]])
        return
    table = series.read(path)
    assert (table.names, table.values.tolist(), tuple(table.skipped)) == (names, values, skipped)
    assert table.values.dtype == np.float64


def test_tabs_and_header_by_word(tmp_path):
    path = write(tmp_path, "x\ty\n1\t2\n", "a.TSV")
    assert series.read(path).names == ("x", "y")
    with pytest.raises(DataError, match=r"a\.TSV:1: column '1' is 'x'; expected a finite number"):
        series.read(path, header="no")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x,y\n1,2\n\n3,\n", r"a\.csv:4: column 'y' has a missing value; fill it in"),
        ("x,y\n1,2\nNaN,3\n", r"a\.csv:3: column 'x' has a missing value"),
        ("1,\n3,4\n", r"a\.csv:1: column '2' has a missing value"),
        ("x,y\n1,2\n,\n3,4\n", r"a\.csv:3: column 'x' has a missing value"),
        ("x\n1\n\n3\n", r"a\.csv:3: column 'x' has a missing value"),
        ("x,y\n1,2\n3,four\n", r"a\.csv:3: column 'y' is 'four'; expected a finite number"),
        ("x\n1\ninf\n", r"a\.csv:3: column 'x' is 'inf'"),
        ("x\n1\n1_000\n", r"a\.csv:3: column 'x' is '1_000'"),
        ("x,y\n1,2\n3\n", r"a\.csv:3: 1 columns, and 2 in the first row"),
        ("x,x\n1,2\n", r"a\.csv:1: several columns are named 'x'"),
        ("x,y\na,b\n", "no column holds numbers"),
        ("\n \n", "is empty"),
        ('x\n"1\n', r"a\.csv:\d+: unexpected end of data"),
        (b"x\n\xff\n", r"is not UTF-8 \(byte 2\)"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        series.read(write(tmp_path, text))


def test_missing_file_header_and_columns(tmp_path):
    with pytest.raises(DataError, match=r"none\.csv is no file \(the current folder is"):
        series.read(tmp_path / "none.csv")
    path = write(tmp_path, "day,x,y,z\na,1,2,3\nb,4,5,6\n")
    with pytest.raises(DataError, match="header is 'perhaps'; expected one of auto, yes, no"):
        series.read(path, header="perhaps")
    table = series.read(path)
    assert table.columns("", "o") == (0, 1, 2) and table.columns("z, x", "o") == (2, 0)
    taken = table.take("z,x", "o")
    assert (taken.names, taken.values.tolist(), taken.sha256) == (("z", "x"), [[3, 1], [6, 4]], table.sha256)
    for wanted, message in [
        ("w", "o is 'w'; expected different names from the columns of numbers 'x', 'y', 'z'"),
        ("x,x", "o is 'x,x'; expected different names"),
        ("day", "column 'day' of o holds no numbers"),
    ]:
        with pytest.raises(DataError, match=message):
            table.columns(wanted, "o")


def test_parts_follow_each_other_in_time():
    assert series.split(100, validation=0.1, test=0.2) == {
        "train": range(70),
        "validation": range(70, 80),
        "test": range(80, 100),
    }
    with pytest.raises(DataError, match="shares above 0"):
        series.split(100, validation=0.5, test=0.5)


def test_scale():
    values = np.array([[1.0, 0.1], [3.0, 0.1], [8.0, 0.1]])
    mean, deviation = series.scale(values)
    np.testing.assert_allclose(mean, [4, 0.1])
    np.testing.assert_allclose(deviation, [np.sqrt(26 / 3), 1])


def rows_of(windows):
    """For each window the rows of context and targets, of a series whose values are its row numbers."""
    batch = windows.at(windows.origins)
    return [(c[:, 0].astype(int).tolist(), t[:, 0].astype(int).tolist()) for c, t in zip(*batch, strict=True)]


def test_no_part_sees_or_predicts_what_is_not_its_own():
    values = np.stack([np.arange(20), -np.arange(20)], axis=1)
    parts = series.split(20, validation=0.2, test=0.3)
    sizes = {"context": 3, "horizon": 2, "targets": (0,)}
    found = {name: rows_of(series.Windows(values, part, **sizes)) for name, part in parts.items()}
    assert found["train"] == [(list(range(t - 3, t)), [t, t + 1]) for t in range(3, 9)]
    assert found["validation"] == [(list(range(t - 3, t)), [t, t + 1]) for t in range(10, 13)]
    assert found["test"] == [(list(range(t - 3, t)), [t, t + 1]) for t in range(14, 19)]
    batch = series.Windows(values, parts["test"], context=3, horizon=2, targets=(1, 0)).at([14])
    assert batch.inputs.dtype == batch.targets.dtype == np.float32
    assert batch.targets.tolist() == [[[-14, 14], [-15, 15]]]
    assert batch.inputs.tolist() == [[[11, -11], [12, -12], [13, -13]]]


def test_every_window_comes_once_in_a_pass_from_any_batch_on():
    sizes = {"context": 2, "horizon": 1, "targets": (0,), "batch_size": 4}
    values = np.arange(13)[:, None]
    windows = series.Windows(values, range(13), **sizes, seed=3)
    assert len(windows.origins) == 11
    first = [int(t) for n in range(11) for t in windows.batch(n).targets[:, 0, 0]]
    passes = [first[i : i + 11] for i in range(0, 44, 11)]
    assert all(sorted(p) == list(range(2, 13)) for p in passes) and len(set(map(tuple, passes))) == 4
    again = stream(series.Windows(values, range(13), **sizes, seed=3), 7)
    assert [int(t) for t in next(again).targets[:, 0, 0]] == first[28:32]
    again.close()
    other = series.Windows(values, range(13), **sizes, seed=4)
    assert [int(t) for t in other.batch(0).targets[:, 0, 0]] != first[:4]


def test_a_part_without_a_window():
    with pytest.raises(DataError, match="the test part has 4 rows; expected at least 5, for a context of 3"):
        series.Windows(np.zeros((20, 1)), range(16, 20), context=3, horizon=5, targets=(0,), name="test")
    with pytest.raises(DataError, match="the train part has 4 rows; expected at least 5"):
        series.Windows(np.zeros((20, 1)), range(4), context=3, horizon=2, targets=(0,), name="train")
    assert len(series.Windows(np.zeros((20, 1)), range(5), context=3, horizon=2, targets=(0,)).origins) == 1


def test_naive_forecasts():
    values = np.stack([np.arange(10.0), 100 + np.arange(10.0)], axis=1)
    np.testing.assert_array_equal(series.last_value(values, [4, 9], 3), [[[3, 103]] * 3, [[8, 108]] * 3])
    found = series.seasonal(values, [4, 9], 5, 3)[:, :, 0]
    np.testing.assert_array_equal(found, [[1, 2, 3, 1, 2], [6, 7, 8, 6, 7]])
    np.testing.assert_array_equal(series.seasonal(values, [9], 2, 7)[:, :, 1], [[102, 103]])
