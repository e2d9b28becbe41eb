"""The manifests of earlier work: JSON files that say which projects there were and when."""

import contextlib
import datetime as dt
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from closedloop import project as projects
from closedloop.errors import BadRequest, ClosedloopError, ManifestFaults, UnknownProject, UnusableTime, WrongKind
from closedloop.importing import times
from closedloop.importing.assignment import ByFolderAndTime, Lasting
from closedloop.importing.refusals import Refusal, quoted, readable
from closedloop.project import SELECTION, Dates, Project
from closedloop.storage import Stores

MAX_BYTES = 2**20  # of one file
NEW, DATED, KNOWN = "new", "dated", "known"  # what happens to a project: it is made, it gets its dates, nothing


class _Written(BaseModel):
    """One project as a file describes it; other entries are not read."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    projectId: str
    title: str
    startedAt: str | int | float
    finishedAt: str | int | float | None = None
    counts: Any = None


@dataclass(frozen=True)
class Earlier:
    """A project of earlier work, as it will be here."""

    project: Project
    title: str  # in earlier work: a project that is there keeps its own
    counts: Any  # as the manifest has them
    state: str

    def as_json(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {"project": self.project.id, "title": self.title, "state": self.state, "counts": self.counts}


@dataclass
class Reading:
    """What a folder of manifests says."""

    found: list[Earlier] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    without_zone: int = 0  # moments that were taken as UTC

    @property
    def assignment(self) -> ByFolderAndTime:
        """Which rows belong to which of them."""
        return ByFolderAndTime(Lasting(one.project, frozenset({one.project.id, one.title})) for one in self.found)


def read(stores: Stores, folder: Path) -> Reading:
    """Read every *.json of a folder: each describes one project, or a list of them. Nothing is written.

    What cannot be used is in `refused`, also both of two that describe one project differently. Raises BadRequest where
    there is no such folder, or no such file in it.
    """
    if not folder.is_dir():
        raise BadRequest(reason=f"there is no folder {folder}")
    files = sorted(file for file in folder.glob("*.json") if file.is_file() and not file.name.startswith("."))
    if not files:
        raise BadRequest(reason=f"{folder} has no manifests (*.json)")
    reading = Reading()
    written: list[tuple[str, _Written]] = []
    for file in files:
        try:
            written += [(file.name, _parse(entry)) for entry in _entries(file)]
        except (ClosedloopError, OSError, ValueError, RecursionError) as error:
            reading.refused.append(_refusal(file.name, error))
    different = Counter(one.projectId for one in {_key(one): one for _, one in written}.values())
    done: set[str] = set()
    for name, one in written:
        if different[one.projectId] > 1:
            reason = f"{quoted(one.projectId)} is described twice, and differently; none of them is used"
            reading.refused.append(Refusal(name, ManifestFaults.code, reason))
        elif one.projectId not in done:
            done.add(one.projectId)
            try:
                reading.found.append(_settle(stores, one, reading))
            except (ClosedloopError, ValidationError) as error:
                reading.refused.append(_refusal(name, error))
    return reading


def keep(stores: Stores, reading: Reading, now: dt.datetime) -> None:
    """Make the projects that are new, and give the others their dates."""
    for one in reading.found:
        if one.state != KNOWN:
            projects.add(stores, one.project, now)


def _entries(file: Path) -> Iterator[Any]:
    with file.open("rb") as opened:
        data = opened.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError("it is larger than 1 MiB")
    content = json.loads(data.decode("utf-8-sig"))
    return iter(content if isinstance(content, list) else [content])


def _parse(entry: Any) -> _Written:
    if not isinstance(entry, dict):
        raise ValueError("it must be an object with projectId, title and startedAt, or a list of such")
    return _Written.model_validate(entry)


def _key(one: _Written) -> str:
    return json.dumps([one.projectId, one.title, one.startedAt, one.finishedAt])


def _settle(stores: Stores, one: _Written, reading: Reading) -> Earlier:
    began = times.read(str(one.startedAt))
    ended = None if one.finishedAt is None else times.read(str(one.finishedAt))
    dates = Dates(began=began.at, ended=ended and ended.at)
    project = Project(id=one.projectId, title=one.title, kind=SELECTION, dates=dates)
    there = None
    with contextlib.suppress(UnknownProject):
        there = projects.get(stores, project.id)
        project = there.model_copy(update={"dates": dates})
    if project.kind != SELECTION:
        raise WrongKind(project=project.id, kind=project.kind, wanted=SELECTION)
    reading.without_zone += began.without_zone + bool(ended and ended.without_zone)
    return Earlier(project, one.title, one.counts, NEW if there is None else KNOWN if there == project else DATED)


def _refusal(name: str, error: Exception) -> Refusal:
    if isinstance(error, ValidationError):
        faults = [
            f"{'.'.join(map(str, fault['loc'])) or 'its dates'}: {fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors()
        ]
        return Refusal(name, ManifestFaults.code, "; ".join(faults))
    if isinstance(error, UnusableTime | WrongKind):
        return Refusal(name, error.code, str(error))
    return Refusal(name, ManifestFaults.code, f"it cannot be read ({readable(str(error))})")
