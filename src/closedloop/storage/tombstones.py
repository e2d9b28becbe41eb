"""Records of removal: what goes with a picture, what is left of it, and which releases had learnt from it."""

import datetime as dt
from collections.abc import Sequence

import sqlalchemy as sa

from closedloop.storage import lineage
from closedloop.storage.tables import (
    annotations,
    collected_objects,
    dataset_items,
    embeddings,
    feedback,
    images,
    imported_answers,
    inclusions,
    leftovers,
    outbox,
    predictions,
    releases,
    shared_datasets,
    tasks,
)

_EMPTY = {"key": "", "sha256": "", "phash": "", "width": 0, "height": 0, "bytes": 0}


def sent_by_others(tx: sa.Connection, project_id: str, image_id: str, visitor: str) -> bool:
    """Whether somebody else sent the same picture, or it was imported."""
    other = sa.or_(predictions.c.visitor != visitor, predictions.c.visitor.is_(None))
    sent = sa.select(predictions.c.id).where(
        predictions.c.project_id == project_id, predictions.c.image_id == image_id, other
    )
    imported = sa.select(imported_answers.c.image_id).where(
        imported_answers.c.project_id == project_id, imported_answers.c.image_id == image_id
    )
    return tx.execute(sent.limit(1)).first() is not None or tx.execute(imported).first() is not None


def drop_predictions(tx: sa.Connection, project_id: str, image_id: str, visitor: str | None = None) -> list[str]:
    """Forget what was answered about a picture (to one visitor) and said to it; returns the days (UTC) of that."""
    chosen = (predictions.c.project_id == project_id) & (predictions.c.image_id == image_id)
    if visitor is not None:
        chosen &= predictions.c.visitor == visitor
    rows = tx.execute(sa.select(predictions.c.id, predictions.c.created_at).where(chosen)).all()
    ids = [row.id for row in rows]
    tx.execute(feedback.delete().where(feedback.c.prediction_id.in_(ids)))
    tx.execute(
        tasks.update()
        .where(tasks.c.project_id == project_id, tasks.c.prediction_id.in_(ids))
        .values(prediction_id=None, user_feedback=None, user_label=None)
    )
    tx.execute(outbox.delete().where(outbox.c.kind == "predict", outbox.c.ref.in_(ids)))
    tx.execute(predictions.delete().where(predictions.c.id.in_(ids)))
    return sorted({row.created_at.astimezone(dt.UTC).date().isoformat() for row in rows})


def bury(tx: sa.Connection, project_id: str, image_id: str, by: str, now: dt.datetime) -> None:
    """Turn a picture's record into a tombstone, and forget its embeddings, imported answer and draws."""
    for table in (embeddings, imported_answers, inclusions):
        tx.execute(table.delete().where(table.c.project_id == project_id, table.c.image_id == image_id))
    own = (images.c.project_id == project_id) & (images.c.id == image_id)
    tx.execute(images.update().where(own).values(**_EMPTY, removed_at=now, removed_by=by))


def drop_tasks(tx: sa.Connection, project_id: str, image_id: str | None = None, set_id: str | None = None) -> None:
    """Forget what was asked about a picture or a set and answered; what lies elsewhere is noted, to be cleared away."""
    about = tasks.c.image_id == image_id if image_id else tasks.c.set_id == set_id
    own = (tasks.c.project_id == project_id) & about
    # Locked: an answer that is being collected at this moment is kept before, or not at all.
    for row in tx.execute(sa.select(tasks.c.id, tasks.c.queue).where(own).with_for_update()).all():
        of_task = (annotations.c.project_id == project_id) & (annotations.c.task_id == row.id)
        given = tx.execute(sa.select(annotations.c.annotation_id).where(of_task).distinct()).scalars()
        left = {"task_id": row.id, "project_id": project_id, "queue": row.queue, "annotations": sorted(given)}
        tx.execute(leftovers.insert().values(**left))
        _forget(tx, project_id, row.id)


def left(tx: sa.Connection, project_id: str, queue: str) -> Sequence[sa.RowMapping]:
    """What is still to be cleared away of a queue's tasks about removed pictures: `task_id, annotations`."""
    query = sa.select(leftovers.c.task_id, leftovers.c.annotations).where(
        leftovers.c.project_id == project_id, leftovers.c.queue == queue
    )
    return tx.execute(query).mappings().all()


def cleared(tx: sa.Connection, task_id: str, objects: Sequence[str]) -> None:
    """Note that nothing is left of a task; `objects` are gone."""
    tx.execute(collected_objects.delete().where(collected_objects.c.key.in_(objects)))
    tx.execute(leftovers.delete().where(leftovers.c.task_id == task_id))


def _forget(tx: sa.Connection, project_id: str, task_id: str) -> None:
    tx.execute(annotations.delete().where(annotations.c.project_id == project_id, annotations.c.task_id == task_id))
    tx.execute(outbox.delete().where(outbox.c.kind == "deliver", outbox.c.ref == task_id))
    tx.execute(tasks.delete().where(tasks.c.project_id == project_id, tasks.c.id == task_id))


def drop_task(tx: sa.Connection, project_id: str, task_id: str, objects: Sequence[str]) -> None:
    """Forget a task that nobody needs, its answers and that their `objects` were read."""
    row = tx.execute(sa.select(tasks.c.image_id, tasks.c.queue).where(tasks.c.id == task_id)).one()
    tx.execute(collected_objects.delete().where(collected_objects.c.key.in_(objects)))
    _forget(tx, project_id, task_id)
    tx.execute(
        inclusions.delete().where(
            inclusions.c.project_id == project_id,
            inclusions.c.image_id == row.image_id,
            inclusions.c.queue == row.queue,
        )
    )


def buried(tx: sa.Connection, project_id: str, limit: int = 500) -> Sequence[sa.RowMapping]:
    """The tombstones of a project, the newest first: `id, removed_at, removed_by`."""
    query = (
        sa.select(images.c.id, images.c.removed_at, images.c.removed_by)
        .where(images.c.project_id == project_id, images.c.removed_at.is_not(None))
        .order_by(images.c.removed_at.desc(), images.c.id)
        .limit(limit)
    )
    return tx.execute(query).mappings().all()


def releases_that_learnt(tx: sa.Connection, project_id: str) -> dict[str, set[str]]:
    """Removed picture -> the releases that learnt from it; another project's by its whole name."""
    there = (dataset_items.c.project_id == images.c.project_id) & (dataset_items.c.image_id == images.c.id)
    of_dataset = (releases.c.project_id == dataset_items.c.project_id) & (
        releases.c.dataset_id == dataset_items.c.dataset_id
    )
    query = (
        sa.select(images.c.id, releases.c.id.label("release"))
        .join(dataset_items, there)
        .join(releases, of_dataset)
        .where(images.c.project_id == project_id, images.c.removed_at.is_not(None))
    )
    shared = (
        sa.select(images.c.id, lineage.whole_name().label("release"))
        .join(dataset_items, there)
        .join(
            shared_datasets,
            (shared_datasets.c.of_project_id == dataset_items.c.project_id)
            & (shared_datasets.c.dataset_id == dataset_items.c.dataset_id),
        )
        .join(releases, lineage.of_release())
        .where(images.c.project_id == project_id, images.c.removed_at.is_not(None))
    )
    found: dict[str, set[str]] = {}
    for row in [*tx.execute(query), *tx.execute(shared)]:
        found.setdefault(row.id, set()).add(row.release)
    return found
