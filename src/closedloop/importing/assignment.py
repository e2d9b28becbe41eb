"""Which project a row belongs to: the one that was named, or the one that its folder and its time fit."""

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from closedloop.errors import FitsNoProject, FitsTwoProjects, MixedSet, OfAnotherProject
from closedloop.importing.paths import Found
from closedloop.importing.refusals import quoted
from closedloop.importing.times import said
from closedloop.project import SELECTION, UNKNOWN, Project, all_projects
from closedloop.storage import Stores


class Assignment(Protocol):
    """Says which project pictures of earlier work belong to."""

    def project_of(self, name: str, files: Sequence[Found], at: dt.datetime) -> Project:
        """The one project of the set `name`, or of one picture.

        Raises MixedSet with the names of both where there are two, or another error of why there is none.
        """
        ...


@dataclass(frozen=True)
class OneProject:
    """Everything belongs to one project, but for what lies in a folder that is called exactly like another one."""

    project: Project
    others: frozenset[str] = frozenset()  # ids of the other selection projects

    @classmethod
    def of(cls, stores: Stores, project: Project) -> "OneProject":
        """Raises WrongKind for a project that has no sets."""
        project.check_kind(SELECTION)
        selections = {other.id for other in all_projects(stores) if other.kind == SELECTION}
        return cls(project, frozenset(selections - {project.id}))

    def project_of(self, name: str, files: Sequence[Found], at: dt.datetime) -> Project:
        """The project; raises MixedSet or OfAnotherProject."""
        owners = [file.folder if file.folder in self.others else self.project.id for file in files]
        for owner in owners:
            if owner != owners[0]:
                raise MixedSet(name=quoted(name), first=owners[0], second=owner)
        if owners[0] != self.project.id:
            raise OfAnotherProject(path=quoted(files[0].name), other=owners[0], project=self.project.id)
        return self.project


@dataclass(frozen=True)
class Lasting:
    """A project that lasted from one day to another, and the names of its folder."""

    project: Project  # with its dates
    names: frozenset[str]  # its id, and its title in earlier work

    def lasted_at(self, at: dt.datetime) -> bool:
        """Whether a moment lies in its time, both ends in it."""
        dates = self.project.dates
        return dates is not None and dates.began <= at and (dates.ended is None or at <= dates.ended)


class ByFolderAndTime:
    """A picture belongs to the project whose id or title its first folder has, exactly, and in whose time it was."""

    def __init__(self, lasting: Iterable[Lasting]) -> None:
        self._of_name: dict[str, list[Lasting]] = {}
        for one in lasting:
            for name in one.names:
                if name.casefold() != UNKNOWN:
                    self._of_name.setdefault(name, []).append(one)

    def project_of(self, name: str, files: Sequence[Found], at: dt.datetime) -> Project:
        """The project; raises FitsNoProject, FitsTwoProjects or MixedSet."""
        folders = list(dict.fromkeys(file.folder for file in files))
        called = [self._called(folder, files) for folder in folders]
        ids = [{one.project.id for one in found} for found in called]
        for other in ids[1:]:
            if not ids[0] & other:  # whenever it was: so say which two, not that one of them was over
                raise MixedSet(name=quoted(name), first=min(ids[0]), second=min(other))
        fitting = [self._in_time(str(folder), found, at) for folder, found in zip(folders, called, strict=True)]
        for project in fitting:
            if project.id != fitting[0].id:
                raise MixedSet(name=quoted(name), first=fitting[0].id, second=project.id)
        return fitting[0]

    def _called(self, folder: str | None, files: Sequence[Found]) -> list[Lasting]:
        if folder is None:
            path = next(file.name for file in files if file.folder is None)
            raise FitsNoProject(folder='""', reason=f"{quoted(path)} lies in no folder")
        if folder.casefold() == UNKNOWN:
            raise FitsNoProject(folder=quoted(folder), reason=f"{UNKNOWN} is no project")
        if folder not in self._of_name:
            raise FitsNoProject(folder=quoted(folder), reason="no manifest has exactly this projectId or title")
        return self._of_name[folder]

    def _in_time(self, folder: str, called: Sequence[Lasting], at: dt.datetime) -> Project:
        fitting = [one.project for one in called if one.lasted_at(at)]
        if not fitting:
            times = "; ".join(_lasted(one.project) for one in called[:3])
            raise FitsNoProject(folder=quoted(folder), reason=f"{said(at)} is not in its time ({times})")
        if len(fitting) > 1:
            first, second = sorted(project.id for project in fitting)[:2]
            raise FitsTwoProjects(folder=quoted(folder), at=said(at), first=first, second=second)
        return fitting[0]


def _lasted(project: Project) -> str:
    assert project.dates
    end = f"to {said(project.dates.ended)}" if project.dates.ended else "on"
    return f"{project.id}: from {said(project.dates.began)} {end}"
