"""What visitors were answered, counted by why the picture was asked about."""

import datetime as dt
from collections.abc import Collection, Sequence

import sqlalchemy as sa

from closedloop.storage.expressions import UTCDay
from closedloop.storage.tables import annotations, predictions, tasks


def answered_counts(
    tx: sa.Connection, project_id: str, since: dt.datetime, strata: Sequence[tuple[str, Collection[str]]]
) -> Sequence[sa.RowMapping]:
    """How many pictures each release answered: `release, label, day, stratum, pictures`.

    `strata` is a list of (name, queues), the weightiest first; `stratum` is None for a picture that entered none.
    """
    stratum = _stratum(project_id, strata)
    day = UTCDay(predictions.c.created_at)
    columns = (predictions.c.release, predictions.c.label, day.label("day"), stratum.c.stratum)
    query = (
        sa.select(*columns, sa.func.count().label("pictures"))
        .select_from(predictions.outerjoin(stratum, stratum.c.image_id == predictions.c.image_id))
        .where(*_answered_by_a_release(project_id, since))
        .group_by(*columns)
    )
    return tx.execute(query).mappings().all()


def answered_and_annotated(
    tx: sa.Connection, project_id: str, since: dt.datetime, strata: Sequence[tuple[str, Collection[str]]]
) -> Sequence[sa.RowMapping]:
    """The answers about pictures that an annotator has looked at: `image_id, release, label, day, stratum`."""
    stratum = _stratum(project_id, strata)
    looked_at = (
        sa.select(tasks.c.image_id)
        .join(annotations, (annotations.c.project_id == tasks.c.project_id) & (annotations.c.task_id == tasks.c.id))
        .where(tasks.c.project_id == project_id)
    )
    query = (
        sa.select(
            predictions.c.image_id,
            predictions.c.release,
            predictions.c.label,
            UTCDay(predictions.c.created_at).label("day"),
            stratum.c.stratum,
        )
        .select_from(predictions.outerjoin(stratum, stratum.c.image_id == predictions.c.image_id))
        .where(*_answered_by_a_release(project_id, since), predictions.c.image_id.in_(looked_at))
    )
    return tx.execute(query).mappings().all()


def _answered_by_a_release(project_id: str, since: dt.datetime) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        predictions.c.project_id == project_id,
        predictions.c.created_at >= since,
        predictions.c.release.is_not(None),
        predictions.c.label.is_not(None),
    )


def _stratum(project_id: str, strata: Sequence[tuple[str, Collection[str]]]) -> sa.Subquery:
    """The weightiest stratum of each picture that entered one."""
    rank = sa.func.min(
        sa.case(*((tasks.c.queue.in_(queues), place) for place, (_, queues) in enumerate(strata)), else_=len(strata))
    )
    name = sa.case(*((rank == place, name) for place, (name, _) in enumerate(strata)), else_=None)
    return (
        sa.select(tasks.c.image_id, name.label("stratum"))
        .where(tasks.c.project_id == project_id)
        .group_by(tasks.c.image_id)
        .subquery()
    )
