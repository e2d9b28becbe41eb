"""Removing a picture with everything that was derived from it.

What is left is a tombstone: that there was a picture of this name, since frozen datasets and the releases trained on
them still name it. The records go at once; the objects and Label Studio's tasks follow, by the sampler, which alone
removes objects.
"""

import contextlib
import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from closedloop import catalogue, feature_places, leases
from closedloop.errors import UnknownPicture, UnknownPrediction, UnknownSet
from closedloop.leases import Lease
from closedloop.queues import USER_FEEDBACK, USER_LABEL
from closedloop.storage import Stores, asking, pictures, sets, tombstones
from closedloop.storage.objects import THUMBNAILS

VISITOR = "visitor"
PATIENCE = 15.0  # s that a picture which comes again waits while its former copy is being removed


@dataclass(frozen=True)
class Tombstone:
    """A picture that was removed, and the releases that had learnt from it."""

    image_id: str
    removed_at: dt.datetime
    removed_by: str
    releases: tuple[str, ...]


def remove(stores: Stores, project_id: str, image_id: str, by: str, now: dt.datetime) -> None:
    """Remove a picture. Raises UnknownPicture where the project has none of this name (any more)."""
    with stores.db.write() as tx:
        picture = pictures.image(tx, project_id, image_id, lock=True)
        if picture is None or picture["removed_at"] is not None:
            raise UnknownPicture
        _remove(tx, picture, by, now)


def take_back(stores: Stores, prediction_id: str, visitor: str, now: dt.datetime) -> None:
    """Remove what a visitor sent: the picture too, unless somebody else sent or imported the same one.

    Raises UnknownPrediction where the visitor has no such prediction.
    """
    with stores.db.write() as tx:
        row = pictures.prediction(tx, prediction_id)
        if row is None or row["visitor"] is None or row["visitor"] != visitor:
            raise UnknownPrediction
        project_id, image_id = row["project_id"], row["image_id"]
        picture = pictures.image(tx, project_id, image_id, lock=True)
        if picture is None or pictures.prediction(tx, prediction_id) is None:  # taken back at this moment
            raise UnknownPrediction
        if tombstones.sent_by_others(tx, project_id, image_id, visitor):
            for day in tombstones.drop_predictions(tx, project_id, image_id, visitor):
                asking.promise(tx, "track", f"{project_id}/{day}", now)
            flagged, user_label = pictures.feedback_on_image(tx, project_id, image_id)
            for queue, said in ((USER_FEEDBACK, flagged), (USER_LABEL, user_label)):
                if not said:
                    asking.withdraw(tx, project_id, image_id, queue, now)
            catalogue.refresh(tx, project_id, image_id)
        else:
            _remove(tx, picture, VISITOR, now)


def remove_set(stores: Stores, set_id: str, by: str, now: dt.datetime, visitor: str | None = None) -> None:
    """Remove a set, and those of its pictures that belong to no other; a `visitor` only what he alone sent.

    What another visitor sent too stays his, and what was imported stays when a visitor takes back the same: a set whose
    best picture was, a picture that was, or whose crop was.

    Raises UnknownSet where there is none (any more), or the visitor has none of this name.
    """
    with stores.db.write() as tx:
        row = sets.one(tx, set_id)
        if row is None:
            raise UnknownSet
        project_id = row["project_id"]
        members = sets.pictures_of(tx, project_id, [set_id]).get(set_id, [])
        known = {image_id: pictures.image(tx, project_id, image_id, lock=True) for image_id in sorted(members)}
        if sets.one(tx, set_id) is None:  # taken back at this moment
            raise UnknownSet
        if visitor is not None:
            if visitor not in (senders := sets.senders(tx, project_id, [set_id])):
                raise UnknownSet
            if len(senders) > 1 or row["source"] == "import" or sets.picks(tx, project_id, [set_id]):
                sets.forget_sender(tx, project_id, set_id, visitor)
                return
        _remove_set(tx, project_id, set_id, now)
        for image_id, picture in known.items():
            if picture is None or picture["removed_at"] is not None or sets.with_picture(tx, project_id, image_id):
                continue
            imported = picture["source"] == "import" or sets.crops(tx, project_id, [image_id])
            if visitor is None or not imported:
                _remove(tx, picture, by, now)


