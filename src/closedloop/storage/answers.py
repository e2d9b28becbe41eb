"""Records of answers: annotations as they were collected, imported answers, and frozen datasets."""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from closedloop.storage.database import insert_new
from closedloop.storage.tables import (
    annotations,
    collected_objects,
    dataset_items,
    dataset_sets,
    datasets,
    imported_answers,
    releases,
    tasks,
)


def add_annotation(tx: sa.Connection, row: Mapping[str, Any]) -> bool:
    """Keep one version of one annotation; False where it was collected before."""
    return bool(insert_new(tx, annotations, row))


def annotations_of_task(tx: sa.Connection, project_id: str, task_id: str) -> Sequence[sa.RowMapping]:
    """The newest version of each annotation of a task."""
    of_task = (annotations.c.project_id == project_id) & (annotations.c.task_id == task_id)
    query = sa.select(annotations).where(of_task).order_by(annotations.c.answered_at)
    newest = {row["annotation_id"]: row for row in tx.execute(query).mappings()}
    return list(newest.values())


def task_annotations(tx: sa.Connection, project_id: str, image_id: str | None = None) -> Sequence[sa.RowMapping]:
    """Every version of every annotation of a project (or of one picture) that says what it shows, oldest first.

    With its task's picture, queue and probability. Those of sets and crops are in `sets.annotations_about`.
    """
    query = (
        sa.select(annotations, tasks.c.image_id, tasks.c.queue, tasks.c.probability)
        .join(tasks, (annotations.c.task_id == tasks.c.id) & (annotations.c.project_id == tasks.c.project_id))
        .where(annotations.c.project_id == project_id, tasks.c.reason.is_(None))
        .order_by(annotations.c.answered_at, annotations.c.annotation_id)
    )
    if image_id is not None:
        of_image = sa.select(tasks.c.id).where(tasks.c.project_id == project_id, tasks.c.image_id == image_id)
        query = query.where(annotations.c.task_id.in_(of_image))  # else SQLite reads every annotation of the project
    return tx.execute(query).mappings().all()


def known_versions(tx: sa.Connection, prefix: str) -> dict[str, str]:
    """The version in which each object below a prefix was collected."""
    query = sa.select(collected_objects.c.key, collected_objects.c.version).where(
        collected_objects.c.key.startswith(prefix, autoescape=True)
    )
    return {row.key: row.version for row in tx.execute(query)}


def note_collected(tx: sa.Connection, key: str, version: str, problem: str | None, now: dt.datetime) -> None:
    """Note that this version of an object was read, and what was wrong with it."""
    values = {"version": version, "problem": problem, "at": now}
    if not insert_new(tx, collected_objects, {"key": key, **values}):
        tx.execute(collected_objects.update().where(collected_objects.c.key == key).values(**values))


def problems(tx: sa.Connection) -> Sequence[sa.RowMapping]:
    """Objects that could not be used, with the reason."""
    return tx.execute(sa.select(collected_objects).where(collected_objects.c.problem.is_not(None))).mappings().all()


def add_import(tx: sa.Connection, row: Mapping[str, Any]) -> bool:
    """Keep an imported answer; False where the picture has one."""
    return bool(insert_new(tx, imported_answers, row))


def imported_label(tx: sa.Connection, project_id: str, image_id: str) -> str | None:
    """The imported answer about a picture."""
    query = sa.select(imported_answers.c.label).where(
        imported_answers.c.project_id == project_id, imported_answers.c.image_id == image_id
    )
    return tx.execute(query).scalar()


def imports(tx: sa.Connection, project_id: str, image_id: str | None = None) -> Sequence[sa.RowMapping]:
    """All imported answers of a project, or the one about a picture."""
    query = sa.select(imported_answers).where(imported_answers.c.project_id == project_id)
    if image_id is not None:
        query = query.where(imported_answers.c.image_id == image_id)
    return tx.execute(query).mappings().all()


def add_dataset(
    tx: sa.Connection,
    row: Mapping[str, Any],
    items: Sequence[Mapping[str, Any]],
    sets: Sequence[Mapping[str, Any]] = (),
) -> bool:
    """Record a frozen dataset with its pictures and, of a ranker's, its sets; False where the same one is recorded."""
    if not insert_new(tx, datasets, row):
        return False
    insert_new(tx, dataset_items, items)
    insert_new(tx, dataset_sets, sets)
    return True


def dataset(tx: sa.Connection, project_id: str, dataset_id: str) -> sa.RowMapping:
    """The record of a frozen dataset."""
    query = sa.select(datasets).where(datasets.c.project_id == project_id, datasets.c.id == dataset_id)
    return tx.execute(query).mappings().one()


def dataset_images(tx: sa.Connection, project_id: str, dataset_id: str) -> dict[str, str]:
    """Picture -> answer (its part in the answers, of a ranker's) of a frozen dataset."""
    query = sa.select(dataset_items.c.image_id, dataset_items.c.label).where(
        dataset_items.c.project_id == project_id, dataset_items.c.dataset_id == dataset_id
    )
    return {row.image_id: row.label for row in tx.execute(query)}


def dataset_answers(tx: sa.Connection, project_id: str, dataset_id: str) -> dict[str, str]:
    """What a frozen dataset's answers are about (sets or pictures) -> the answer."""
    query = sa.select(dataset_sets.c.set_id, dataset_sets.c.label).where(
        dataset_sets.c.project_id == project_id, dataset_sets.c.dataset_id == dataset_id
    )
    of_sets = {row.set_id: row.label for row in tx.execute(query)}
    return of_sets or dataset_images(tx, project_id, dataset_id)


def newest_judged_dataset(tx: sa.Connection, project_id: str, head: str) -> str | None:
    """The dataset of the newest release, whatever became of it."""
    query = (
        sa.select(releases.c.dataset_id)
        .where(releases.c.project_id == project_id, releases.c.head == head)
        .order_by(releases.c.number.desc())
        .limit(1)
    )
    return tx.execute(query).scalar()
