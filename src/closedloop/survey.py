"""What a dashboard shows of a project, counted from all its records and kept, so that a page need not count.

The sampler takes one whenever the last has become old: a large project, which takes long to count, is counted less
often.
"""

import datetime as dt
import statistics
import time
from collections.abc import Callable, Hashable, Iterable
from dataclasses import asdict
from typing import Any, TypeVar

from closedloop import crops, production, selections
from closedloop.production import Cell, Record
from closedloop.project import SELECTION, Project
from closedloop.storage import Stores, surveys
from closedloop.votes import USABLE

EVERY = dt.timedelta(seconds=20)
SHARE = 0.05  # of one process's time at most
RECENT = dt.timedelta(days=30)
DAYS = 60  # that are counted one by one
BEGINNING = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)

Key = TypeVar("Key", bound=Hashable)


def is_due(stores: Stores, project_id: str, now: dt.datetime) -> bool:
    """Whether a project should be counted anew."""
    with stores.db.read() as tx:
        last = surveys.latest(tx, project_id)
    return last is None or now - last["at"] >= max(EVERY, dt.timedelta(seconds=last["seconds"] / SHARE))


def take(stores: Stores, project: Project, now: dt.datetime) -> dict[str, Any]:
    """Count a project and keep what was counted; returns it (see `latest`). Raises DatabaseAway."""
    began = time.monotonic()
    body = count(stores, project, now)
    with stores.db.write() as tx:
        surveys.keep(tx, project.id, now, time.monotonic() - began, body)
    return body


def latest(stores: Stores, project_id: str) -> tuple[dt.datetime, dict[str, Any]] | None:
    """When a project was last counted, and what `count` said; None before the first time."""
    with stores.db.read() as tx:
        row = surveys.latest(tx, project_id)
    return (row["at"], row["body"]) if row else None


def count(stores: Stores, project: Project, now: dt.datetime) -> dict[str, Any]:
    """Everything a dashboard shows that needs counting.

    `all` and `recent` (30 days) are standings: `pictures`, and `sample` and `weighted` as `share, low, high` (0-1),
    `answers`, `pictures`, or None. `releases`, `classes` (by the model's answer) and `weeks` (by their Monday) are
    lists of such standings, each with its `release`, `label` or `week`. `days` has, of the last 60 days (UTC), new
    `pictures`, `flags` and `relabels` said, `answers` given, and those of them `flagged` at any time since. `queues`
    has `waiting, answered, median_age` (s), and `pictures`, `settled` are numbers. Of a selection, `sets`,
    `waiting_sets` (for a suggestion), `picked` and `cropped` (settled) are numbers, too.
    """
    record = production.record(stores, project, BEGINNING)
    since = (now - RECENT).date()
    with stores.db.read() as tx:
        totals = surveys.totals(tx, project.id)
        days = surveys.days(tx, project.id, dt.datetime.fromisoformat(_last_days(now)[0]).replace(tzinfo=dt.UTC))
        waiting = surveys.waiting_since(tx, project.id, USABLE)
        answered = surveys.answered(tx, project.id, USABLE)
    return {
        **totals,
        **_sets(stores, project),
        "all": asdict(record.standing()),
        "recent": asdict(record.standing(lambda cell: cell.day >= since)),
        "releases": _by(record, "release", lambda cell: cell.release),
        "classes": _by(record, "label", lambda cell: cell.label),
        "weeks": _by(record, "week", lambda cell: _monday(cell.day).isoformat()),
        "days": [{"day": day, **dict.fromkeys(surveys.OF_DAY, 0), **days.get(day, {})} for day in _last_days(now)],
        "queues": [
            {
                "queue": queue,
                "waiting": len(waiting.get(queue, ())),
                "answered": answered.get(queue, 0),
                "median_age": _median_age(waiting.get(queue, ()), now),
            }
            for queue in project.queues
        ],
    }


def _sets(stores: Stores, project: Project) -> dict[str, int]:
    if project.kind != SELECTION:
        return {}
    with stores.db.read() as tx:
        counts = surveys.sets(tx, project.id)
        picked, cropped = selections.count_settled(tx, project.id), crops.count_settled(tx, project.id)
    return {**counts, "picked": picked, "cropped": cropped}


def _by(record: Record, name: str, key: Callable[[Cell], Key]) -> list[dict[str, Any]]:
    """The standings of a record's parts, in the order of their keys."""
    return [{name: value, **asdict(part.standing())} for value, part in sorted(record.split(key).items())]


def _monday(day: dt.date) -> dt.date:
    return day - dt.timedelta(days=day.weekday())


def _last_days(now: dt.datetime) -> list[str]:
    return [(now - dt.timedelta(days=back)).date().isoformat() for back in range(DAYS - 1, -1, -1)]


def _median_age(since: Iterable[dt.datetime], now: dt.datetime) -> float | None:
    ages = [(now - moment).total_seconds() for moment in since]
    return max(0.0, statistics.median(ages)) if ages else None
