"""Records of asking: which picture entered which queue with what probability, its task, and the outbox."""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from closedloop.storage.database import insert_new
from closedloop.storage.tables import annotations, images, inclusions, outbox, sampling_windows, set_pictures, tasks


def add_task(tx: sa.Connection, row: Mapping[str, Any]) -> bool:
    """Record that a picture is asked about in a queue; False where it is already."""
    return bool(insert_new(tx, tasks, row))


def task(tx: sa.Connection, task_id: str) -> sa.RowMapping | None:
    """One task by its id."""
    return tx.execute(sa.select(tasks).where(tasks.c.id == task_id)).mappings().first()


def lock_pictures(tx: sa.Connection, task_id: Any) -> None:
    """Lock what a task asks about, its picture or those of its set; nothing where there is no such task."""
    known = task(tx, task_id) if isinstance(task_id, str) else None
    if known is None:
        return
    ids = sa.select(set_pictures.c.image_id).where(
        set_pictures.c.project_id == known["project_id"], set_pictures.c.set_id == known["set_id"]
    )
    chosen = images.c.id.in_(ids) if known["set_id"] else images.c.id == known["image_id"]
    query = sa.select(images.c.id).where(images.c.project_id == known["project_id"], chosen)
    tx.execute(query.order_by(images.c.id).with_for_update(key_share=True)).all()


def withdraw(tx: sa.Connection, project_id: str, image_id: str, queue: str, now: dt.datetime) -> None:
    """Ask no more about a picture in a queue; the task goes at the next sync, unless it was answered."""
    own = (tasks.c.project_id == project_id) & (tasks.c.image_id == image_id) & (tasks.c.queue == queue)
    tx.execute(tasks.update().where(own, tasks.c.withdrawn_at.is_(None)).values(withdrawn_at=now))


def ask_again(
    tx: sa.Connection, project_id: str, image_id: str, queue: str, values: Mapping[str, Any] | None = None
) -> str | None:
    """A task that was withdrawn is wanted after all; returns its id, or None where it was not withdrawn."""
    withdrawn_one = (tasks.c.project_id == project_id) & (tasks.c.image_id == image_id) & (tasks.c.queue == queue)
    again = tasks.update().where(withdrawn_one, tasks.c.withdrawn_at.is_not(None))
    return tx.execute(again.values(**(values or {}), withdrawn_at=None).returning(tasks.c.id)).scalar()


def is_withdrawn(tx: sa.Connection, task_id: str) -> bool:
    """Whether a task is withdrawn; nobody changes it before this transaction ends."""
    query = sa.select(tasks.c.withdrawn_at).where(tasks.c.id == task_id)
    return tx.execute(query.with_for_update(key_share=True)).scalar() is not None


def withdrawn(tx: sa.Connection, project_id: str, queue: str) -> Sequence[sa.RowMapping]:
    """The withdrawn tasks of a queue: `id, image_id`."""
    query = sa.select(tasks.c.id, tasks.c.image_id).where(
        tasks.c.project_id == project_id, tasks.c.queue == queue, tasks.c.withdrawn_at.is_not(None)
    )
    return tx.execute(query).mappings().all()


def task_ids(tx: sa.Connection, project_id: str, queue: str) -> set[str]:
    """The ids of all tasks of a queue."""
    query = sa.select(tasks.c.id).where(tasks.c.project_id == project_id, tasks.c.queue == queue)
    return set(tx.execute(query).scalars())


def delivered(tx: sa.Connection, task_id: str, now: dt.datetime) -> bool:
    """Note that a task's file lies in S3; False where there is no such task any more."""
    return bool(tx.execute(tasks.update().where(tasks.c.id == task_id).values(delivered_at=now)).rowcount)


def undeliver(tx: sa.Connection, task_id: str) -> bool:
    """Note that a task's file is gone: it must be delivered again, and read again. False where the task is gone too."""
    again = tasks.update().where(tasks.c.id == task_id).values(delivered_at=None, synced_at=None)
    return bool(tx.execute(again).rowcount)


