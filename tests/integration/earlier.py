"""Earlier work, as the tests of imports make it: pictures in folders, tables, manifests."""

import csv
import datetime as dt
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from closedloop.importing import crops, selections
from closedloop.project import Project
from closedloop.storage import Stores, tables
from closedloop.storage.database import Database

Make = Callable[..., bytes]
NOON = "2025-06-01T12:00:00Z"


def day(number: int) -> dt.datetime:
    return dt.datetime(2025, 1, 1, tzinfo=dt.UTC) + dt.timedelta(days=number)


def selection(id_: str, title: str = "Which is best?") -> Project:
    return Project(id=id_, title=title, kind="selection")


def lay(root: Path, picture: Make, names: Iterable[str]) -> Path:
    """Pictures of these names, each of its own look: the n-th is `picture(n)`."""
    for seed, name in enumerate(names):
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture(seed))
    return root


def write(file: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
    with file.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(columns)
        writer.writerows(rows)
    return file


def picks(file: Path, rows: Iterable[Sequence[Any]]) -> Path:
    return write(file, selections.COLUMNS, rows)


def boxes(file: Path, rows: Iterable[Sequence[Any]]) -> Path:
    return write(file, crops.COLUMNS, rows)


def manifest(folder: Path, id_: str, title: str, began: Any, ended: Any, **more: Any) -> None:
    folder.mkdir(exist_ok=True)
    body = {"projectId": id_, "title": title, "startedAt": began, "finishedAt": ended, "counts": {"sets": 3}, **more}
    (folder / f"{id_}.json").write_text(json.dumps(body), encoding="utf-8")


def everything(stores: Stores, *but: str) -> dict[str, list[Any]]:
    """Every row of every table that an import could touch."""
    with stores.db.read() as tx:
        return {
            table.name: sorted(map(repr, tx.execute(sa.select(table)).all()))
            for table in tables.metadata.sorted_tables
            if table.name not in but
        }


def rows(stores: Stores, table: sa.Table) -> list[Any]:
    with stores.db.read() as tx:
        return list(tx.execute(sa.select(table)).all())


def empty(database: Database) -> None:
    """Forget every row."""
    with database.write() as tx:
        for table in reversed(tables.metadata.sorted_tables):
            tx.execute(table.delete())


class Shelf:
    """In the place of the store, where a real one adds nothing but time."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def put(self, key: str, data: bytes) -> None:
        self.kept[key] = data
