"""Records of sets: their pictures, what releases suggested, and what was picked and cropped in earlier work."""

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from closedloop.storage.database import insert_new
from closedloop.storage.tables import (
    annotations,
    logged_crops,
    logged_picks,
    outbox,
    proposals,
    set_pictures,
    set_senders,
    sets,
    suggestions,
    tasks,
)


def add(tx: sa.Connection, row: Mapping[str, Any], image_ids: Sequence[str]) -> bool:
    """Record a set with its pictures in order; False where it is there. One that was removed is as if new."""
    own = (sets.c.project_id == row["project_id"]) & (sets.c.id == row["id"])
    if not insert_new(tx, sets, row):
        again = sets.update().where(own, sets.c.removed_at.is_not(None))
        fresh = {"confidence": None, "release": None, "asked_at": None, "removed_at": None}
        if not tx.execute(again.values(**fresh, **row)).rowcount:
            return False
    of_set = {"project_id": row["project_id"], "set_id": row["id"]}
    insert_new(tx, set_pictures, [{**of_set, "position": at, "image_id": id_} for at, id_ in enumerate(image_ids)])
    return True


def one(tx: sa.Connection, set_id: str) -> sa.RowMapping | None:
    """A set that is there, by its id."""
    query = sa.select(sets).where(sets.c.id == set_id, sets.c.removed_at.is_(None))
    return tx.execute(query).mappings().first()


def pictures_of(tx: sa.Connection, project_id: str, set_ids: Iterable[str]) -> dict[str, list[str]]:
    """Set -> its pictures in order."""
    found: dict[str, list[str]] = {}
    ids = list(set_ids)
    for start in range(0, len(ids), 500):
        query = (
            sa.select(set_pictures.c.set_id, set_pictures.c.image_id)
            .where(set_pictures.c.project_id == project_id, set_pictures.c.set_id.in_(ids[start : start + 500]))
            .order_by(set_pictures.c.set_id, set_pictures.c.position)
        )
        for row in tx.execute(query):
            found.setdefault(row.set_id, []).append(row.image_id)
    return found


def with_picture(tx: sa.Connection, project_id: str, image_id: str) -> list[str]:
    """The sets that a picture is in."""
    query = sa.select(set_pictures.c.set_id).where(
        set_pictures.c.project_id == project_id, set_pictures.c.image_id == image_id
    )
    return sorted(tx.execute(query).scalars())


def add_suggestion(tx: sa.Connection, row: Mapping[str, Any]) -> None:
    """Keep what a release said about a set, as the newest that was said."""
    tx.execute(suggestions.insert().values(**row))
    own = (sets.c.project_id == row["project_id"]) & (sets.c.id == row["set_id"])
    newest = {"status": "done", "confidence": row["confidence"], "release": row["release"]}
    tx.execute(sets.update().where(own).values(**newest))


def newest_suggestion(tx: sa.Connection, project_id: str, set_id: str) -> sa.RowMapping | None:
    """What was said last about a set."""
    query = sa.select(suggestions).where(suggestions.c.project_id == project_id, suggestions.c.set_id == set_id)
    return tx.execute(query.order_by(suggestions.c.created_at.desc(), suggestions.c.id).limit(1)).mappings().first()


def add_proposal(tx: sa.Connection, row: Mapping[str, Any]) -> None:
    """Keep which part of a picture a release would keep."""
    tx.execute(proposals.insert().values(**row))


def newest_proposal(tx: sa.Connection, project_id: str, image_id: str) -> sa.RowMapping | None:
    """Which part of a picture was proposed last."""
    query = sa.select(proposals).where(proposals.c.project_id == project_id, proposals.c.image_id == image_id)
    return tx.execute(query.order_by(proposals.c.created_at.desc(), proposals.c.id).limit(1)).mappings().first()


def add_pick(tx: sa.Connection, row: Mapping[str, Any]) -> bool:
    """Keep which picture of a set was chosen in earlier work; False where one is known."""
    return bool(insert_new(tx, logged_picks, row))


def add_crop(tx: sa.Connection, row: Mapping[str, Any]) -> bool:
    """Keep which part of a picture was kept in earlier work; False where one is known."""
    return bool(insert_new(tx, logged_crops, row))


