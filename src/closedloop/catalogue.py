"""The list of a project's pictures: found by what was said about them, paged by key.

One row per picture holds what the list filters and sorts by. It is derived, and written anew in the transaction of
whatever changes it, so that no page need look through every record ever made.
"""

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from closedloop import labels
from closedloop.storage import Stores, pictures
from closedloop.storage import catalogue as rows
from closedloop.storage.catalogue import NEWEST, ORDERS, Filter

__all__ = ["NEWEST", "ORDERS", "Entry", "Filter", "Page", "every", "fill", "page", "refresh"]


@dataclass(frozen=True)
class Entry:
    """A picture in the list: the newest answer, what its visitor said, and what annotators settled."""

    image_id: str
    arrived_at: dt.datetime
    label: str | None
    confidence: float | None
    flagged: bool
    user_label: str | None
    answer: str | None
    disagrees: bool


@dataclass(frozen=True)
class Page:
    """Some entries in order, and the keys of the pages before and after them, None where there is none."""

    entries: list[Entry] = field(default_factory=list)
    before: str | None = None
    after: str | None = None


def refresh(tx: Any, project_id: str, image_id: str) -> None:
    """Write a picture's row anew, in the transaction of what changed it. A removed picture has none."""
    picture = pictures.image(tx, project_id, image_id, lock=True)  # else two who change it each miss the other's change
    if picture is None or picture["removed_at"] is not None:
        rows.drop(tx, project_id, image_id)
        return
    newest = pictures.newest_answer(tx, project_id, image_id)
    flagged, user_label = pictures.feedback_on_image(tx, project_id, image_id)
    votes = labels.votes_of(tx, project_id, image_id)
    answer, _ = labels.settle(votes)
    label = newest["label"] if newest else None
    rows.put(
        tx,
        {
            "project_id": project_id,
            "image_id": image_id,
            "arrived_at": picture["arrived_at"],
            "label": label,
            "confidence": newest["confidence"] if newest and label is not None else None,
            "flagged": flagged,
            "user_label": user_label,
            "answer": answer,
            "answered": answer is not None,
            "disagrees": answer is not None and label is not None and answer != label,
        },
    )


def fill(stores: Stores) -> int:
    """Make the rows that are missing, as after an upgrade from a version that had none; returns how many."""
    count = 0
    while True:
        with stores.db.write() as tx:
            missing = rows.missing(tx, 500)
            for project_id, image_id in missing:
                refresh(tx, project_id, image_id)
        count += len(missing)
        if not missing:
            return count


def page(
    stores: Stores,
    project_id: str,
    chosen: Filter,
    order: str = NEWEST,
    key: str | None = None,
    backwards: bool = False,
    size: int = 48,
) -> Page:
    """One page of the pictures that a filter chooses: those after `key` (or before it, `backwards`) in an order.

    Its cost does not grow with the number of pictures. Raises BadRequest for a key that is none.
    """
    with stores.db.read() as tx:
        found = rows.page(tx, project_id, chosen, order, key, backwards, size + 1)
    more = len(found) > size
    found = found[:size]
    if backwards:
        found.reverse()
    entries = [_entry(row) for row in found]
    if not entries:
        return Page()
    first, last = rows.key_of(found[0], order), rows.key_of(found[-1], order)
    return Page(
        entries,
        before=first if (more if backwards else key is not None) else None,
        after=last if (more or backwards) else None,
    )


def every(stores: Stores, project_id: str, chosen: Filter, order: str = NEWEST) -> Iterator[Entry]:
    """All pictures that a filter chooses, in order, read a thousand at a time."""
    key = None
    while True:
        with stores.db.read() as tx:
            found = rows.page(tx, project_id, chosen, order, key, False, 1000)
        yield from (_entry(row) for row in found)
        if len(found) < 1000:
            return
        key = rows.key_of(found[-1], order)


def _entry(row: Any) -> Entry:
    return Entry(**{name: row[name] for name in Entry.__dataclass_fields__})