def unsynced(tx: sa.Connection, project_id: str, queue: str) -> list[str]:
    """Tasks of a queue whose file was delivered and not yet read by Label Studio."""
    query = sa.select(tasks.c.id).where(
        tasks.c.project_id == project_id,
        tasks.c.queue == queue,
        tasks.c.delivered_at.is_not(None),
        tasks.c.synced_at.is_(None),
        tasks.c.withdrawn_at.is_(None),
    )
    return list(tx.execute(query).scalars())


def count_delivered(tx: sa.Connection, project_id: str, queue: str) -> int:
    """How many tasks of a queue have their file in S3."""
    query = sa.select(sa.func.count()).where(
        tasks.c.project_id == project_id, tasks.c.queue == queue, tasks.c.delivered_at.is_not(None)
    )
    return tx.execute(query).scalar_one()


def synced(tx: sa.Connection, ids: Sequence[str], now: dt.datetime) -> None:
    """Note that Label Studio has read these tasks."""
    for start in range(0, len(ids), 500):
        tx.execute(tasks.update().where(tasks.c.id.in_(ids[start : start + 500])).values(synced_at=now))


def unsync(tx: sa.Connection, project_id: str, queue: str) -> None:
    """Note that Label Studio must read a queue's tasks again, since its project is a new one."""
    tx.execute(tasks.update().where(tasks.c.project_id == project_id, tasks.c.queue == queue).values(synced_at=None))


def add_inclusions(tx: sa.Connection, rows: Sequence[Mapping[str, Any]]) -> int:
    """Keep with which probability pictures entered a queue."""
    return insert_new(tx, inclusions, rows)


def sampling_frame(tx: sa.Connection, project_id: str, queue: str, before: dt.datetime) -> list[str]:
    """Pictures that visitors sent before a moment and that were in no earlier frame of the queue."""
    seen = sa.select(inclusions.c.image_id).where(inclusions.c.project_id == project_id, inclusions.c.queue == queue)
    query = sa.select(images.c.id).where(
        images.c.project_id == project_id,
        images.c.source == "upload",
        images.c.arrived_at < before,
        images.c.removed_at.is_(None),
        images.c.id.not_in(seen),
    )
    query = query.with_for_update(key_share=True)  # none of them is removed before it is drawn
    return sorted(tx.execute(query).scalars())


def add_window(tx: sa.Connection, row: Mapping[str, Any]) -> int:
    """Record a drawn sample; returns its id."""
    return tx.execute(sampling_windows.insert().values(**row).returning(sampling_windows.c.id)).scalar_one()


def last_window_end(tx: sa.Connection, project_id: str) -> dt.datetime | None:
    """When the newest random sample of a project was drawn."""
    query = sa.select(sa.func.max(sampling_windows.c.ends_at)).where(sampling_windows.c.project_id == project_id)
    return tx.execute(query).scalar()


def promise(tx: sa.Connection, kind: str, ref: str, now: dt.datetime) -> None:
    """Put something into the outbox, to be done after this transaction; what was done before is done once more.

    `now` may be a later moment: until then it neither happens nor counts as waiting.
    """
    if not insert_new(tx, outbox, {"kind": kind, "ref": ref, "created_at": now, "not_before": now, "attempts": 0}):
        again = (outbox.c.kind == kind) & (outbox.c.ref == ref) & outbox.c.done_at.is_not(None)
        tx.execute(outbox.update().where(again).values(done_at=None, created_at=now, not_before=now, attempts=0))


def take_back_promise(tx: sa.Connection, kind: str, ref: str) -> None:
    """What was promised need not be done any more."""
    tx.execute(outbox.delete().where(outbox.c.kind == kind, outbox.c.ref == ref))


def due(
    tx: sa.Connection, now: dt.datetime, limit: int, slow: Sequence[str] = (), few: int = 0
) -> Sequence[sa.RowMapping]:
    """What is to be done now, oldest first: at most `limit` of each kind, and a `few` of each `slow` one."""
    number = sa.func.row_number().over(partition_by=outbox.c.kind, order_by=outbox.c.id)
    waits = sa.select(outbox, number.label("number")).where(outbox.c.done_at.is_(None), outbox.c.not_before <= now)
    each = waits.subquery()
    query = sa.select(each).where(each.c.number <= sa.case((each.c.kind.in_(slow), few), else_=limit))
    return tx.execute(query.order_by(each.c.id)).mappings().all()


