"""The rows that the list of pictures is made of, and the queries of its pages."""

import datetime as dt
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from closedloop.errors import BadRequest
from closedloop.storage.database import insert_new
from closedloop.storage.expressions import Unindexed
from closedloop.storage.tables import catalogue, images, tasks

NEWEST, OLDEST, LEAST_SURE, SUREST = "newest", "oldest", "least-sure", "surest"
ORDERS = (NEWEST, OLDEST, LEAST_SURE, SUREST)
RARE = 1000  # pictures; to sort so few costs less than to look for them in the order of the list
QUEUE, RANGE = "queue", "range"  # what may be rare: to be asked about in a queue; a confidence, or a date


@dataclass(frozen=True)
class Filter:
    """Which pictures: each condition holds where it is not None; the dates are moments, `until` is not included."""

    label: str | None = None
    answer: str | None = None
    at_least: float | None = None  # confidence, 0-1
    at_most: float | None = None
    queue: str | None = None
    flagged: bool | None = None
    answered: bool | None = None
    disagrees: bool | None = None
    since: dt.datetime | None = None
    until: dt.datetime | None = None


def put(tx: sa.Connection, row: Mapping[str, Any]) -> None:
    """Write a picture's row, over the former."""
    if not insert_new(tx, catalogue, row):
        tx.execute(catalogue.update().where(_of(row["project_id"], row["image_id"])).values(**row))


def drop(tx: sa.Connection, project_id: str, image_id: str) -> None:
    """Take a picture off the list."""
    tx.execute(catalogue.delete().where(_of(project_id, image_id)))


def missing(tx: sa.Connection, limit: int) -> list[tuple[str, str]]:
    """Pictures (project, id) that are there and have no row."""
    same = (catalogue.c.project_id == images.c.project_id) & (catalogue.c.image_id == images.c.id)
    query = (
        sa.select(images.c.project_id, images.c.id)
        .outerjoin(catalogue, same)
        .where(catalogue.c.image_id.is_(None), images.c.removed_at.is_(None))
        .limit(limit)
    )
    return [(project, image) for project, image in tx.execute(query)]


def query(
    project_id: str, chosen: Filter, order: str, key: str | None, backwards: bool, limit: int, rare: str = ""
) -> sa.Select[tuple[Any, ...]]:
    """The statement of one page; `rare` (QUEUE, RANGE): what few pictures have, which are found by it and sorted.

    Raises BadRequest for an order or a key that is none.
    """
    if order not in ORDERS:
        raise BadRequest(reason=f"pictures are sorted by {', '.join(ORDERS)}")
    by_time = order in (NEWEST, OLDEST)
    value = catalogue.c.arrived_at if by_time else catalogue.c.confidence
    falling = (order in (NEWEST, SUREST)) != backwards
    statement = sa.select(catalogue).where(catalogue.c.project_id == project_id)
    for column, wanted in (
        (catalogue.c.label, chosen.label),
        (catalogue.c.answer, chosen.answer),
        (catalogue.c.flagged, chosen.flagged),
        (catalogue.c.answered, chosen.answered),
        (catalogue.c.disagrees, chosen.disagrees),
    ):
        if wanted is not None:
            statement = statement.where(column == wanted)
    if not by_time:
        statement = statement.where(catalogue.c.confidence.is_not(None))
    # The index that sorts finds the page's few rows first; one of the other column would find all and sort them.
    found_by = value if rare != RANGE else catalogue.c.confidence if by_time else catalogue.c.arrived_at
    for column, conditions in _ranges(chosen):
        statement = statement.where(*conditions(column if column is found_by else Unindexed(column)))
    if chosen.queue is not None:
        asked = (
            (tasks.c.project_id == catalogue.c.project_id)
            & (tasks.c.image_id == catalogue.c.image_id)
            & (tasks.c.queue == chosen.queue)
            & tasks.c.withdrawn_at.is_(None)
        )
        statement = statement.join(tasks, asked)
    if key is not None:
        at, image_id = _parsed(key, by_time)
        here = sa.tuple_(value, catalogue.c.image_id)
        there = sa.tuple_(sa.literal(at, value.type), sa.literal(image_id))
        statement = statement.where(here < there if falling else here > there)
    by = Unindexed(value) if rare else value
    ends = (by.desc(), catalogue.c.image_id.desc()) if falling else (by.asc(), catalogue.c.image_id.asc())
    return statement.order_by(*ends).limit(limit)


def page(
    tx: sa.Connection, project_id: str, chosen: Filter, order: str, key: str | None, backwards: bool, limit: int
) -> list[sa.RowMapping]:
    """The rows of one page, nearest to the key first."""
    rare = _rare(tx, project_id, chosen, order)
    return list(tx.execute(query(project_id, chosen, order, key, backwards, limit, rare)).mappings())


def _rare(tx: sa.Connection, project_id: str, chosen: Filter, order: str) -> str:
    """What few pictures have of what is asked for, if anything."""
    if chosen.queue is not None and _is_few(
        tx, sa.select(tasks.c.id).where(tasks.c.project_id == project_id, tasks.c.queue == chosen.queue)
    ):
        return QUEUE
    other = catalogue.c.confidence if order in (NEWEST, OLDEST) else catalogue.c.arrived_at
    for column, conditions in _ranges(chosen):
        if column is other and _is_few(
            tx, sa.select(column).where(catalogue.c.project_id == project_id, *conditions(column))
        ):
            return RANGE
    return ""


def _is_few(tx: sa.Connection, found: sa.Select[Any]) -> bool:
    return tx.execute(sa.select(sa.func.count()).select_from(found.limit(RARE).subquery())).scalar_one() < RARE


def _ranges(chosen: Filter) -> list[tuple[sa.Column[Any], Callable[[Any], list[sa.ColumnElement[bool]]]]]:
    """The columns of which a filter chooses a range, each with the conditions that this makes for a form of it."""
    bounds = (
        (catalogue.c.confidence, ((operator.ge, chosen.at_least), (operator.le, chosen.at_most))),
        (catalogue.c.arrived_at, ((operator.ge, chosen.since), (operator.lt, chosen.until))),
    )
    return [
        (column, lambda form, ends=ends: [compare(form, end) for compare, end in ends if end is not None])
        for column, ends in bounds
        if any(end is not None for _, end in ends)
    ]


def key_of(row: sa.RowMapping, order: str) -> str:
    """The key of a row in an order: the page after it begins behind."""
    value = row["arrived_at"].isoformat() if order in (NEWEST, OLDEST) else repr(row["confidence"])
    return f"{value}~{row['image_id']}"


def _parsed(key: str, by_time: bool) -> tuple[Any, str]:
    value, _, image_id = key.partition("~")
    try:
        at = dt.datetime.fromisoformat(value) if by_time else float(value)
        if isinstance(at, dt.datetime):
            if at.tzinfo is None:
                raise ValueError("a moment without a zone")
            at = at.astimezone(dt.UTC)
    except (ValueError, OverflowError):
        raise BadRequest(reason="there is no page of pictures at this key") from None
    return at, image_id[:32]


def _of(project_id: str, image_id: str) -> sa.ColumnElement[bool]:
    return (catalogue.c.project_id == project_id) & (catalogue.c.image_id == image_id)


def user_labels(tx: sa.Connection, project_id: str) -> dict[str, str]:
    """Picture -> what its visitor said last that it shows."""
    query = sa.select(catalogue.c.image_id, catalogue.c.user_label).where(
        catalogue.c.project_id == project_id, catalogue.c.user_label.is_not(None)
    )
    return {row.image_id: row.user_label for row in tx.execute(query)}
