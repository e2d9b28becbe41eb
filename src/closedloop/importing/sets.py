"""`closedloop import-sets`: a folder with one sub-folder per set becomes sets of a project."""

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from closedloop import sets
from closedloop.errors import ImportedSetSize, NestedFolder, NoSetFolder
from closedloop.importing.files import Files
from closedloop.importing.notebook import Notebook
from closedloop.importing.outcome import Outcome, Progress, Taken, refusals_of, try_one
from closedloop.importing.paths import Root
from closedloop.importing.refusals import quoted, readable
from closedloop.importing.selections import check_different
from closedloop.project import SELECTION, Project
from closedloop.storage import Stores
from closedloop.storage import sets as rows

THERE = "there"  # all that is to be known about a set here


def run(
    stores: Stores,
    project: Project,
    folder: Path,
    clock: Callable[[], dt.datetime],
    *,
    dry: bool = False,
    refused: Path | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Import a folder; each sub-folder is a set, its pictures in the order of their names, kept in one transaction.

    Hidden files are passed over. A set that is there, or in an earlier sub-folder, is known. Raises WrongKind,
    BadRequest, StoreAway, DatabaseAway; what was kept before stays.
    """
    project.check_kind(SELECTION)
    root = Root(folder)
    entries = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    with refusals_of(folder, refused, dry) as refusals, Notebook() as notebook:
        outcome = Outcome(refusals, dry)
        taker = _Sets(stores, project, root, clock, dry, notebook, Files(notebook))
        for number, name in enumerate(entries, start=1):
            try_one(outcome, readable(name), lambda name=name: taker.take(name))
            if progress:
                progress(number, len(entries))
    return outcome


@dataclass(frozen=True)
class _Sets:
    """Takes sub-folder after sub-folder."""

    stores: Stores
    project: Project
    root: Root
    clock: Callable[[], dt.datetime]
    dry: bool
    notebook: Notebook
    files: Files

    def take(self, name: str) -> Taken:
        """Keep the set of a sub-folder, unless it is known. Raises what refuses it."""
        folder = self.root.folder / name
        if not folder.is_dir():
            raise NoSetFolder
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
        if inner := next((entry for entry in entries if entry.is_dir()), None):
            raise NestedFolder(name=quoted(inner.name))
        if not sets.LEAST <= len(entries) <= sets.MOST:
            raise ImportedSetSize(have=len(entries))
        found = [self.root.find(f"{name}/{entry.name}") for entry in entries]
        ids = [self.files.id_of(file) for file in found]
        check_different(found, ids)
        set_id = sets.set_id(self.project.id, ids)
        is_new = self.notebook.answer(self.project.id, set_id) is None and not self._is_there(set_id)
        if is_new and not self.dry:
            accepted = [self.files.picture(file) for file in found]
            is_new = sets.keep(self.stores, self.project, accepted, "import", self.clock())
        self.notebook.note_answer(self.project.id, set_id, THERE)
        return Taken(self.project.id, is_new)

    def _is_there(self, set_id: str) -> bool:
        with self.stores.db.read() as tx:
            return rows.one(tx, set_id) is not None
