"""`closedloop import`: a folder with one sub-folder per class becomes answered pictures of a project.

Each picture is kept with its answer in one transaction, so an import can be stopped and run again: what is there is
passed over.
"""

import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from closedloop import image
from closedloop.errors import BadRequest, ClosedloopError, DatabaseAway, ImportedOtherwise, StoreAway, UnusableFile
from closedloop.importing import files, keeping
from closedloop.project import CLASSIFICATION, Project
from closedloop.storage import Stores, answers


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
    found, others = find(project, folder)
    done = Imported(not_classes=others)
    for number, (path, label) in enumerate(found, start=1):
        try:
            picture = files.read(path, path.name)
            added = _keep(stores, project, picture, label, clock())
        except (StoreAway, DatabaseAway):
            raise
        except UnusableFile as error:
            done.skipped.append(f"{path.relative_to(folder)}: {error.details['reason']}")
        except (ClosedloopError, OSError) as error:
            done.skipped.append(f"{path.relative_to(folder)}: {error}")
        else:
            done.added += added
            done.known += not added
        if progress:
            progress(number, len(found))
    return done


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith("."))


def _keep(stores: Stores, project: Project, picture: image.Picture, label: str, now: dt.datetime) -> bool:
    """Keep a picture and its answer; False where the project has both. Raises ImportedOtherwise."""

    def say(tx: Any) -> bool:
        if answers.add_import(tx, {"project_id": project.id, "image_id": picture.id, "label": label, "at": now}):
            return True
        former = answers.imported_label(tx, project.id, picture.id)
        if former != label:
            raise ImportedOtherwise(former=former)
        return False

    return keeping.keep(stores, project, picture, f"class_{project.classes.index(label):02d}", now, say)