def picks(tx: sa.Connection, project_id: str, set_ids: Iterable[str] | None = None) -> Sequence[sa.RowMapping]:
    """The imported picks of a project, or of these sets."""
    return _of(
        tx, sa.select(logged_picks).where(logged_picks.c.project_id == project_id), logged_picks.c.set_id, set_ids
    )


def crops(tx: sa.Connection, project_id: str, image_ids: Iterable[str] | None = None) -> Sequence[sa.RowMapping]:
    """The imported crops of a project, or of these pictures."""
    query = sa.select(logged_crops).where(logged_crops.c.project_id == project_id)
    return _of(tx, query, logged_crops.c.image_id, image_ids)


def _of(
    tx: sa.Connection, query: sa.Select[Any], column: sa.Column[Any], ids: Iterable[str] | None
) -> Sequence[sa.RowMapping]:
    """The rows of a query; of these alone where there are `ids`."""
    if ids is None:
        return tx.execute(query).mappings().all()
    wanted = list(ids)
    parts = (wanted[start : start + 500] for start in range(0, len(wanted), 500))
    return [row for part in parts for row in tx.execute(query.where(column.in_(part))).mappings()]


def count_logged(tx: sa.Connection, project_id: str) -> tuple[int, int]:
    """How many picks and how many crops were imported into a project."""
    picked, cropped = (
        tx.execute(sa.select(sa.func.count()).where(table.c.project_id == project_id)).scalar_one()
        for table in (logged_picks, logged_crops)
    )
    return picked, cropped


def annotations_about(
    tx: sa.Connection, project_id: str, queue: str, subject: str | None = None
) -> Sequence[sa.RowMapping]:
    """Every version of every annotation in a queue of sets or crops, or about one (set or picture), oldest first.

    With its task's `image_id`, `set_id`, `queue`, `probability` and why it was `asked_for`.
    """
    about = (tasks.c.image_id, tasks.c.set_id, tasks.c.queue, tasks.c.probability, tasks.c.reason.label("asked_for"))
    query = (
        sa.select(annotations, *about)
        .join(tasks, (annotations.c.task_id == tasks.c.id) & (annotations.c.project_id == tasks.c.project_id))
        .where(annotations.c.project_id == project_id, tasks.c.queue == queue)
        .order_by(annotations.c.answered_at, annotations.c.annotation_id)
    )
    if subject is not None:
        column = tasks.c.set_id if queue == "selection" else tasks.c.image_id
        of_one = sa.select(tasks.c.id).where(tasks.c.project_id == project_id, column == subject)
        query = query.where(annotations.c.task_id.in_(of_one))
    return tx.execute(query).mappings().all()


def note_asked(tx: sa.Connection, project_id: str, set_id: str, now: dt.datetime) -> None:
    """Note that annotators are asked about a set."""
    tx.execute(sets.update().where(sets.c.project_id == project_id, sets.c.id == set_id).values(asked_at=now))


def least_sure(tx: sa.Connection, project_id: str, limit: int) -> list[str]:
    """The sets that nobody was asked about and whose suggestion is the least sure, the least sure first."""
    picked = sa.select(logged_picks.c.set_id).where(logged_picks.c.project_id == project_id)
    query = (
        sa.select(sets.c.id)
        .where(
            sets.c.project_id == project_id,
            sets.c.asked_at.is_(None),
            sets.c.status == "done",
            sets.c.removed_at.is_(None),
            sets.c.id.not_in(picked),
        )
        .order_by(sets.c.confidence, sets.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)  # none of them is removed before it is asked about
    )
    return list(tx.execute(query).scalars())


def lock(tx: sa.Connection, project_id: str, set_id: str) -> None:
    """Wait until nobody else is at a set, and keep others away until the transaction ends."""
    own = (sets.c.project_id == project_id) & (sets.c.id == set_id)
    tx.execute(sa.select(sets.c.id).where(own).with_for_update()).all()


def outdated(tx: sa.Connection, project_id: str, release: str, limit: int) -> list[str]:
    """Sets without a suggestion, and those nobody was asked about whose suggestion is of another release.

    Those nobody was asked about come first, then the oldest; not those whose best picture was imported, nor those whose
    suggestion is promised.
    """
    picked = sa.select(logged_picks.c.set_id).where(logged_picks.c.project_id == project_id)
    promised = sa.select(outbox.c.ref).where(outbox.c.kind == "suggest", outbox.c.done_at.is_(None))
    was_asked = sets.c.asked_at.is_not(None)
    query = (
        sa.select(sets.c.id)
        .where(
            sets.c.project_id == project_id,
            sets.c.status == "done",
            sets.c.removed_at.is_(None),
            sets.c.id.not_in(picked),
            sets.c.id.not_in(promised),
            sets.c.release.is_(None) | (~was_asked & (sets.c.release != release)),
        )
        .order_by(was_asked, sets.c.created_at, sets.c.id)
        .limit(limit)
    )
    return list(tx.execute(query).scalars())


