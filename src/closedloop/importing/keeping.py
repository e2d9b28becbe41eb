"""Keep a picture that is imported, with what is said about it, in one transaction."""

import datetime as dt
from collections.abc import Callable
from typing import Any

from closedloop import catalogue, removal
from closedloop.errors import RemovedMeanwhile
from closedloop.image import Picture
from closedloop.project import Project
from closedloop.storage import Stores, pictures
from closedloop.storage.objects import PRODUCTION


def keep(
    stores: Stores, project: Project, picture: Picture, folder: str, now: dt.datetime, say: Callable[[Any], bool]
) -> bool:
    """Keep a picture in a folder of its project, where it is not there; returns what `say(transaction)` returned.

    `say` keeps what is said about the picture, and returns whether that is new. Raises RemovedMeanwhile, StoreAway,
    DatabaseAway or what `say` raises; then nothing is kept.
    """
    key = f"{PRODUCTION}/{project.id}/{folder}/{picture.id}.jpg"
    with removal.coming(stores, project.id, picture.id) as lease:
        with stores.db.read() as tx:
            known = pictures.image(tx, project.id, picture.id)
        if not known or known["removed_at"] is not None:
            stores.objects.put(key, picture.jpeg)
        record = picture.record(project.id, key, "import", now)
        with stores.db.write() as tx:
            if not pictures.add_image(tx, record):
                there = pictures.image(tx, project.id, picture.id, lock=True)
                if there and there["removed_at"] is not None:
                    if lease is None:
                        raise RemovedMeanwhile
                    lease.check(tx)
                    pictures.revive(tx, record)
            is_new = say(tx)
            if is_new:
                catalogue.refresh(tx, project.id, picture.id)
            return is_new
