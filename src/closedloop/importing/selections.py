"""`closedloop import-selections`: a table of which picture of a set was chosen in earlier work."""

import datetime as dt
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from closedloop import sets
from closedloop.errors import ImportedSetSize, MixedSet, PickedOtherwise, SameFileTwice, UnreadableRow
from closedloop.importing import times
from closedloop.importing.assignment import Assignment
from closedloop.importing.files import Files
from closedloop.importing.notebook import Notebook
from closedloop.importing.outcome import Outcome, Progress, Taken, go_through, refusals_of
from closedloop.importing.paths import Found, Root
from closedloop.importing.refusals import quoted
from closedloop.importing.table import Table
from closedloop.storage import Stores
from closedloop.storage import sets as rows

COLUMNS = ("session_id", "set_id", "chosen_path", "neg_paths", "timestamp")


def run(
    stores: Stores,
    assignment: Assignment,
    file: Path,
    root: Path,
    clock: Callable[[], dt.datetime],
    *,
    dry: bool = False,
    refused: Path | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Import a table; each row is a set and the picture of it that was chosen, kept in one transaction.

    A row that is there, or says what an earlier one says, is known. Raises BadRequest, UnusableTable, StoreAway,
    DatabaseAway; what was kept before stays.
    """
    table = Table.open(file, COLUMNS)
    with refusals_of(file, refused, dry, table.columns) as refusals, Notebook() as notebook:
        picks = _Picks(stores, assignment, Root(root), clock, dry, notebook, Files(notebook))
        return go_through(table, Outcome(refusals, dry), picks.take, progress)


@dataclass(frozen=True)
class _Picks:
    """Takes row after row."""

    stores: Stores
    assignment: Assignment
    root: Root
    clock: Callable[[], dt.datetime]
    dry: bool
    notebook: Notebook
    files: Files

    def take(self, row: Mapping[str, str]) -> Taken:
        """Keep the set and the pick of a row, unless they are known. Raises what refuses it."""
        moment = times.read(row["timestamp"])
        found = self._find([row["chosen_path"], *several(row["neg_paths"])])
        session, name = row["session_id"], row["set_id"]
        project = self.assignment.project_of(name, found, moment.at)
        former = self.notebook.project_of(session, name) if name else None
        if former not in (None, project.id):
            raise MixedSet(name=quoted(name), first=former, second=project.id)

        ids = [self.files.id_of(file) for file in found]
        check_different(found, ids)
        set_id = sets.set_id(project.id, ids)
        picked = self.notebook.answer(project.id, set_id) or self._picked_before(project.id, set_id)
        if picked and picked != ids[0]:
            raise PickedOtherwise(former=_named(picked, found, ids))
        is_new = not picked
        if is_new and not self.dry:
            accepted = [self.files.picture(file) for file in found]
            pick = sets.Pick(accepted[0].id, session, moment.at)
            accepted.sort(key=lambda picture: picture.id)  # the first place of a set must not give away its best
            is_new = sets.keep(self.stores, project, accepted, "import", self.clock(), picked=pick)
        self.notebook.note_answer(project.id, set_id, ids[0])
        self.notebook.note_project(session, name, project.id)
        return Taken(project.id, is_new, moment.without_zone)

    def _find(self, names: Sequence[str]) -> list[Found]:
        if not sets.LEAST <= len(names) <= sets.MOST:
            raise ImportedSetSize(have=len(names))
        found = [self.root.find(name) for name in names]
        check_different(found, [str(file.real) for file in found])
        return found

    def _picked_before(self, project_id: str, set_id: str) -> str | None:
        with self.stores.db.read() as tx:
            picks = rows.picks(tx, project_id, [set_id])
        return picks[0]["image_id"] if picks else None


def several(text: str) -> list[str]:
    """The paths of a JSON list, taken exactly, or of a text that separates them by `;`. Raises UnreadableRow."""
    if not text.lstrip().startswith("["):
        return [name for part in text.split(";") if (name := part.strip())]
    try:
        names = json.loads(text)
    except (ValueError, RecursionError):
        raise UnreadableRow(reason="neg_paths begins with [ and is no JSON list") from None
    if not all(isinstance(name, str) for name in names):
        raise UnreadableRow(reason="neg_paths is a JSON list of something else than texts")
    return names


def check_different(found: Sequence[Found], marks: Sequence[str]) -> None:
    """Raise SameFileTwice where two of the files have the same mark (their place, their picture)."""
    first: dict[str, Found] = {}
    for file, mark in zip(found, marks, strict=True):
        if mark in first:
            raise SameFileTwice(first=quoted(first[mark].name), second=quoted(file.name))
        first[mark] = file


def _named(image_id: str, found: Sequence[Found], ids: Sequence[str]) -> str:
    return quoted(found[ids.index(image_id)].name) if image_id in ids else image_id