def _remove_set(tx: Any, project_id: str, set_id: str, now: dt.datetime) -> None:
    sets.lock(tx, project_id, set_id)  # nobody asks about it meanwhile
    tombstones.drop_tasks(tx, project_id, set_id=set_id)
    sets.bury(tx, project_id, set_id, now)


def _remove(tx: Any, picture: Any, by: str, now: dt.datetime) -> None:
    project_id, image_id = picture["project_id"], picture["id"]
    for set_id in sets.with_picture(tx, project_id, image_id):  # a choice among fewer would be another one
        _remove_set(tx, project_id, set_id, now)
    sets.forget_crops(tx, project_id, image_id)
    feature_places.drop(tx, project_id, image_id, now)
    tombstones.drop_tasks(tx, project_id, image_id)
    for day in tombstones.drop_predictions(tx, project_id, image_id):
        asking.promise(tx, "track", f"{project_id}/{day}", now)
    tombstones.bury(tx, project_id, image_id, by, now)
    catalogue.refresh(tx, project_id, image_id)
    asking.promise(tx, "remove", picture["key"], now)


def sweep(stores: Stores, key: str) -> None:
    """Remove the objects of a picture that lay at `key`, unless it has come again. Safe to repeat."""
    _, project_id, _, file = key.split("/")
    image_id = file.removesuffix(".jpg")
    with leases.held(stores, _lease(project_id, image_id), _clock, PATIENCE):
        with stores.db.read() as tx:
            picture = pictures.image(tx, project_id, image_id)
        if picture is None or picture["removed_at"] is not None or picture["key"] != key:
            stores.objects.remove(key)
        if picture is None or picture["removed_at"] is not None:
            stores.objects.remove(thumbnail_key(project_id, image_id))


def look_again(stores: Stores, project_id: str, image_id: str, key: str, now: dt.datetime) -> None:
    """After something of a picture was stored: have it removed where the picture was removed meanwhile."""
    with stores.db.read() as tx:
        picture = pictures.image(tx, project_id, image_id)
    if picture is None or picture["removed_at"] is not None:
        with stores.db.write() as tx:
            asking.promise(tx, "remove", key, now)


@contextlib.contextmanager
def coming(stores: Stores, project_id: str, image_id: str) -> Iterator[Lease | None]:
    """While a picture comes: hold off the removal of its former copy, where it was removed before.

    Yields the lease that does so, to be checked in the transaction that brings the picture back, or None.
    """
    with stores.db.read() as tx:
        known = pictures.image(tx, project_id, image_id)
    if known is None or known["removed_at"] is None:
        yield None
        return
    with leases.held(stores, _lease(project_id, image_id), _clock, PATIENCE) as lease:
        yield lease


def listing(stores: Stores, project_id: str) -> list[Tombstone]:
    """The pictures of a project that were removed, the newest first."""
    with stores.db.read() as tx:
        rows = tombstones.buried(tx, project_id)
        learnt = tombstones.releases_that_learnt(tx, project_id)
    return [
        Tombstone(row["id"], row["removed_at"], row["removed_by"], tuple(sorted(learnt.get(row["id"], ()))))
        for row in rows
    ]


def thumbnail_key(project_id: str, image_id: str) -> str:
    """Where the small copy of a picture lies once somebody has looked at it, bucket first."""
    return f"{THUMBNAILS}/{project_id}/{image_id}.jpg"


def _clock() -> dt.datetime:
    """A lease is renewed and waited for while real time goes on."""
    return dt.datetime.now(dt.UTC)


def _lease(project_id: str, image_id: str) -> str:
    return f"picture:{project_id}/{image_id}"
