"""Reading a CSV file row by row: one line is one row, so a damaged row costs only itself, and memory stays constant."""

import csv
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from closedloop.errors import UnreadableRow, UnusableTable
from closedloop.importing.refusals import quoted

LONGEST = 2**20  # bytes of a line
NAMED = 20  # columns that an error names


@dataclass(frozen=True)
class Row:
    """One row: its line (from 1), its fields as they came, and either its wanted values or why it cannot be read."""

    line: int
    fields: Sequence[str]
    values: Mapping[str, str]
    fault: UnreadableRow | None = None


@dataclass(frozen=True)
class Table:
    """A CSV file (UTF-8, commas, a line of column names) that has the wanted columns, in any order, and maybe more."""

    path: Path
    columns: tuple[str, ...]
    wanted: tuple[str, ...]

    @classmethod
    def open(cls, path: Path, wanted: Sequence[str]) -> "Table":
        """Look at the names of its columns. Raises UnusableTable."""
        try:
            if path.exists() and not path.is_file():
                raise UnusableTable(file=path, reason="it is no file")
            with path.open("rb") as file:
                first = file.readline(LONGEST + 1)
        except OSError as error:
            raise UnusableTable(file=path, reason=f"it cannot be read ({error.strerror or error})") from None
        if not first.strip():
            raise UnusableTable(file=path, reason=f"its first line is empty; it names the columns {','.join(wanted)}")
        try:
            columns = tuple(name.strip() for name in _split(first.removeprefix(b"\xef\xbb\xbf")))
        except UnreadableRow as fault:
            raise UnusableTable(file=path, reason=f"line 1: {fault.details['reason']}") from None
        missing = [name for name in wanted if name not in columns]
        if missing:
            found = ", ".join(quoted(name) for name in columns[:NAMED]) + (", …" if len(columns) > NAMED else "")
            reason = f"it has no column {', '.join(missing)}; its first line names {found}, separated by commas"
            raise UnusableTable(file=path, reason=reason)
        if doubled := [name for name, count in Counter(columns).items() if count > 1 and name in wanted]:
            raise UnusableTable(file=path, reason=f"it has the column {', '.join(doubled)} twice")
        return cls(path, columns, tuple(wanted))

    @property
    def not_read(self) -> list[str]:
        """The columns that nobody asked for."""
        return [name for name in self.columns if name not in self.wanted]

    def count(self) -> int:
        """How many lines it has, the first and empty ones too."""
        with self.path.open("rb") as file:
            lines, last = 0, b"\n"
            while part := file.read(LONGEST):
                lines += part.count(b"\n")
                last = part[-1:]
        return lines + (last != b"\n")

    def rows(self) -> Iterator[Row]:
        """Every row but empty ones, read as it is asked for."""
        at = {name: self.columns.index(name) for name in self.wanted}
        with self.path.open("rb") as file:
            for line, data in enumerate(_lines(file), start=1):
                if line == 1 or not data.strip():
                    continue
                try:
                    fields = _split(data)
                except UnreadableRow as fault:
                    yield Row(line, [], {}, fault)
                    continue
                if len(fields) != len(self.columns):
                    reason = f"it has {len(fields)} fields, and the first line names {len(self.columns)}"
                    yield Row(line, fields, {}, UnreadableRow(reason=reason))
                else:
                    yield Row(line, fields, {name: fields[place] for name, place in at.items()})


def _lines(file: Iterator[bytes]) -> Iterator[bytes]:
    """Lines; of one that is too long only its beginning, and a byte more than may be."""
    read = file.readline  # type: ignore[attr-defined]
    while data := read(LONGEST + 1):
        rest = data
        while len(rest) > LONGEST and not rest.endswith(b"\n"):
            rest = read(LONGEST + 1)
        yield data


def _split(data: bytes) -> list[str]:
    if len(data) > LONGEST:
        raise UnreadableRow(reason="the line is longer than 1 MiB")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise UnreadableRow(reason="it is not UTF-8; save the file as CSV in UTF-8") from None
    if "\0" in text:
        raise UnreadableRow(reason="there is a zero byte in it; save the file as CSV in UTF-8")
    try:
        (fields,) = csv.reader([text.rstrip("\r\n")], strict=True)
    except (csv.Error, ValueError) as error:
        reason = "a quotation mark is open at the end of the line" if "end of data" in str(error) else str(error)
        if "\r" in text.rstrip("\r\n"):
            reason = "its lines end as on old Macintoshes; save it with the line ends of Windows or Unix"
        raise UnreadableRow(reason=f"it is not CSV ({reason})") from None
    return fields
