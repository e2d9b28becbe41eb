"""What the records say about one picture."""

from typing import Any

import sqlalchemy as sa

from closedloop.storage.tables import (
    annotations,
    dataset_items,
    dataset_sets,
    datasets,
    feedback,
    images,
    predictions,
    releases,
    shared_datasets,
    tasks,
)


def predictions_about(tx: sa.Connection, project_id: str, image_id: str) -> list[sa.RowMapping]:
    """Every prediction about a picture, oldest first."""
    query = sa.select(predictions).where(predictions.c.project_id == project_id, predictions.c.image_id == image_id)
    return list(tx.execute(query.order_by(predictions.c.created_at, predictions.c.id)).mappings())


def feedback_about(tx: sa.Connection, project_id: str, image_id: str) -> list[sa.RowMapping]:
    """What visitors said about the predictions of a picture, oldest first."""
    query = (
        sa.select(feedback)
        .join(predictions, predictions.c.id == feedback.c.prediction_id)
        .where(predictions.c.project_id == project_id, predictions.c.image_id == image_id)
        .order_by(feedback.c.said_at)
    )
    return list(tx.execute(query).mappings())


def tasks_about(tx: sa.Connection, project_id: str, image_id: str) -> list[dict[str, Any]]:
    """The tasks that ask about a picture, oldest first, each with every version of its annotations."""
    query = sa.select(tasks).where(tasks.c.project_id == project_id, tasks.c.image_id == image_id)
    asked = [dict(row) for row in tx.execute(query.order_by(tasks.c.created_at, tasks.c.queue)).mappings()]
    for task in asked:
        given = sa.select(annotations).where(
            annotations.c.project_id == project_id, annotations.c.task_id == task["id"]
        )
        task["annotations"] = list(tx.execute(given.order_by(annotations.c.answered_at)).mappings())
    return asked


def projects_with(tx: sa.Connection, image_id: str) -> list[str]:
    """The projects that have, or had, a picture of this id."""
    query = sa.select(images.c.project_id).where(images.c.id == image_id).order_by(images.c.project_id)
    return list(tx.execute(query).scalars())


def annotation_named(tx: sa.Connection, annotation_id: str) -> list[sa.RowMapping]:
    """Every version of the annotations of this number, oldest first, each with its task's queue and picture or set.

    Of more than one task where Label Studio was set up anew and counts from 1 again.
    """
    query = (
        sa.select(annotations, tasks.c.queue, tasks.c.image_id, tasks.c.set_id)
        .join(tasks, (annotations.c.task_id == tasks.c.id) & (annotations.c.project_id == tasks.c.project_id))
        .where(annotations.c.annotation_id == annotation_id)
        .order_by(annotations.c.task_id, annotations.c.answered_at)
    )
    return list(tx.execute(query).mappings())


def answers_of_release(tx: sa.Connection, project_id: str, release_id: str) -> int:
    """How many predictions a release made."""
    query = sa.select(sa.func.count()).where(
        predictions.c.project_id == project_id, predictions.c.release == release_id
    )
    return tx.execute(query).scalar() or 0


def datasets_with(tx: sa.Connection, project_id: str, subject: str) -> list[dict[str, Any]]:
    """The frozen datasets that hold a picture or a set, oldest first, with the releases that were trained on each."""
    found = _datasets_with(tx, project_id, dataset_items, dataset_items.c.image_id == subject)
    return found or _datasets_with(tx, project_id, dataset_sets, dataset_sets.c.set_id == subject)


def _datasets_with(
    tx: sa.Connection, project_id: str, items: sa.Table, own: sa.ColumnElement[bool]
) -> list[dict[str, Any]]:
    same = (datasets.c.project_id == items.c.project_id) & (datasets.c.id == items.c.dataset_id)
    query = (
        sa.select(datasets.c.id, datasets.c.head, datasets.c.created_at, items.c.label)
        .join(items, same)
        .where(items.c.project_id == project_id, own)
        .order_by(datasets.c.created_at)
    )
    found = [dict(row) for row in tx.execute(query).mappings()]
    for dataset in found:
        dataset["releases"] = _releases_on(tx, project_id, dataset["id"])
    return found


def _releases_on(tx: sa.Connection, project_id: str, dataset_id: str) -> list[dict[str, str]]:
    """The `id` and `state` of the releases that learnt a dataset; another project's by its whole name."""
    own = sa.select(releases.c.id, releases.c.state).where(
        releases.c.project_id == project_id, releases.c.dataset_id == dataset_id
    )
    theirs = (
        sa.select(whole_name().label("id"), releases.c.state)
        .join(shared_datasets, of_release())
        .where(shared_datasets.c.of_project_id == project_id, shared_datasets.c.dataset_id == dataset_id)
    )
    queries = own.order_by(releases.c.number), theirs.order_by(releases.c.project_id, releases.c.number)
    return [dict(row) for query in queries for row in tx.execute(query).mappings()]


def whole_name() -> sa.ColumnElement[str]:
    """A release's name where its project and head do not go without saying."""
    return releases.c.project_id + "/" + releases.c.head + "/" + releases.c.id


def of_release() -> sa.ColumnElement[bool]:
    """That a row of `shared_datasets` is of a release."""
    return sa.and_(
        shared_datasets.c.project_id == releases.c.project_id,
        shared_datasets.c.head == releases.c.head,
        shared_datasets.c.release_id == releases.c.id,
    )
