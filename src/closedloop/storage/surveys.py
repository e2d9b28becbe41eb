"""Surveys as they are kept, and the counts that they are made of."""

import datetime as dt
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from closedloop.storage.database import insert_new
from closedloop.storage.expressions import UTCDay
from closedloop.storage.tables import annotations, catalogue, feedback, images, predictions, surveys, tasks
from closedloop.storage.tables import sets as sets_table

OF_DAY = ("pictures", "answers", "flagged", "flags", "relabels")


def keep(tx: sa.Connection, project_id: str, at: dt.datetime, seconds: float, body: dict[str, Any]) -> None:
    """Keep a survey in place of the former."""
    values = {"at": at, "seconds": seconds, "body": body}
    if not insert_new(tx, surveys, {"project_id": project_id, **values}):
        tx.execute(surveys.update().where(surveys.c.project_id == project_id).values(**values))


def latest(tx: sa.Connection, project_id: str) -> sa.RowMapping | None:
    """The survey that is kept: `at, seconds, body`."""
    return tx.execute(sa.select(surveys).where(surveys.c.project_id == project_id)).mappings().first()


def totals(tx: sa.Connection, project_id: str) -> dict[str, int]:
    """How many `pictures` a project has, and of how many the answer is `settled`."""
    settled = sa.func.sum(sa.case((catalogue.c.answered, 1), else_=0))
    query = sa.select(sa.func.count(), settled).where(catalogue.c.project_id == project_id)
    pictures, known = tx.execute(query).one()
    return {"pictures": pictures, "settled": int(known or 0)}


def sets(tx: sa.Connection, project_id: str) -> dict[str, int]:
    """How many `sets` a project has, and how many wait for their first suggestion (`waiting_sets`)."""
    waiting = sa.func.sum(sa.case((sets_table.c.status == "pending", 1), else_=0))
    own = (sets_table.c.project_id == project_id) & sets_table.c.removed_at.is_(None)
    there, pending = tx.execute(sa.select(sa.func.count(), waiting).where(own)).one()
    return {"sets": there, "waiting_sets": int(pending or 0)}


def days(tx: sa.Connection, project_id: str, since: dt.datetime) -> dict[str, dict[str, int]]:
    """Day (UTC) -> how many new `pictures` came from visitors, `answers` were given (and of these `flagged` since),
    `flags` and `relabels` were said."""
    found: dict[str, dict[str, int]] = {}
    day = UTCDay(images.c.arrived_at)
    query = (
        sa.select(day, sa.func.count())
        .where(
            images.c.project_id == project_id,
            images.c.source == "upload",
            images.c.arrived_at >= since,
            images.c.removed_at.is_(None),
        )
        .group_by(day)
    )
    for when, count in tx.execute(query):
        found.setdefault(str(when), {})["pictures"] = count
    day = UTCDay(predictions.c.created_at)
    flagged = (feedback.c.prediction_id == predictions.c.id) & (feedback.c.kind == "flag")
    given = (
        sa.select(day, sa.func.count(), sa.func.count(feedback.c.prediction_id))
        .outerjoin(feedback, flagged)
        .where(predictions.c.project_id == project_id, predictions.c.created_at >= since)
        .group_by(day)
    )
    for when, count, of_these in tx.execute(given):
        found.setdefault(str(when), {}).update(answers=count, flagged=of_these)
    day = UTCDay(feedback.c.said_at)
    said = (
        sa.select(day, feedback.c.kind, sa.func.count())
        .where(feedback.c.project_id == project_id, feedback.c.said_at >= since)
        .group_by(day, feedback.c.kind)
    )
    for when, kind, count in tx.execute(said):
        found.setdefault(str(when), {})["flags" if kind == "flag" else "relabels"] = count
    return found


def waiting_since(tx: sa.Connection, project_id: str, usable: Sequence[str]) -> dict[str, list[dt.datetime]]:
    """Queue -> when each of its tasks that wait for a usable answer was first asked."""
    query = sa.select(tasks.c.queue, tasks.c.created_at).where(
        tasks.c.project_id == project_id,
        tasks.c.withdrawn_at.is_(None),
        tasks.c.id.not_in(_answered_tasks(project_id, usable)),
    )
    found: dict[str, list[dt.datetime]] = {}
    for queue, created_at in tx.execute(query):
        found.setdefault(queue, []).append(created_at)
    return found


def answered(tx: sa.Connection, project_id: str, usable: Sequence[str]) -> dict[str, int]:
    """Queue -> how many of its tasks have a usable answer."""
    query = (
        sa.select(tasks.c.queue, sa.func.count())
        .where(
            tasks.c.project_id == project_id,
            tasks.c.withdrawn_at.is_(None),
            tasks.c.id.in_(_answered_tasks(project_id, usable)),
        )
        .group_by(tasks.c.queue)
    )
    return {row.queue: row[1] for row in tx.execute(query)}


def _answered_tasks(project_id: str, usable: Sequence[str]) -> sa.Select[tuple[str]]:
    """The tasks with an answer whose newest version is in one of these states."""
    later = annotations.alias()
    newer = sa.exists().where(
        later.c.annotation_id == annotations.c.annotation_id, later.c.answered_at > annotations.c.answered_at
    )
    return sa.select(annotations.c.task_id).where(
        annotations.c.project_id == project_id, annotations.c.state.in_(usable), ~newer
    )
