"""A table of earlier work is read line by line: what is damaged is refused with its line, the rest is read."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from closedloop.errors import UnusableTable, UnusableTime
from closedloop.importing import times
from closedloop.importing.crops import number
from closedloop.importing.selections import several
from closedloop.importing.table import LONGEST, Row, Table

WANTED = ("path", "at")


def read(folder: Path, data: bytes) -> tuple[Table, list[Row]]:
    file = folder / "rows.csv"
    file.write_bytes(data)
    table = Table.open(file, WANTED)
    rows = list(table.rows())
    last = rows[-1].line if rows else 1
    assert last <= table.count()
    return table, rows


@pytest.mark.parametrize(
    "data",
    [
        b"path,at\na b.png,1\n",
        b"\xef\xbb\xbfpath,at\r\na b.png,1\r\n",
        b'"path","at"\n"a b.png","1"',
        b"at , path\n1,a b.png\n",
        b"path,at\n\n   \na b.png,1\n\n",
        b"more,path,at,\xc3\xbc\nx,a b.png,1,y\n",
    ],
    ids=["plain", "BOM and CRLF", "quotes, no last line break", "other order", "empty lines", "more columns"],
)
def test_a_row_is_read_however_it_is_written(tmp_path: Path, data: bytes) -> None:
    _, (row,) = read(tmp_path, data)
    assert (row.fault, row.values) == (None, {"path": "a b.png", "at": "1"})


def test_the_columns_that_nobody_reads_are_named(tmp_path: Path) -> None:
    table, _ = read(tmp_path, b"more,path,at,less\n")
    assert table.not_read == ["more", "less"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "its first line is empty; it names the columns path,at"),
        (b"\n\n", "first line is empty"),
        (b"\xef\xbb\xbf", "no column path, at"),
        (b"path,when\n", 'no column at; its first line names "path", "when"'),
        (b"Path,at\n", "no column path"),
        (b"path;at\n", '"path;at", separated by commas'),
        (b"path,at,at\n", "column at twice"),
        ("path,at\n".encode("utf-16"), "not UTF-8"),
        (b'path,"at\n', "quotation mark"),
        (b"\x89PNG\r\n\x1a\n\0\0", "not UTF-8"),
        (b"\x1b[31m,x\n", r'"\x1b[31m"'),
        (b"x," * LONGEST, "longer than 1 MiB"),
    ],
)
def test_a_file_that_is_no_such_table_is_refused_with_what_it_has(tmp_path: Path, data: bytes, said: str) -> None:
    with pytest.raises(UnusableTable) as caught:
        read(tmp_path, data)
    assert said in str(caught.value)
    assert "rows.csv" in str(caught.value)


@pytest.mark.parametrize("name", ["nothing.csv", "."])
def test_what_is_no_file_is_said_to_be_none(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnusableTable):
        Table.open(tmp_path / name, WANTED)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"a.png\n", "1 fields, and the first line names 2"),
        (b"a.png,1,2\n", "3 fields"),
        (b'"a.png,1\n', "quotation mark is open"),
        (b'"a"b.png,1\n', "not CSV"),
        (b"\xff.png,1\n", "not UTF-8"),
        (b"a\0.png,1\n", "zero byte"),
        (b"a\r.png,1\n", "not CSV"),
        (b"a" * (LONGEST * 3) + b",1\n", "longer than 1 MiB"),
        (b"a" * 200_000 + b",1\n", "limit"),
    ],
)
def test_a_damaged_row_costs_only_itself(tmp_path: Path, line: bytes, said: str) -> None:
    _, rows = read(tmp_path, b"path,at\na.png,1\n" + line + b"b.png,2\n")
    assert [(row.line, row.values.get("path")) for row in rows] == [(2, "a.png"), (3, None), (4, "b.png")]
    assert said in str(rows[1].fault)


@given(data=st.binary(max_size=60))
def test_no_bytes_stop_the_reading(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    _, rows = read(tmp_path_factory.mktemp("table"), b"path,at\n" + data + b"\nb.png,2\n")
    assert rows[-1].values == {"path": "b.png", "at": "2"}


def test_memory_stays_constant(tmp_path: Path) -> None:
    import tracemalloc

    file = tmp_path / "rows.csv"
    file.write_text("path,at\n" + "mojo1/a.png,2026-01-31T12:00:00Z\n" * 10_000)
    tracemalloc.start()
    assert sum(1 for _ in Table.open(file, WANTED).rows()) == 10_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 500_000


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("b.png;c.png", ["b.png", "c.png"]),
        ("b.png; c.png ;", ["b.png", "c.png"]),
        ('["b.png", " c;.png"]', ["b.png", " c;.png"]),
        ("[]", []),
        ("", []),
    ],
)
def test_the_paths_that_were_passed_over_are_a_list_or_separated(text: str, names: list[str]) -> None:
    assert several(text) == names


@pytest.mark.parametrize("text", ["['b.png']", '["b.png"', "[1]", '[["b.png"]]', "[" * 60_000])
def test_what_is_no_list_of_paths_is_refused(text: str) -> None:
    with pytest.raises(Exception, match="neg_paths") as caught:
        several(text)
    assert caught.value.code == "unreadable_row"  # type: ignore[attr-defined]


def test_a_number_is_one_only_as_people_write_it() -> None:
    assert number(" 0.25 ") == 0.25
    assert [number(text) for text in ("0,25", "1_0", "", "ten")] == ["0,25", "1_0", "", "ten"]


@pytest.mark.parametrize(
    ("text", "at", "without_zone"),
    [
        ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z", False),
        ("2026-01-31T12:00:00+01:00", "2026-01-31T11:00:00Z", False),
        ("2026-01-31 12:00:00 UTC", "2026-01-31T12:00:00Z", False),
        ("2026-01-31 12:00:00.5", "2026-01-31T12:00:00.500000Z", True),
        ("2026-01-31", "2026-01-31T00:00:00Z", True),
        ("20260131", "2026-01-31T00:00:00Z", True),
        ("1769860800", "2026-01-31T12:00:00Z", False),
        ("1769860800000", "2026-01-31T12:00:00Z", False),
        ("1769860800.25", "2026-01-31T12:00:00.250000Z", False),
    ],
)
def test_a_time_is_taken_as_it_is_written(text: str, at: str, without_zone: bool) -> None:
    moment = times.read(text)
    assert (times.said(moment.at), moment.without_zone) == (at, without_zone)


@pytest.mark.parametrize(
    "text", ["", "31.01.2026", "yesterday", "NaN", "12345", "0001-01-01T00:00:00+14:00", "\x1b", "9" * 40]
)
def test_what_is_no_time_is_refused_with_what_is_taken(text: str) -> None:
    with pytest.raises(UnusableTime, match="2026-01-31T12:00:00Z"):
        times.read(text)
