"""Files as people have them: how numbers and times are written, what is no series, and rows that are missing."""

import datetime as dt
import random

import numpy as np
import pytest

from qlstm_jax.data import series
from qlstm_jax.data.rows import DataError
from qlstm_jax.data.series import numerals, steps, times

DAYS = [dt.date(2024, 1, 1) + dt.timedelta(day) for day in range(20)]


@pytest.fixture
def read(tmp_path):
    def of(text, name="f.csv", **options):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return series.read(tmp_path / name, **options)

    return of


def dated(values, header="date,load", separator=",", form="%Y-%m-%d", days=DAYS):
    lines = [f"{day.strftime(form)}{separator}{value}" for day, value in zip(days, values, strict=False)]
    return "\n".join([header, *lines]) + "\n"


SQUARES = [n * n % 7 + 0.5 for n in range(20)]


@pytest.mark.parametrize(
    ("text", "names", "skipped"),
    [
        (
            ",date,load\n0,2024-01-01,3\n1,2024-01-02,4\n",
            ("load",),
            {"1": "numbers the rows", "date": "holds the times"},
        ),
        ("Unnamed: 0,load\n3,3\n5,4\n9,1\n", ("load",), {"Unnamed: 0": "numbers the rows"}),
        ("id,load\n1,3\n2,4\n3,1\n", ("load",), {"id": "numbers the rows"}),
        ("id,load\n1,3\n2,4\n4,1\n", ("id", "load"), {}),
        ("0,7\n1,4\n2,9\n", ("2",), {"1": "numbers the rows"}),
        ("date,load\n20240131,3\n20240201,4\n", ("load",), {"date": "holds the times"}),
        ("unix,load\n1706659200,3\n1706662800,4\n", ("load",), {"unix": "holds the times"}),
        ("Year,load\n1990,3\n1991,4\n1993,4\n", ("load",), {"Year": "holds the times"}),
        ("1990,3\n1991,4\n1992,4\n", ("2",), {"1": "holds the times"}),
        ("people,load\n1990,3\n1991,4\n1993,4\n", ("people", "load"), {}),
        ("date,x,stamp\n2024-01-01,3,1706659200\n2024-01-02,4,1706662800\n", ("x",), None),
        ("year,month,load\n2024,1,3\n2024,2,7\n2024,3,1\n", ("month", "load"), {"year": "holds times ('2024')"}),
        ("x,note\n1,good day\n2,\n", ("x",), {"note": "holds no numbers ('good day')"}),
    ],
)
def test_what_is_a_series(read, text, names, skipped):
    table = read(text)
    assert table.names == names
    assert skipped is None or table.skipped == skipped
    assert np.isfinite(table.values).all()


def test_columns_that_are_named_are_read_as_numbers(read):
    table = read(",year,load\n0,1990,3\n1,1991,4\n2,1992,5\n", columns="1,year")
    assert (table.names, table.values[:, 1].tolist()) == (("1", "year"), [1990, 1991, 1992])
    assert read("x,y\n1,2\n,3\n", columns="y").values.tolist() == [[2], [3]]  # only a hole in another column


def test_a_column_that_counts_is_told(read):
    assert any("column x changes by 2 in every row" in note for note in read("x,y\n1,1\n3,5\n5,2\n7,1\n").notes)


@pytest.mark.parametrize(
    ("text", "kept", "line"),
    [
        (dated([1, 2, 4]) + "Total,7\n", 3, 5),
        (dated([1, 2, 4], "Datum;Last", ";") + "Summe:;7\nMittelwert;2,5\n", 3, 5),
        ("date,load\n2024-01-01,1\nsubtotal,1\n2024-01-02,5\n", 2, 3),
        ("date,what,load\n2024-01-01,day,1\n2024-01-02,day,3\n,Grand total,4\n", 2, 4),
        ("day,load\nmon,1\ntue,6\nTotal,7\n", 2, 4),
    ],
)
def test_rows_of_totals_are_left_out_and_noted(read, text, kept, line):
    table = read(text)
    assert len(table.values) == kept
    assert any(f"the first in line {line}" in note and "totals" in note for note in table.notes)