def uncropped(tx: sa.Connection, project_id: str, release: str, limit: int) -> list[str]:
    """Pictures that are the best of a set and have no proposed crop, or, if nobody is asked, that of another release.

    Not those whose proposal is promised.
    """
    promised = sa.select(outbox.c.ref).where(outbox.c.kind == "propose", outbox.c.done_at.is_(None))
    proposed = sa.exists().where(
        proposals.c.project_id == suggestions.c.project_id,
        proposals.c.image_id == suggestions.c.best,
        sets.c.asked_at.is_not(None) | (proposals.c.release == release),
    )
    query = (
        sa.select(suggestions.c.best)
        .join(sets, (sets.c.project_id == suggestions.c.project_id) & (sets.c.id == suggestions.c.set_id))
        .where(
            suggestions.c.project_id == project_id,
            suggestions.c.best.is_not(None),
            suggestions.c.release == sets.c.release,  # the newest
            sa.literal(f"{project_id}/").concat(suggestions.c.best).not_in(promised),
            ~proposed,
        )
        .distinct()
        .limit(limit)
    )
    return list(tx.execute(query).scalars())


def count_waiting(tx: sa.Connection, project_id: str, queue: str, reason: str) -> int:
    """How many tasks that were asked for a reason nobody has answered or skipped."""
    given = sa.select(annotations.c.task_id).where(
        annotations.c.project_id == project_id, annotations.c.state != "withdrawn"
    )
    query = sa.select(sa.func.count()).where(
        tasks.c.project_id == project_id,
        tasks.c.queue == queue,
        tasks.c.reason == reason,
        tasks.c.withdrawn_at.is_(None),
        tasks.c.id.not_in(given),
    )
    return tx.execute(query).scalar_one()


def of_visitor(tx: sa.Connection, project_id: str, visitor: str, limit: int) -> list[str]:
    """The sets that a visitor sent to a project, the newest first."""
    query = sa.select(set_senders.c.set_id).where(
        set_senders.c.visitor == visitor, set_senders.c.project_id == project_id
    )
    in_order = query.order_by(set_senders.c.sent_at.desc(), set_senders.c.set_id)
    return list(tx.execute(in_order.limit(limit)).scalars())


def add_sender(tx: sa.Connection, row: Mapping[str, Any]) -> None:
    """Note that a visitor sent a set, unless he did before."""
    insert_new(tx, set_senders, row)


def senders(tx: sa.Connection, project_id: str, set_ids: Iterable[str]) -> set[str]:
    """The visitors who sent one of these sets."""
    query = sa.select(set_senders.c.visitor).where(set_senders.c.project_id == project_id)
    return set(tx.execute(query.where(set_senders.c.set_id.in_(list(set_ids)))).scalars())


def forget_sender(tx: sa.Connection, project_id: str, set_id: str, visitor: str) -> None:
    """Forget that a visitor sent a set."""
    own = (set_senders.c.project_id == project_id) & (set_senders.c.set_id == set_id)
    tx.execute(set_senders.delete().where(own, set_senders.c.visitor == visitor))


def bury(tx: sa.Connection, project_id: str, set_id: str, now: dt.datetime) -> None:
    """Turn a set into a tombstone, and forget what was suggested and picked. Its tasks must be gone before."""
    for table in (suggestions, logged_picks, set_senders, set_pictures):
        tx.execute(table.delete().where(table.c.project_id == project_id, table.c.set_id == set_id))
    own = (sets.c.project_id == project_id) & (sets.c.id == set_id)
    tx.execute(sets.update().where(own).values(removed_at=now, confidence=None, release=None))


def forget_crops(tx: sa.Connection, project_id: str, image_id: str) -> None:
    """Forget what was proposed and kept of a picture."""
    for table in (proposals, logged_crops):
        tx.execute(table.delete().where(table.c.project_id == project_id, table.c.image_id == image_id))
