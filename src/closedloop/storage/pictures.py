"""Records of pictures: images, what was predicted about them, and what visitors said."""

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from closedloop.storage.database import insert_new
from closedloop.storage.tables import feedback, images, outbox, predictions


def add_image(tx: sa.Connection, row: Mapping[str, Any]) -> bool:
    """Record a picture; False where the project has it already."""
    return bool(insert_new(tx, images, row))


def image(tx: sa.Connection, project_id: str, image_id: str, lock: bool = False) -> sa.RowMapping | None:
    """One picture's record; `lock`: nobody else who locks it goes on before this transaction ends."""
    query = sa.select(images).where(images.c.project_id == project_id, images.c.id == image_id)
    return tx.execute(query.with_for_update(key_share=True) if lock else query).mappings().first()


def revive(tx: sa.Connection, row: Mapping[str, Any]) -> None:
    """Record that a removed picture has come again."""
    own = (images.c.project_id == row["project_id"]) & (images.c.id == row["id"])
    tx.execute(images.update().where(own).values(**row, removed_at=None, removed_by=None))


def images_of(tx: sa.Connection, project_id: str, ids: Iterable[str]) -> dict[str, sa.RowMapping]:
    """Records of these pictures of a project, by id."""
    found: dict[str, sa.RowMapping] = {}
    ids = list(ids)
    for start in range(0, len(ids), 500):
        query = sa.select(images).where(images.c.project_id == project_id, images.c.id.in_(ids[start : start + 500]))
        found.update((row["id"], row) for row in tx.execute(query).mappings())
    return found


def some(tx: sa.Connection, project_id: str, count: int) -> list[tuple[str, str]]:
    """(id, place in the store) of some kept pictures, which are always the same: ids are digests, so as if drawn."""
    query = sa.select(images.c.id, images.c.key).where(images.c.project_id == project_id, images.c.removed_at.is_(None))
    return [(row.id, row.key) for row in tx.execute(query.order_by(images.c.id).limit(count))]


def move_image(tx: sa.Connection, project_id: str, image_id: str, key: str) -> None:
    """Record a picture's final place in S3."""
    tx.execute(images.update().where(images.c.project_id == project_id, images.c.id == image_id).values(key=key))


def add_prediction(tx: sa.Connection, row: Mapping[str, Any]) -> bool:
    """Record a prediction; False where its idempotency key was used already."""
    return bool(insert_new(tx, predictions, row))


def prediction(tx: sa.Connection, prediction_id: str) -> sa.RowMapping | None:
    """One prediction by its id."""
    return tx.execute(sa.select(predictions).where(predictions.c.id == prediction_id)).mappings().first()


def prediction_by_key(tx: sa.Connection, project_id: str, idempotency_key: str) -> sa.RowMapping | None:
    """The prediction that was made for this idempotency key."""
    query = sa.select(predictions).where(
        predictions.c.project_id == project_id, predictions.c.idempotency_key == idempotency_key
    )
    return tx.execute(query).mappings().first()


def answer_prediction(tx: sa.Connection, prediction_id: str, values: Mapping[str, Any]) -> bool:
    """Turn a pending prediction into a done one; False where it was done already."""
    pending = (predictions.c.id == prediction_id) & (predictions.c.status == "pending")
    return bool(tx.execute(predictions.update().where(pending).values(**values, status="done")).rowcount)


def newest_answer(tx: sa.Connection, project_id: str, image_id: str) -> sa.RowMapping | None:
    """The newest done prediction about a picture, None while there is none."""
    query = (
        sa.select(predictions)
        .where(
            predictions.c.project_id == project_id,
            predictions.c.image_id == image_id,
            predictions.c.status == "done",
        )
        .order_by(predictions.c.answered_at.desc(), predictions.c.id)
        .limit(1)
    )
    return tx.execute(query).mappings().first()


def predictions_of_day(tx: sa.Connection, project_id: str, day: dt.date) -> Sequence[sa.RowMapping]:
    """All predictions about pictures that came on a day (UTC), in the order in which they came."""
    start = dt.datetime.combine(day, dt.time(), dt.UTC)
    query = (
        sa.select(predictions, images.c.key)
        .join(images, (images.c.project_id == predictions.c.project_id) & (images.c.id == predictions.c.image_id))
        .where(
            predictions.c.project_id == project_id,
            predictions.c.created_at >= start,
            predictions.c.created_at < start + dt.timedelta(days=1),
        )
        .order_by(predictions.c.created_at, predictions.c.id)
    )
    return tx.execute(query).mappings().all()