def test_a_word_for_totals_in_a_column_of_text_is_no_total(read):
    assert len(read("name,load\nmax,1\nmin,6\nmax,7\n").values) == 3


@pytest.mark.parametrize(
    ("cells", "values", "separator"),
    [
        (["1,000", "999", "12,345.5"], [1000, 999, 12345.5], ";"),
        (['"1,000"', "999", '"1,234,567"'], [1000, 999, 1234567], ","),
        (["0,5", "1,25", "1.234,5"], [0.5, 1.25, 1234.5], ";"),
        (["1.000", "2,50", "1.234.567"], [1000, 2.5, 1234567], "\t"),
        (['"0,5"', '"1,234"', "7"], [0.5, 1.234, 7], ","),
        (["1 234,5", "1\u202f000", "\u22125"], [1234.5, 1000, -5], "|"),
        (["1'234.50", "12'000", "1e3"], [1234.5, 12000, 1000], ";"),
        (["1.234", "5.678", "-0.5"], [1.234, 5.678, -0.5], ","),
        (["1.234", "5.678"], [1.234, 5.678], ","),
    ],
)
def test_numbers_as_they_are_written(read, cells, values, separator):
    table = read(dated(cells, f"date{separator}load", separator))
    assert (table.names, table.values[:, 0].tolist()) == (("load",), values)
    assert any(note.startswith("numbers have") for note in table.notes) == (
        values != [1.234, 5.678, -0.5][: len(values)]
    )


@pytest.mark.parametrize(
    ("cells", "separator", "options", "message"),
    [
        (
            ["1,234", "5"],
            ";",
            {},
            r"f\.csv:2: column 'load' is '1,234', which may .* three decimals; .*series.decimal",
        ),
        (["1.234", "5"], ";", {}, r"'1\.234', which may be"),
        (
            ["1.5", "2,5"],
            ";",
            {},
            r"f\.csv:2: column 'load' is '1\.5', and .* is '2,5': not written in one way",
        ),
        (["1.5", "2"], ";", {"decimal": ","}, r"f\.csv:2: column 'load' is '1\.5'; expected a finite number.*with ','"),
        (["1.5", "$5"], ",", {}, r"f\.csv:3: column 'load' is '\$5'; expected a finite number"),
        (["$1", "$5"], ",", {}, r"no column holds numbers of a series: .*'load' holds no numbers \('\$1'\)"),
    ],
)
def test_numbers_that_may_be_two(read, cells, separator, options, message):
    with pytest.raises(DataError, match=message):
        read(dated(cells, f"date{separator}load", separator), **options)


def test_options_say_how_numbers_are_written(read):
    text = dated(["1,234", "5"], "date;load", ";")
    assert read(text, decimal=",").values[0, 0] == 1.234
    assert read(text, decimal=".").values[0, 0] == read(text, thousands=",", decimal=".").values[0, 0] == 1234
    assert read("a b\n1  2\n3 4\n", separator="space").values.tolist() == [[1, 2], [3, 4]]
    assert read("sep=;\na;b\n1;2\n").names == ("a", "b")
    for options in ({"separator": "dot"}, {"decimal": "x"}, {"thousands": "x"}, {"on_missing": "x"}):
        with pytest.raises(DataError, match=f"{next(iter(options))} is "):
            read(text, **options)


def test_doubts_are_settled_as_another_file_was_written(read):
    text = "date;load\n" + "".join(f"{n}/1/2024;1.{100 + n}\n" for n in range(1, 9))
    german, english = (read(text, like=series.Writing(*writing)) for writing in [(",", "%d/%m/%Y"), (".", "%m/%d/%Y")])
    assert (german.values[0, 0], german.times[1].item().day, german.writing) == (1101, 2, (",", "%d/%m/%Y"))
    assert (english.values[0, 0], english.times[1].item().day, english.decimal) == (1.101, 1, ".")
    sure = read("date;load\n13/1/2024;0.5\n14/1/2024;1.5\n", like=series.Writing(",", "%m/%d/%Y"))
    assert sure.writing == (".", "%d/%m/%Y")


