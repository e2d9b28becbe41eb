"""What an import refused, with place and reason: all counted, the first hundred at hand, every one in a file."""

import contextlib
import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from closedloop.errors import BadRequest, ClosedloopError

LISTED = 100  # refusals that are told one by one; with more, all of them go to the file
SHOWN = 120  # characters of somebody's text in a reason


@dataclass(frozen=True)
class Refusal:
    """One row, sub-folder or file that was refused."""

    place: int | str  # the line of a table; the name of a sub-folder or a file
    code: str
    reason: str

    def as_json(self) -> dict[str, Any]:
        """With its place as `line` or as `name`."""
        where = {"line": self.place} if isinstance(self.place, int) else {"name": self.place}
        return {**where, "code": self.code, "reason": self.reason}

    def __str__(self) -> str:
        return f"{'line ' if isinstance(self.place, int) else ''}{self.place}: {self.reason}"


class Refusals:
    """Everything that a run refused, in as much memory as the first hundred take.

    `file`: where all of them are written as CSV, with the refused row's own columns behind the reason, so that it can
    be corrected there and imported. One that was asked for is always written, else it is made with the 101st; with
    None there is no file.
    """

    def __init__(self, file: Path | None, asked_for: bool, columns: Sequence[str] = ()) -> None:
        self.first: list[Refusal] = []
        self.reasons: Counter[str] = Counter()  # by code
        self.written: Path | None = None
        self.not_written: str | None = None  # why not
        self._wanted = file
        self._asked_for = asked_for
        self._columns = columns
        self._held: list[tuple[Refusal, Sequence[str]]] = []
        self._open = contextlib.ExitStack()
        self._file: TextIO | None = None

    def __enter__(self) -> "Refusals":
        """Open a file that was asked for; raises BadRequest where it cannot be written."""
        if self._asked_for:
            self._start()
            if self.not_written:
                raise BadRequest(reason=f"{self._wanted} cannot be written ({self.not_written})")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close the file."""
        self._open.close()

    def __len__(self) -> int:
        return self.reasons.total()

    def add(self, place: int | str, error: Exception, fields: Sequence[str] = ()) -> None:
        """Note one, with its row's fields as they came."""
        reason = str(error) if isinstance(error, ClosedloopError) else f"It cannot be read: {readable(str(error))}"
        refusal = Refusal(place, getattr(error, "code", "unreadable"), reason)
        self.reasons[refusal.code] += 1
        if len(self.first) < LISTED:
            self.first.append(refusal)
        elif self._wanted is not None and self._file is None and self.not_written is None:
            self._start()
        if self._file is not None or len(self) <= LISTED:
            self._held.append((refusal, fields))
        if self._file is not None:
            self._write()

    def _start(self) -> None:
        assert self._wanted is not None
        try:
            file = self._wanted.open("w", encoding="utf-8", errors="backslashreplace", newline="")
        except OSError as error:
            self.not_written = error.strerror or str(error)
            return
        self._file = self._open.enter_context(file)
        self.written = self._wanted
        csv.writer(self._file).writerow(["line" if self._columns else "name", "reason", *self._columns])
        self._write()

    def _write(self) -> None:
        assert self._file is not None
        writer = csv.writer(self._file)
        for refusal, fields in self._held:
            writer.writerow([refusal.place, refusal.reason, *fields])
        self._held.clear()


def readable(text: str) -> str:
    """Somebody's text as it can be shown on a terminal: cut, with what cannot be printed escaped."""
    cut = text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape", "backslashreplace").decode() for sign in cut
    )


def quoted(text: str) -> str:
    """The same, between quotation marks."""
    return f'"{readable(text)}"'
