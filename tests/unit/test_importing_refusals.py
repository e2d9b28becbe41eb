"""Whatever is refused is counted, told and, where there is much of it, written to a file."""

import csv
from pathlib import Path

import pytest

from closedloop.errors import BadRequest, MissingFile, UnreadableRow
from closedloop.importing.refusals import LISTED, Refusals, readable


def refuse(refusals: Refusals, count: int) -> None:
    with refusals:
        for line in range(2, 2 + count):
            refusals.add(line, UnreadableRow(reason=f"x{line}"), [f"s{line}", "ü,\n"])


def lines(file: Path) -> list[list[str]]:
    with file.open(encoding="utf-8", newline="") as opened:
        return list(csv.reader(opened))


def test_a_hundred_are_told_and_no_file_is_made(tmp_path: Path) -> None:
    refusals = Refusals(tmp_path / "r.csv", False, ["session_id", "path"])
    refuse(refusals, LISTED)
    assert len(refusals) == len(refusals.first) == LISTED
    assert str(refusals.first[0]) == "line 2: The row cannot be read: x2."
    assert (refusals.written, list(tmp_path.iterdir())) == (None, [])


@pytest.mark.parametrize(("count", "asked_for"), [(LISTED + 1, False), (LISTED + 50, True), (3, True), (0, True)])
def test_every_one_is_in_the_file_with_its_own_columns(tmp_path: Path, count: int, asked_for: bool) -> None:
    refusals = Refusals(tmp_path / "r.csv", asked_for, ["session_id", "path"])
    refuse(refusals, count)
    header, *rows = lines(tmp_path / "r.csv")
    assert header == ["line", "reason", "session_id", "path"]
    assert [int(row[0]) for row in rows] == list(range(2, 2 + count))
    assert all(row[2:] == [f"s{row[0]}", "ü,\n"] for row in rows)
    assert len(refusals) == count
    assert len(refusals.first) == min(count, LISTED)
    assert refusals.reasons.total() == count


def test_a_file_that_cannot_be_written_stops_nothing_unless_it_was_asked_for(tmp_path: Path) -> None:
    refusals = Refusals(tmp_path / "nowhere" / "r.csv", False)
    refuse(refusals, LISTED + 2)
    assert (len(refusals), refusals.written) == (LISTED + 2, None)
    assert "No such file" in str(refusals.not_written)
    with pytest.raises(BadRequest, match="cannot be written"):
        refuse(Refusals(tmp_path / "nowhere" / "r.csv", True), 0)


def test_without_a_file_all_are_counted(tmp_path: Path) -> None:
    refusals = Refusals(None, False)
    refuse(refusals, LISTED + 2)
    assert len(refusals) == LISTED + 2


def test_reasons_are_counted_by_their_kind() -> None:
    refusals = Refusals(None, False)
    refusals.add("a", MissingFile(path="a", root="b"))
    refusals.add("b", MissingFile(path="c", root="b"))
    refusals.add("c", PermissionError(13, "denied"))
    assert refusals.reasons == {"missing_file": 2, "unreadable": 1}
    assert refusals.first[0].as_json()["name"] == "a"


def test_texts_of_others_cannot_write_on_the_terminal() -> None:
    assert readable("a\x1b[31m\u202e\ud800\n") == r"a\x1b[31m\u202e\ud800\n"
    assert len(readable("x" * 10_000)) == 120