def test_style_of_a_number():
    assert numerals.style("12.345,6") == numerals.Style(",", ".")
    assert numerals.style("1,234") == numerals.Style(doubtful=",") and numerals.style("0,234") == numerals.Style(",")
    assert numerals.style("+1.5e-3") == numerals.Style(".") and numerals.style("42") == numerals.Style()
    for text in ("01.01.2024", "1,23,4", "", "-", "five", "1_000", "1.2.3"):
        assert numerals.style(text) is None


@pytest.mark.parametrize(
    ("cells", "following"),
    [
        (["2024-01-30", "2024-01-31", "2024-02-01"], ["2024-02-02", "2024-02-03"]),
        (["2024-01-31", "2024-02-29", "2024-03-31"], ["2024-04-30", "2024-05-31"]),
        (["2024-01-30 22:00", "2024-01-30 23:00", "2024-01-31 00:00"], ["2024-01-31 01:00", "2024-01-31 02:00"]),
        (["2024-01-31T00:00:00Z", "2024-01-31T00:15:00Z", "2024-01-31T00:30:00Z"], ["2024-01-31T00:45:00Z"]),
        (["2024-03-31T01:00:00+01:00", "2024-03-31T03:00:00+02:00", "2024-03-31T04:00:00+02:00"],
         ["2024-03-31T05:00:00+02:00"]),
        (["30.01.2024", "31.01.2024", "01.02.2024"], ["02.02.2024"]),
        (["1/30/2024", "1/31/2024", "2/1/2024"], ["02/02/2024"]),
        (["01/01/2023", "01/02/2023", "01/03/2023", "01/04/2023", "01/05/2023", "01/06/2023", "01/07/2023",
          "01/08/2023", "01/09/2023", "01/10/2023", "01/11/2023", "01/12/2023", "01/01/2024"], ["01/02/2024"]),
        (["2023", "2024", "2025"], ["2026"]),
        (["202311", "202312", "202401"], ["202402"]),
        (["2023-11", "2023-12", "2024-01"], ["2024-02"]),
        (["20240131", "20240201", "20240202"], ["20240203"]),
        (["1706659200", "1706662800", "1706666400"], ["1706670000"]),
        (["1706659200000", "1706662800000", "1706666400000"], ["1706670000000"]),
        (["2024010122", "2024010123", "2024010200"], ["2024010201"]),
        (["Jan 30, 2024", "Jan 31, 2024", "Feb 01, 2024"], ["Feb 02, 2024"]),
    ],
)  # fmt: skip
def test_times_go_on_as_they_are_written(read, cells, following):
    table = read("time;x\n" + "".join(f"{cell};{n % 5}\n" for n, cell in enumerate(cells)))
    assert table.following(len(following)) == following


def test_times_of_business_days(read):
    days = [day for day in DAYS if day.weekday() < 5][:10]  # Mon 1 .. Fri 12
    table = read(dated(SQUARES, days=days))
    assert str(table.step) == "1 business day" and table.following(2) == ["2024-01-15", "2024-01-16"]
    assert not any("left out" in note for note in table.notes)


