"""Records of releases: which one is live, which were, which were refused and why."""

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from closedloop.storage.tables import pins, releases, shared_datasets


def live_release(tx: sa.Connection, project_id: str, head: str) -> sa.RowMapping | None:
    """The live release of a head."""
    query = sa.select(releases).where(_of(project_id, head), releases.c.state == "live")
    return tx.execute(query).mappings().first()


def live_releases(tx: sa.Connection) -> Sequence[sa.RowMapping]:
    """All live releases of all projects."""
    return tx.execute(sa.select(releases).where(releases.c.state == "live")).mappings().all()


def live_release_ids(tx: sa.Connection) -> list[tuple[str, str, str]]:
    """(project, head, release) of all live releases."""
    query = sa.select(releases.c.project_id, releases.c.head, releases.c.id).where(releases.c.state == "live")
    return [(project, head, release) for project, head, release in tx.execute(query)]


def releases_of(tx: sa.Connection, project_id: str) -> Sequence[sa.RowMapping]:
    """All releases of a project, oldest first."""
    query = sa.select(releases).where(releases.c.project_id == project_id)
    return tx.execute(query.order_by(releases.c.head, releases.c.number)).mappings().all()


def releases_named(tx: sa.Connection, release_id: str) -> Sequence[sa.RowMapping]:
    """The releases of this name, of whatever project and head."""
    query = sa.select(releases).where(releases.c.id == release_id)
    return tx.execute(query.order_by(releases.c.project_id, releases.c.head)).mappings().all()


def next_number(tx: sa.Connection, project_id: str, head: str) -> int:
    """The number of the next release of a head; the first is 1."""
    return (tx.execute(sa.select(sa.func.max(releases.c.number)).where(_of(project_id, head))).scalar() or 0) + 1


def add_release(tx: sa.Connection, row: Mapping[str, Any], shared: Iterable[tuple[str, str]] = ()) -> None:
    """Record a judged candidate; `shared` are the (project, dataset) of others that it learnt from too."""
    tx.execute(releases.insert().values(**row))
    own = {"project_id": row["project_id"], "head": row["head"], "release_id": row["id"]}
    others = [{**own, "of_project_id": project_id, "dataset_id": dataset_id} for project_id, dataset_id in shared]
    if others:
        tx.execute(shared_datasets.insert(), others)


def go_live(
    tx: sa.Connection, project_id: str, head: str, release_id: str, now: dt.datetime, went: str, came: str | None = None
) -> None:
    """Make a release the live one; why the live one until now went and, where it is no news, why this one came."""
    tx.execute(
        releases.update()
        .where(_of(project_id, head), releases.c.state == "live", releases.c.id != release_id)
        .values(state="retired", reason=went)
    )
    tx.execute(
        releases.update()
        .where(_of(project_id, head), releases.c.id == release_id)
        .values(state="live", went_live_at=now, **({"reason": came} if came else {}))
    )


def earlier_release(tx: sa.Connection, project_id: str, head: str, number: int, encoder: str) -> sa.RowMapping | None:
    """Of the releases before `number` that fit the encoder, the one that was live last."""
    query = (
        sa.select(releases)
        .where(
            _of(project_id, head),
            releases.c.number < number,
            releases.c.state == "retired",
            releases.c.encoder == encoder,
        )
        .order_by(releases.c.went_live_at.desc(), releases.c.number.desc())
        .limit(1)
    )
    return tx.execute(query).mappings().first()


def pinned(tx: sa.Connection, project_id: str, head: str) -> sa.RowMapping | None:
    """Which release of a head stays live, since when and by whom; None where candidates may replace it."""
    query = sa.select(pins).where(pins.c.project_id == project_id, pins.c.head == head)
    return tx.execute(query).mappings().first()


def pins_of(tx: sa.Connection, project_id: str) -> dict[str, str]:
    """Head -> the release that is pinned, of a project."""
    query = sa.select(pins.c.head, pins.c.release_id).where(pins.c.project_id == project_id)
    return {row.head: row.release_id for row in tx.execute(query)}


def pin(tx: sa.Connection, row: Mapping[str, Any]) -> None:
    """Pin a release of a head, instead of the one that was."""
    unpin(tx, row["project_id"], row["head"])
    tx.execute(pins.insert().values(**row))


def unpin(tx: sa.Connection, project_id: str, head: str) -> bool:
    """Let candidates replace the live release of a head again; False where they may already."""
    gone = tx.execute(pins.delete().where(pins.c.project_id == project_id, pins.c.head == head))
    return bool(gone.rowcount)


def looks(tx: sa.Connection, project_id: str, head: str, live: str | None, but: str) -> list[tuple[int, int]]:
    """(discordant answers, how many had to be won) of the candidates that were judged against a release, oldest first;
    where that is None, of those that were to be the first.

    One for each dataset: to judge the same answers again, as for dataset `but`, is no new look. A look by a rule that
    counts no wins is one that could not be passed by winning.
    """
    said = releases.c.card["gate"]
    query = (
        sa.select(releases.c.dataset_id, releases.c.card)
        .where(
            _of(project_id, head), said["first"].as_boolean() if live is None else said["against"].as_string() == live
        )
        .order_by(releases.c.number)
    )
    judged = {row.dataset_id: row.card["gate"] for row in tx.execute(query) if row.dataset_id != but}
    found = []
    for one in judged.values():
        discordant = (one["only_candidate_right"] or 0) + (one["only_baseline_right"] or 0)
        found.append((discordant, discordant + 1 if one.get("needed") is None else one["needed"]))
    return found


def _of(project_id: str, head: str) -> sa.ColumnElement[bool]:
    return sa.and_(releases.c.project_id == project_id, releases.c.head == head)
