"""`closedloop import`: a folder with one sub-folder per class becomes answered pictures of a project.

Each picture is kept with its answer in one transaction, so an import can be stopped and run again: what is there is
passed over.
"""

import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from closedloop import catalogue, image, removal
from closedloop.errors import BadRequest, ClosedloopError, DatabaseAway, ImportedOtherwise, RemovedMeanwhile, StoreAway
from closedloop.leases import Lease
from closedloop.project import CLASSIFICATION, Project
from closedloop.storage import Stores, answers, pictures
from closedloop.storage.objects import PRODUCTION


@dataclass
class Imported:
    """What an import did."""

    added: int = 0
    known: int = 0
    skipped: list[str] = field(default_factory=list)  # "file: reason"
    not_classes: list[str] = field(default_factory=list)  # sub-folders that name no class


def find(project: Project, folder: Path) -> tuple[list[tuple[Path, str]], list[str]]:
    """The files below each class's sub-folder with their class, and the sub-folders that name no class.

    Raises WrongKind, BadRequest where there is no such folder or none of its sub-folders is a class.
    """
    project.check_kind(CLASSIFICATION)
    if not folder.is_dir():
        raise BadRequest(reason=f"there is no folder {folder}")
    sub_folders = sorted(entry for entry in folder.iterdir() if entry.is_dir())
    matching = [entry for entry in sub_folders if entry.name in project.classes]
    others = [entry.name for entry in sub_folders if entry.name not in project.classes]
    if not matching:
        raise BadRequest(
            reason=f"{folder} has no sub-folder that is called like a class of {project.id}: "
            f"{', '.join(project.classes)}"
        )
    return [(file, entry.name) for entry in matching for file in _files(entry)], others


def run(
    stores: Stores,
    project: Project,
    folder: Path,
    clock: Callable[[], dt.datetime],
    progress: Callable[[int, int], None] | None = None,
) -> Imported:
    """Import a folder; files that are no picture are named in `skipped`. Raises BadRequest, StoreAway, DatabaseAway."""
    files, others = find(project, folder)
    done = Imported(not_classes=others)
    for number, (path, label) in enumerate(files, start=1):
        try:
            with path.open("rb") as file:  # never more in memory than a picture may have
                picture = image.accept(file.read(image.MAX_BYTES + 1))
            added = _keep(stores, project, picture, label, clock())
        except (StoreAway, DatabaseAway):
            raise
        except (ClosedloopError, OSError) as error:
            done.skipped.append(f"{path.relative_to(folder)}: {error}")
        else:
            done.added += added
            done.known += not added
        if progress:
            progress(number, len(files))
    return done


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith("."))


def _keep(stores: Stores, project: Project, picture: image.Picture, label: str, now: dt.datetime) -> bool:
    """Keep a picture and its answer; False where the project has both. Raises ImportedOtherwise."""
    with removal.coming(stores, project.id, picture.id) as lease:
        return _keep_answered(stores, project, picture, label, now, lease)


def _keep_answered(
    stores: Stores, project: Project, picture: image.Picture, label: str, now: dt.datetime, lease: Lease | None
) -> bool:
    with stores.db.read() as tx:
        known = pictures.image(tx, project.id, picture.id)
    key = f"{PRODUCTION}/{project.id}/class_{project.classes.index(label):02d}/{picture.id}.jpg"
    if not known or known["removed_at"] is not None:
        stores.objects.put(key, picture.jpeg)
    record = picture.record(project.id, key, "import", now)
    with stores.db.write() as tx:
        if not pictures.add_image(tx, record):
            there = pictures.image(tx, project.id, picture.id, lock=True)
            if there and there["removed_at"] is not None:
                if lease is None:
                    raise RemovedMeanwhile
                lease.check(tx)
                pictures.revive(tx, record)
        answer = {"project_id": project.id, "image_id": picture.id, "label": label, "at": now}
        if answers.add_import(tx, answer):
            catalogue.refresh(tx, project.id, picture.id)
            return True
        former = answers.imported_label(tx, project.id, picture.id)
    if former != label:
        raise ImportedOtherwise(former=former)
    return False