def first_prediction_at(tx: sa.Connection, project_id: str) -> dt.datetime | None:
    """When the first picture of a project was predicted."""
    return tx.execute(
        sa.select(sa.func.min(predictions.c.created_at)).where(predictions.c.project_id == project_id)
    ).scalar()


def pending_before(tx: sa.Connection, project_id: str, before: dt.datetime) -> int:
    """How many predictions from before a moment still wait for their answer."""
    query = sa.select(sa.func.count()).where(
        predictions.c.project_id == project_id, predictions.c.created_at < before, predictions.c.status == "pending"
    )
    return tx.execute(query).scalar_one()


def waiting_for_an_answer(tx: sa.Connection) -> dict[str, tuple[int, dt.datetime | None]]:
    """Per project with pending predictions: (how many, since when the oldest).

    By way of the outbox, which holds a promise for each: a look must not read every prediction ever made.
    """
    query = (
        sa.select(predictions.c.project_id, sa.func.count(), sa.func.min(predictions.c.created_at))
        .join(outbox, (outbox.c.kind == "predict") & (outbox.c.ref == predictions.c.id))
        .where(outbox.c.done_at.is_(None), predictions.c.status == "pending")
        .group_by(predictions.c.project_id)
    )
    return {project: (count, oldest) for project, count, oldest in tx.execute(query)}


def add_feedback(tx: sa.Connection, row: Mapping[str, Any]) -> bool:
    """Record what a visitor said; False where the same was said before (then only its time is renewed)."""
    if insert_new(tx, feedback, row):
        return True
    same = sa.and_(*(feedback.c[name] == row[name] for name in ("prediction_id", "kind", "label")))
    tx.execute(feedback.update().where(same).values(said_at=row["said_at"]))
    return False


def feedback_on(tx: sa.Connection, prediction_id: str) -> tuple[bool, str | None]:
    """(flagged, the newest label that a visitor gave) of a prediction."""
    query = sa.select(feedback).where(feedback.c.prediction_id == prediction_id).order_by(feedback.c.said_at)
    rows = tx.execute(query).mappings().all()
    labels = [row["label"] for row in rows if row["kind"] == "label"]
    return any(row["kind"] == "flag" for row in rows), labels[-1] if labels else None


def take_back_feedback(tx: sa.Connection, prediction_id: str, kind: str) -> bool:
    """Forget that a visitor flagged ("flag") or named ("label") a picture; False where none did."""
    own = (feedback.c.prediction_id == prediction_id) & (feedback.c.kind == kind)
    return bool(tx.execute(feedback.delete().where(own)).rowcount)


def predictions_of_visitor(tx: sa.Connection, project_id: str, visitor: str, limit: int) -> Sequence[sa.RowMapping]:
    """What a visitor sent to a project, the newest first."""
    query = (
        sa.select(predictions)
        .where(predictions.c.visitor == visitor, predictions.c.project_id == project_id)
        .order_by(predictions.c.created_at.desc(), predictions.c.id)
        .limit(limit)
    )
    return tx.execute(query).mappings().all()


def sent_by(tx: sa.Connection, project_id: str, image_id: str, visitor: str) -> bool:
    """Whether a visitor sent this picture."""
    query = sa.select(predictions.c.id).where(
        predictions.c.project_id == project_id, predictions.c.image_id == image_id, predictions.c.visitor == visitor
    )
    return tx.execute(query.limit(1)).first() is not None


def feedback_on_image(tx: sa.Connection, project_id: str, image_id: str) -> tuple[bool, str | None]:
    """(flagged, the newest label that a visitor gave) over all predictions about a picture."""
    query = (
        sa.select(feedback.c.kind, feedback.c.label)
        .join(predictions, predictions.c.id == feedback.c.prediction_id)
        .where(predictions.c.project_id == project_id, predictions.c.image_id == image_id)
        .order_by(feedback.c.said_at)
    )
    rows = tx.execute(query).all()
    labels = [row.label for row in rows if row.kind == "label"]
    return any(row.kind == "flag" for row in rows), labels[-1] if labels else None


def counts(tx: sa.Connection) -> dict[str, dict[str, int]]:
    """Per project: images, predictions, pending predictions."""
    result: dict[str, dict[str, int]] = {}
    for row in tx.execute(sa.select(images.c.project_id, sa.func.count().label("n")).group_by(images.c.project_id)):
        result.setdefault(row.project_id, {})["images"] = row.n
    query = sa.select(predictions.c.project_id, predictions.c.status, sa.func.count().label("n"))
    for row in tx.execute(query.group_by(predictions.c.project_id, predictions.c.status)):
        result.setdefault(row.project_id, {})[f"predictions_{row.status}"] = row.n
    return result