def test_times_in_several_columns_and_formats_by_name(read):
    text = "d;h;x\n" + "".join(f"1.2.24;{h};{h * h}\n" for h in range(5))
    table = read(text, time_column="d,h", time_format="%d.%m.%y %H")
    assert (table.names, str(table.step), table.following(1)) == (("x",), "1 hour", ["01.02.24 05"])
    with pytest.raises(DataError, match=r"f\.csv:3: the time 01\.02\.24 comes after 01\.02\.24; expected a later one"):
        read(text)
    assert read(text, time_column="none").following(1) is None


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (
            dated([1, 2, 3]),
            {"time_column": "day"},
            "series.time_column names 'day'; the columns .* 'date', 'load'",
        ),
        (
            "when,x\nlate,1\nlater,2\n",
            {"time_column": "when"},
            "holds 'late', which is no time .*series.time_format",
        ),
        (dated([1, 2, 3]), {"time_format": "%d.%m.%Y"}, "no column begins with a time of series.time_format"),
        (dated([1] * 19) + "soon,2\n", {}, r"f\.csv:21: column 'date' is 'soon'; expected a time, as in other rows"),
        (
            dated([1, 2, 3]) + "2024-01-02,4\n",
            {},
            r"f\.csv:5: the time 2024-01-02 comes after 2024-01-03; .*sort",
        ),
        (dated(range(12), form="1/%d/2024"), {}, "days and months cannot be told apart; .*%m/%d/%Y or %d/%m/%Y"),
    ],
)
def test_times_that_cannot_be_read(read, text, options, message):
    with pytest.raises(DataError, match=message):
        read(text, **options)


def test_newest_first_is_turned_round(read):
    turned, straight = read(dated(SQUARES[::-1], days=DAYS[::-1])), read(dated(SQUARES))
    np.testing.assert_array_equal(turned.values, straight.values)
    assert turned.following(1) == straight.following(1) == ["2024-01-21"]
    assert any("newest row came first" in note for note in turned.notes)


HOLES = dated([1, "", 4, 5, "NaN", 8, 10, 11]).replace("2024-01-04,5\n", "")  # 4 January is left out


def test_missing_values_and_times(read):
    with pytest.raises(DataError, match=r"f\.csv:3: column 'load' has a missing value; .*series.on_missing"):
        read(HOLES)
    drop = read(HOLES, on_missing="drop")
    assert drop.values[:, 0].tolist() == [1, 4, 8, 10, 11]
    assert any("missing value: rows 2, the first in line 3" in note for note in drop.notes)
    assert any("times left out: 3, the first after line 2" in note for note in drop.notes)
    filled = read(HOLES, on_missing="interpolate")
    np.testing.assert_allclose(filled.values[:, 0], [1, 2.5, 4, 4 + 4 / 3, 4 + 8 / 3, 8, 10, 11])
    assert read(HOLES, on_missing="hold").values[:, 0].tolist() == [1, 1, 4, 4, 4, 8, 10, 11]
    assert filled.times.tolist() == [dt.datetime(2024, 1, day) for day in range(1, 9)]
    assert "times left out, put in by interpolate: 1, the first after line 4" in filled.notes
    assert "missing values filled in by interpolate: 2" in filled.notes


def test_ends_that_nothing_can_fill_are_left_out(read):
    text = "x,y\n,1\n2,\n3,5\n4,7\n6,\n"
    assert read(text, on_missing="interpolate").values.tolist() == [[2, 3], [3, 5], [4, 7]]
    assert read(text, on_missing="hold").values.tolist() == [[2, 1], [3, 5], [4, 7], [6, 7]]


def test_a_file_without_a_whole_row(read):
    for how in ("drop", "interpolate"):
        with pytest.raises(DataError, match=r"no row has all its values; .*another series\.on_missing"):
            read("x,y\n1,\n,2\n", on_missing=how)


def test_more_gaps_than_rows_are_not_filled(read):
    days = [*DAYS[:4], dt.date(2030, 1, 1)]
    with pytest.raises(DataError, match=r"5 rows lie within 2193 steps of 1 day, .* put in more than there are"):
        read(dated(SQUARES, days=days), on_missing="hold")
    assert any("times left out: 2188, the first after line 5" in n for n in read(dated(SQUARES, days=days)).notes)


