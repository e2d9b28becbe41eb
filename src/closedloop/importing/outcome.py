"""What an import did, and the way through a table's rows that gives it."""

import itertools
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from closedloop.errors import BadRequest, ClosedloopError, DatabaseAway, LeaseTaken, StoreAway
from closedloop.importing.refusals import Refusals
from closedloop.importing.table import Table

Progress = Callable[[int, int], None]  # (done, of)
ADDED, KNOWN = "added", "known"


@dataclass(frozen=True)
class Taken:
    """One row, or one sub-folder, that was not refused."""

    project: str
    is_new: bool
    without_zone: bool = False


@dataclass
class Outcome:
    """What an import did, or would do in a dry run: every row was added, known or refused."""

    refusals: Refusals
    dry: bool
    rows: int = 0
    of_project: dict[str, Counter[str]] = field(default_factory=dict)  # project -> added, known
    without_zone: int = 0  # rows whose time was taken as UTC
    not_read: tuple[str, ...] = ()  # columns

    @property
    def added(self) -> int:
        """How many are new."""
        return sum(counts[ADDED] for counts in self.of_project.values())

    @property
    def known(self) -> int:
        """How many were there, or in an earlier row."""
        return sum(counts[KNOWN] for counts in self.of_project.values())

    def note(self, taken: Taken) -> None:
        """Count one that was not refused."""
        counts = self.of_project.setdefault(taken.project, Counter())
        counts[ADDED if taken.is_new else KNOWN] += 1
        self.without_zone += taken.without_zone


def try_one(outcome: Outcome, place: int | str, take: Callable[[], Taken], row: Any = ()) -> None:
    """Take one row or sub-folder, or note why it is refused. Raises StoreAway, DatabaseAway, LeaseTaken."""
    outcome.rows += 1
    try:
        outcome.note(take())
    except (StoreAway, DatabaseAway, LeaseTaken):  # not its fault: the whole import ends, to be run again
        raise
    except (ClosedloopError, OSError) as error:
        outcome.refusals.add(place, error, row)


def go_through(
    table: Table, outcome: Outcome, take: Callable[[Mapping[str, str]], Taken], progress: Progress | None
) -> Outcome:
    """Take every row of a table by its wanted values."""
    total = table.count() if progress else 0
    outcome.not_read = tuple(table.not_read)
    for row in table.rows():

        def taken(row: Any = row) -> Taken:
            if row.fault:
                raise row.fault
            return take(row.values)

        try_one(outcome, row.line, taken, row.fields)
        if progress:
            progress(row.line, total)
    if progress and not outcome.rows:
        progress(total, total)
    return outcome


def refusals_of(source: Path, refused: Path | None, dry: bool, columns: tuple[str, ...] = ()) -> Refusals:
    """Where the refusals of an import from `source` go: to the file that was asked for, else to one beside the source.

    A dry run makes no file unless it was asked for. One beside the source never replaces a former one, which somebody
    may be correcting. Raises BadRequest where it is the source itself.
    """
    if refused is not None and refused.exists() and refused.samefile(source):
        raise BadRequest(reason="--refused names the file that is imported")
    name = source.resolve().name
    names = itertools.chain([f"{name}.refused.csv"], (f"{name}.refused.{number}.csv" for number in itertools.count(2)))
    beside = next(path for path in map(source.resolve().with_name, names) if not path.exists())
    return Refusals(refused or (None if dry else beside), refused is not None, columns)
