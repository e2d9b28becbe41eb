"""Records about the installation itself: projects, the chosen encoder, leases, and when each job last ran."""

import datetime as dt
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from closedloop.storage.database import insert_new
from closedloop.storage.tables import installation, job_runs, label_studio_projects, leases, projects
from closedloop.storage.tables import manifest_changes as manifest_changes_table


def save_project(tx: sa.Connection, project_id: str, manifest: dict[str, Any], now: dt.datetime, by: str) -> None:
    """Make the project, or replace its manifest, and keep what it was."""
    before = project_manifest(tx, project_id)
    row = {"id": project_id, "manifest": manifest, "created_at": now, "changed_at": now}
    if not insert_new(tx, projects, row):
        tx.execute(projects.update().where(projects.c.id == project_id).values(manifest=manifest, changed_at=now))
    change = {"project_id": project_id, "at": now, "by": by, "after": manifest}
    tx.execute(manifest_changes_table.insert().values(**change, before=sa.null() if before is None else before))


def project_manifest(tx: sa.Connection, project_id: str, lock: bool = False) -> dict[str, Any] | None:
    """The manifest of one project, None where there is none; `lock`: nobody else changes it in this transaction."""
    query = sa.select(projects.c.manifest).where(projects.c.id == project_id)
    return tx.execute(query.with_for_update() if lock else query).scalar()


def manifest_changes(tx: sa.Connection, project_id: str, limit: int = 100) -> Sequence[sa.RowMapping]:
    """What a project's manifest was before and after each change, the newest first."""
    query = sa.select(manifest_changes_table).where(manifest_changes_table.c.project_id == project_id)
    return tx.execute(query.order_by(manifest_changes_table.c.id.desc()).limit(limit)).mappings().all()


def lock_project(tx: sa.Connection, project_id: str) -> None:
    """Let nobody else who locks the project go on before this transaction ends (on SQLite every write does so)."""
    tx.execute(sa.select(projects.c.id).where(projects.c.id == project_id).with_for_update(key_share=True))


def project_since(tx: sa.Connection, project_id: str) -> dt.datetime | None:
    """When a project was made."""
    return tx.execute(sa.select(projects.c.created_at).where(projects.c.id == project_id)).scalar()


def project_manifests(tx: sa.Connection) -> list[dict[str, Any]]:
    """The manifests of all projects, oldest project first."""
    return list(tx.execute(sa.select(projects.c.manifest).order_by(projects.c.created_at, projects.c.id)).scalars())


def remember(tx: sa.Connection, name: str, value: Any, now: dt.datetime) -> None:
    """Keep one fact about the installation (a JSON value), replacing the former."""
    if not insert_new(tx, installation, {"name": name, "value": value, "at": now}):
        tx.execute(installation.update().where(installation.c.name == name).values(value=value, at=now))


def recall(tx: sa.Connection, name: str) -> Any:
    """The fact kept under this name, None where there is none."""
    return tx.execute(sa.select(installation.c.value).where(installation.c.name == name)).scalar()


def take_lease(tx: sa.Connection, name: str, holder: str, now: dt.datetime, until: dt.datetime) -> int | None:
    """Take or renew a lease; returns its fence (it grows with every new holder), or None while another holds it."""
    insert_new(tx, leases, {"name": name, "holder": "", "fence": 0, "expires_at": now})
    free = sa.or_(leases.c.holder == holder, leases.c.expires_at <= now)
    row = tx.execute(
        leases.update()
        .where(leases.c.name == name, free)
        .values(
            holder=holder,
            expires_at=until,
            fence=sa.case((leases.c.holder == holder, leases.c.fence), else_=leases.c.fence + 1),
        )
        .returning(leases.c.fence)
    ).first()
    return row.fence if row else None


def free_lease(tx: sa.Connection, name: str, holder: str, now: dt.datetime) -> None:
    """Give a lease back, if it is still this holder's."""
    tx.execute(
        leases.update().where(leases.c.name == name, leases.c.holder == holder).values(holder="", expires_at=now)
    )


def forget_leases(tx: sa.Connection, before: dt.datetime) -> None:
    """Forget the leases that have been free since before a moment."""
    tx.execute(leases.delete().where(leases.c.holder == "", leases.c.expires_at < before))


def lease_holds(tx: sa.Connection, name: str, holder: str, fence: int) -> bool:
    """Whether nobody has taken the lease over; locks its row until the transaction ends."""
    query = sa.select(leases.c.fence).where(leases.c.name == name, leases.c.holder == holder).with_for_update()
    return tx.execute(query).scalar() == fence


def last_run(tx: sa.Connection, name: str) -> dt.datetime | None:
    """When the job of this name last ran to its end."""
    return tx.execute(sa.select(job_runs.c.ran_at).where(job_runs.c.name == name)).scalar()


def note_run(tx: sa.Connection, name: str, now: dt.datetime) -> None:
    """Note that the job ran to its end."""
    if not insert_new(tx, job_runs, {"name": name, "ran_at": now}):
        tx.execute(job_runs.update().where(job_runs.c.name == name).values(ran_at=now))


def label_studio_project(tx: sa.Connection, project_id: str, queue: str) -> sa.RowMapping | None:
    """The Label Studio project of a queue: `ls_project`, `reconciled_to`, `answers_seen`."""
    query = sa.select(label_studio_projects).where(
        label_studio_projects.c.project_id == project_id, label_studio_projects.c.queue == queue
    )
    return tx.execute(query).mappings().first()


def set_label_studio_project(tx: sa.Connection, project_id: str, queue: str, ls_project: int) -> None:
    """Keep which Label Studio project asks about a queue."""
    tx.execute(
        label_studio_projects.delete().where(
            label_studio_projects.c.project_id == project_id, label_studio_projects.c.queue == queue
        )
    )
    tx.execute(label_studio_projects.insert().values(project_id=project_id, queue=queue, ls_project=ls_project))


def set_reconciled(tx: sa.Connection, project_id: str, queue: str, to: dt.datetime, seen: int) -> None:
    """Keep up to which moment, and which annotation, a queue was compared with Label Studio's own."""
    tx.execute(
        label_studio_projects.update()
        .where(label_studio_projects.c.project_id == project_id, label_studio_projects.c.queue == queue)
        .values(reconciled_to=to, answers_seen=seen)
    )
