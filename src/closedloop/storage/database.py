"""The connection to SQL: SQLite (WAL) under `make run`, Postgres on a server, the same code on both.

A write is one transaction that holds the write lock from its first statement (`BEGIN IMMEDIATE` on SQLite), so it never
fails half-way because somebody else wrote in between.
"""

import contextlib
import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import event, exc
from sqlalchemy.dialects import postgresql, sqlite

from closedloop.errors import DatabaseAway, DatabaseOutdated

BUSY_SECONDS = 30
FROZEN_SECONDS = 30  # that a process which was paused in the midst of a write may keep its locks (Postgres)


class Database:
    """The records. `with db.write() as connection:` for a transaction, `with db.read() as connection:` for a look."""

    def __init__(self, url: str) -> None:
        self.url = sa.make_url(url)
        if self.url.drivername == "postgresql":
            self.url = self.url.set(drivername="postgresql+psycopg")
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        arguments = {"timeout": BUSY_SECONDS} if self.is_sqlite else {"connect_timeout": 5}
        self.engine = sa.create_engine(self.url, connect_args=arguments, pool_pre_ping=not self.is_sqlite)
        if self.is_sqlite:
            event.listen(self.engine, "connect", _prepare_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)

    @contextlib.contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """One transaction: everything in it happens, or nothing. Raises DatabaseAway."""
        writing = self.engine.execution_options(closedloop_write=True)
        with _away_said_plainly(), writing.begin() as connection:
            if not self.is_sqlite:
                connection.exec_driver_sql(f"SET LOCAL idle_in_transaction_session_timeout = {FROZEN_SECONDS * 1000}")
            yield connection

    @contextlib.contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A consistent look at the records that waits for nobody. Raises DatabaseAway."""
        looking = self.engine if self.is_sqlite else self.engine.execution_options(isolation_level="REPEATABLE READ")
        with _away_said_plainly(), looking.begin() as connection:
            yield connection

    def migrate(self, revision: str = "head") -> None:
        """Bring the tables to a revision, the newest by default. Safe to repeat; makes a SQLite file where none is.

        SQLite remakes a table that is altered, and would take rows that refer to the former one for orphans: there,
        foreign keys are not watched while it goes on, and all are looked at before anything is committed.
        """
        if self.is_sqlite and self.url.database:
            Path(self.url.database).parent.mkdir(parents=True, exist_ok=True)
        config = _alembic_config()
        with self.engine.connect().execution_options(closedloop_write=True) as connection:
            if self.is_sqlite:
                _watch_foreign_keys(connection, False)
            try:
                config.attributes["connection"] = connection
                command.upgrade(config, revision)
                if self.is_sqlite and (orphans := connection.exec_driver_sql("PRAGMA foreign_key_check").all()):
                    raise RuntimeError(f"the migration would leave rows without what they refer to: {orphans[:5]}")
                connection.commit()
            finally:
                connection.rollback()
                if self.is_sqlite:
                    _watch_foreign_keys(connection, True)

    def revision(self) -> tuple[str | None, str | None]:
        """(revision of the tables, revision that this program needs)."""
        with self.read() as connection:
            found = MigrationContext.configure(connection).get_current_revision()
        return found, ScriptDirectory.from_config(_alembic_config()).get_current_head()

    def check(self) -> None:
        """Raise DatabaseAway or DatabaseOutdated where the records cannot be used."""
        found, needed = self.revision()
        if found != needed:
            raise DatabaseOutdated(found=found, needed=needed)

    def server(self) -> tuple[str, dt.datetime | None]:
        """(name and version of the database, its clock if it runs on one of its own). Raises DatabaseAway."""
        with self.read() as connection:
            version = ".".join(map(str, connection.dialect.server_version_info or ()))
            clock = None if self.is_sqlite else connection.scalar(sa.select(sa.func.clock_timestamp()))
        return f"{self.url.get_backend_name()} {version}", clock

    def close(self) -> None:
        """Give back every connection."""
        self.engine.dispose()


def insert_new(
    connection: sa.Connection, table: sa.Table, rows: Mapping[str, Any] | Sequence[Mapping[str, Any]]
) -> int:
    """Insert the rows whose key is not there yet; returns how many were new. The others stay as they are."""
    rows = [rows] if isinstance(rows, Mapping) else list(rows)
    if not rows:
        return 0
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    new = dialect.insert(table).on_conflict_do_nothing()
    # SQLAlchemy keeps an INSERT's row count on Postgres only if it is told to.
    counted = {"preserve_rowcount": True}
    if len(rows) == 1:  # as values of its own, so that the statement is made once and not for each row
        return connection.execute(new, dict(rows[0]), execution_options=counted).rowcount
    added = 0
    for start in range(0, len(rows), 500):  # well under SQLite's limit of variables
        added += connection.execute(new.values(rows[start : start + 500]), execution_options=counted).rowcount
    return added


def _alembic_config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # transactions are begun by `_begin_sqlite`, not by the driver
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _watch_foreign_keys(connection: sa.Connection, watch: bool) -> None:
    """Outside of a transaction, where alone the pragma has an effect."""
    cursor = connection.connection.cursor()
    cursor.execute(f"PRAGMA foreign_keys={'ON' if watch else 'OFF'}")
    cursor.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get("closedloop_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextlib.contextmanager
def _away_said_plainly() -> Iterator[None]:
    try:
        yield
    except (exc.OperationalError, exc.InterfaceError, exc.TimeoutError) as error:
        raise DatabaseAway from error
    except exc.DBAPIError as error:
        if error.connection_invalidated:  # Postgres gave up on a process that was frozen
            raise DatabaseAway from error
        raise