def done(tx: sa.Connection, outbox_id: int, now: dt.datetime) -> None:
    """Note that an outbox entry was done."""
    tx.execute(outbox.update().where(outbox.c.id == outbox_id).values(done_at=now, error=None))


def put_off(tx: sa.Connection, outbox_id: int, until: dt.datetime, error: str) -> None:
    """Try an outbox entry again later, and keep why."""
    tx.execute(
        outbox.update()
        .where(outbox.c.id == outbox_id)
        .values(not_before=until, error=error, attempts=outbox.c.attempts + 1)
    )


def waiting(tx: sa.Connection, now: dt.datetime) -> tuple[int, sa.RowMapping | None]:
    """(how many outbox entries are not done, the one of them that was made first); none that is promised for later."""
    waits = outbox.c.done_at.is_(None) & (outbox.c.created_at <= now)
    count = tx.execute(sa.select(sa.func.count()).select_from(outbox).where(waits)).scalar_one()
    return count, tx.execute(sa.select(outbox).where(waits).order_by(outbox.c.created_at).limit(1)).mappings().first()


def is_fresh(tx: sa.Connection, kind: str, ref: str | None = None) -> bool:
    """Whether an outbox entry of a kind (about `ref`) is not done and was never tried."""
    query = sa.select(outbox.c.id).where(outbox.c.kind == kind, outbox.c.done_at.is_(None), outbox.c.attempts == 0)
    return tx.execute((query if ref is None else query.where(outbox.c.ref == ref)).limit(1)).first() is not None


def waiting_by_kind(tx: sa.Connection, now: dt.datetime) -> dict[str, tuple[int, dt.datetime | None]]:
    """Per kind of outbox entry that is not done, and not promised for later: (how many, when the oldest was made)."""
    query = sa.select(outbox.c.kind, sa.func.count(), sa.func.min(outbox.c.created_at)).where(
        outbox.c.done_at.is_(None), outbox.c.created_at <= now
    )
    return {kind: (count, oldest) for kind, count, oldest in tx.execute(query.group_by(outbox.c.kind))}


def undelivered(tx: sa.Connection) -> dict[tuple[str, str], tuple[int, dt.datetime | None]]:
    """Per (project, queue) with tasks whose file is not in S3: (how many, since when the oldest is to be delivered).

    A task whose file went missing is due since it was promised anew, not since it was first asked.
    """
    due_since = sa.func.coalesce(outbox.c.created_at, tasks.c.created_at)
    query = (
        sa.select(tasks.c.project_id, tasks.c.queue, sa.func.count(), sa.func.min(due_since))
        .outerjoin(outbox, (outbox.c.kind == "deliver") & (outbox.c.ref == tasks.c.id))
        .where(tasks.c.delivered_at.is_(None), tasks.c.withdrawn_at.is_(None))
        .group_by(tasks.c.project_id, tasks.c.queue)
    )
    return {(project, queue): (count, since) for project, queue, count, since in tx.execute(query)}


def queue_depths(tx: sa.Connection, usable: Sequence[str]) -> dict[tuple[str, str], tuple[int, int]]:
    """Per (project, queue): (tasks that were delivered and wait for a usable answer, tasks that have one).

    An answer is usable while the newest version of its annotation is in one of these states.
    """
    later = annotations.alias()
    newer = sa.exists().where(
        later.c.annotation_id == annotations.c.annotation_id, later.c.answered_at > annotations.c.answered_at
    )
    answered = sa.select(annotations.c.task_id).where(annotations.c.state.in_(usable), ~newer).distinct().subquery()
    has_one = sa.case((answered.c.task_id.is_not(None), 1), else_=0)
    waits = sa.case((answered.c.task_id.is_(None) & tasks.c.delivered_at.is_not(None), 1), else_=0)
    query = (
        sa.select(tasks.c.project_id, tasks.c.queue, sa.func.sum(waits), sa.func.sum(has_one))
        .outerjoin(answered, answered.c.task_id == tasks.c.id)
        .where(tasks.c.withdrawn_at.is_(None))
        .group_by(tasks.c.project_id, tasks.c.queue)
    )
    return {(project, queue): (int(waiting), int(done)) for project, queue, waiting, done in tx.execute(query)}
