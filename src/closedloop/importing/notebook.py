"""What a run has seen so far. It lies in a temporary file of SQLite's, so that memory does not grow.

In a dry run it stands in for what would have been written.
"""

import os
import sqlite3
from types import TracebackType

from closedloop.importing.paths import Found

_TABLES = """
CREATE TABLE pictures (path BLOB PRIMARY KEY, size INTEGER, changed INTEGER, id TEXT) WITHOUT ROWID;
CREATE TABLE answers (project TEXT, subject TEXT, answer TEXT, PRIMARY KEY (project, subject)) WITHOUT ROWID;
CREATE TABLE sets (session TEXT, name TEXT, project TEXT, PRIMARY KEY (session, name)) WITHOUT ROWID;
"""


class Notebook:
    """Which picture each file is, what was answered about each set or picture, and each named set's project."""

    def __enter__(self) -> "Notebook":
        """Open it."""
        self._db = sqlite3.connect("", isolation_level=None)  # without a name: on the disk, gone when it is closed
        self._db.executescript(f"PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; {_TABLES}")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close and forget it."""
        self._db.close()

    def picture(self, file: Found) -> str | None:
        """The id of the picture in a file, if it was looked at and has not changed since."""
        query = "SELECT id FROM pictures WHERE path = ? AND size = ? AND changed = ?"
        return self._one(query, os.fsencode(file.real), file.size, file.changed)

    def note_picture(self, file: Found, id_: str) -> None:
        """Keep which picture a file is."""
        self._put("pictures", os.fsencode(file.real), file.size, file.changed, id_)

    def answer(self, project: str, subject: str) -> str | None:
        """What is known to be answered about a set or a picture."""
        return self._one("SELECT answer FROM answers WHERE project = ? AND subject = ?", project, subject)

    def note_answer(self, project: str, subject: str, answer: str) -> None:
        """Keep what is answered about a set or a picture."""
        self._put("answers", project, subject, answer)

    def project_of(self, session: str, name: str) -> str | None:
        """The project of a session's set of this name, in an earlier row."""
        return self._one("SELECT project FROM sets WHERE session = ? AND name = ?", session, name)

    def note_project(self, session: str, name: str, project: str) -> None:
        """Keep the project of a session's set."""
        self._put("sets", session, name, project)

    def _one(self, query: str, *values: object) -> str | None:
        row = self._db.execute(query, values).fetchone()
        return row[0] if row else None

    def _put(self, table: str, *values: object) -> None:
        places = ", ".join("?" * len(values))
        self._db.execute(f"INSERT OR REPLACE INTO {table} VALUES ({places})", values)  # noqa: S608
