"""`closedloop import-crops`: a table of which part of a picture was kept in earlier work."""

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from closedloop import sets
from closedloop.crops import Box
from closedloop.errors import CroppedOtherwise
from closedloop.importing import keeping, times
from closedloop.importing.assignment import Assignment
from closedloop.importing.files import Files
from closedloop.importing.notebook import Notebook
from closedloop.importing.outcome import Outcome, Progress, Taken, go_through, refusals_of
from closedloop.importing.paths import Root
from closedloop.importing.refusals import readable
from closedloop.importing.table import Table
from closedloop.storage import Stores
from closedloop.storage import sets as rows

EDGES = ("x1", "y1", "x2", "y2")
COLUMNS = ("session_id", "path", *EDGES, "timestamp")


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
    """Import a table; each row is a picture and its crop, kept in one transaction.

    A row that is there, or says what an earlier one says, is known. Raises BadRequest, UnusableTable, StoreAway,
    DatabaseAway; what was kept before stays.
    """
    table = Table.open(file, COLUMNS)
    with refusals_of(file, refused, dry, table.columns) as refusals, Notebook() as notebook:
        crops = _Crops(stores, assignment, Root(root), clock, dry, notebook, Files(notebook))
        return go_through(table, Outcome(refusals, dry), crops.take, progress)


@dataclass(frozen=True)
class _Crops:
    """Takes row after row."""

    stores: Stores
    assignment: Assignment
    root: Root
    clock: Callable[[], dt.datetime]
    dry: bool
    notebook: Notebook
    files: Files

    def take(self, row: Mapping[str, str]) -> Taken:
        """Keep the picture and the crop of a row, unless they are known. Raises what refuses it."""
        moment = times.read(row["timestamp"])
        box = Box.of(*(number(row[name]) for name in EDGES))
        file = self.root.find(row["path"])
        project = self.assignment.project_of(row["path"], [file], moment.at)
        image_id = self.files.id_of(file)
        former = self.notebook.answer(project.id, image_id) or self._cropped_before(project.id, image_id)
        if former and former != box.as_text():
            raise CroppedOtherwise(former=former)
        is_new = not former
        if is_new and not self.dry:

            def say(tx: Any) -> bool:
                edges = {name: getattr(box, name) for name in EDGES}
                about = {"project_id": project.id, "image_id": picture.id}
                if rows.add_crop(tx, {**about, **edges, "session": row["session_id"], "at": moment.at}):
                    return True
                (there,) = rows.crops(tx, project.id, [picture.id])
                if (text := _text(there)) != box.as_text():
                    raise CroppedOtherwise(former=text)
                return False

            picture = self.files.picture(file)
            is_new = keeping.keep(self.stores, project, picture, sets.FOLDER, self.clock(), say)
        self.notebook.note_answer(project.id, image_id, box.as_text())
        return Taken(project.id, is_new, moment.without_zone)

    def _cropped_before(self, project_id: str, image_id: str) -> str | None:
        with self.stores.db.read() as tx:
            crops = rows.crops(tx, project_id, [image_id])
        return _text(crops[0]) if crops else None


def number(text: str) -> float | str:
    """A number as it is written in digits; the text itself where it is none, so that a reason can name it."""
    try:
        return float(text) if "_" not in text else readable(text)
    except ValueError:
        return readable(text)


def _text(crop: Any) -> str:
    return Box(*(crop[name] for name in EDGES)).as_text()
