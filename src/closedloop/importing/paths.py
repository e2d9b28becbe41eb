"""The paths of a table: exact names of files below one folder, the root, and nowhere else."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from closedloop.errors import BadRequest, MissingFile, UnusablePath
from closedloop.importing.refusals import quoted


@dataclass(frozen=True)
class Found:
    """A file that a table names."""

    name: str  # as it is written there
    real: Path
    folder: str | None  # the first on its way, None where it lies in the root itself
    size: int  # bytes
    changed: int  # ns


class Root:
    """The folder that paths begin in. Raises BadRequest where there is none."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise BadRequest(reason=f"there is no folder {folder}")
        self.folder = folder
        self._real = folder.resolve()

    def find(self, name: str) -> Found:
        """The file of this name, exactly as written ("mojo1/07/a.png").

        Raises UnusablePath for one that does not stay in its folder, and MissingFile.
        """
        if not name:
            raise UnusablePath(path=quoted(name), reason="it is empty")
        if name.startswith("/") or re.match(r"[A-Za-z]:[\\/]|\\\\", name):
            raise UnusablePath(path=quoted(name), reason="it is absolute; paths begin in the root")
        parts = name.split("/")
        if ".." in parts:
            raise UnusablePath(path=quoted(name), reason='".." is not followed')
        if "" in parts or "." in parts:
            raise UnusablePath(path=quoted(name), reason="it has an empty part; names are matched exactly")
        try:
            real = (self._real / name).resolve()
            status = real.stat() if real.is_file() else None
        except (OSError, ValueError, RuntimeError):  # a name that is too long, a circle of links
            status = None
        if status is None or not os.access(real, os.R_OK):
            hint = " (folders are separated by /)" if "\\" in name else ""
            raise MissingFile(path=f"{quoted(name)}{hint}", root=self.folder)
        if not real.is_relative_to(self._real):
            raise UnusablePath(path=quoted(name), reason="it is a link out of the root")
        within = real.relative_to(self._real).parts
        folder = parts[0] if len(parts) > 1 else None
        if (within[0] if len(within) > 1 else None) != folder:
            raise UnusablePath(path=quoted(name), reason="it is a link into another folder")
        return Found(name, real, folder, status.st_size, status.st_mtime_ns)