def test_times_without_a_step_have_nothing_after_them(read):
    days = [DAYS[n] for n in (0, 1, 3, 7, 12, 19)]
    table = read(dated(SQUARES, days=days))
    assert table.following(1) is None and any("no one step" in note for note in table.notes)
    holes = read(dated([1, "", 4, 5, 6, 7], days=days), on_missing="interpolate")
    np.testing.assert_allclose(holes.values[:, 0], [1, 2, 4, 5, 6, 7])  # by time: a third of the way


def test_steps():
    first = np.datetime64("2024-01-31T10:00", "us")
    month = steps.Step("month", 1)
    assert month.after(first, np.array([1, 2])).astype(str).tolist() == [
        "2024-02-29T10:00:00.000000",
        "2024-03-31T10:00:00.000000",
    ]
    assert [str(steps.Step("month", 12)), str(steps.Step("month", 3)), str(steps.Step("microsecond", 900_000_000))] == [
        "1 year",
        "3 months",
        "15 minutes",
    ]
    off = np.array(["2024-01-01", "2024-01-02", "2024-01-03", "2024-01-03T12"], "datetime64[us]")
    assert steps.find(off).positions(off).tolist() == [0, 1, 2, 2.5]


def test_a_format_by_name(read):
    text = "d,x\n2024-01-01 00:00,1\n2024-01-02 00:00,2\n2024-01-02 00:00,3\n"
    with pytest.raises(DataError, match="the time 2024-01-02 00:00 comes after 2024-01-02 00:00"):
        read(text, time_format="iso")
    for wrong in ("%d%d", "%Q", "d"):
        with pytest.raises(DataError, match=r"no column begins with a time of series\.time_format"):
            read(text, time_format=wrong)
    cells = [f"{hour:02d}:00 01/02/24 +0200" for hour in range(4)]
    table = read("d,x\n" + "".join(f"{cell},1\n" for cell in cells[:3]), time_format="%H:%M %d/%m/%y %z")
    assert table.following(1) == cells[3:] and table.times[0].item().hour == 22


def test_formats_with_two_readings():
    assert [clock.format for clock in times.find(["1/2/2024"])] == ["%m/%d/%Y", "%d/%m/%Y"]
    assert [clock.format for clock in times.find(["1/2/2024", "13/2/2024"])] == ["%d/%m/%Y"]
    assert times.find(["noon"]) == times.find(["12:30"]) == times.integer_formats(["99999999"]) == []


def test_a_damaged_file_is_read_whole_or_refused_in_one_line(read):
    """Letters changed, stretches lost, doubled or put in: finite numbers at rising times, or one line."""
    files = [
        ",date,load,vol\n" + "".join(f'{n},2024-01-{n + 1:02d},{n * n % 7}.5,"1,{n:03d}"\n' for n in range(20)),
        dated([f"{n},5" for n in range(20)], "Datum;Last", ";", "%d.%m.%Y") + "Summe;5\n",
        "t\tx\n" + "".join(f"{1706659200 + 3600 * n}\t{n * n}\n" for n in range(20)),
    ]
    pieces = [*',;"\n\0\u202f-.', "NaN", "Total", "inf", "1e999", "2024-13-45", "9" * 20]
    rng, outcomes = random.Random(0), {"read": 0, "refused": 0}
    for _ in range(300):
        text = rng.choice(files)
        for _ in range(rng.randrange(3)):
            start = rng.randrange(len(text))
            stop = start + rng.choice([0, 1, 20])
            text = text[:start] + rng.choice(["", text[start:stop] * 2, rng.choice(pieces)]) + text[stop:]
        try:
            table = read(text, on_missing=rng.choice(series.ON_MISSING))
        except DataError as error:
            assert "\n" not in str(error)
            outcomes["refused"] += 1
            continue
        assert len(table.values) and np.isfinite(table.values).all()
        assert table.times is None or (np.diff(table.times) > np.timedelta64(0)).all()
        table.following(2)
        outcomes["read"] += 1
    assert min(outcomes.values()) > 50
