"""Where the features of pictures lie in the store, and how they are forgotten: known without Parquet."""

import datetime as dt
from typing import Any

from closedloop.storage import asking, features
from closedloop.storage.objects import MODELS


def key(project_id: str, encoder: str, kind: str, part_id: str) -> str:
    """Where a part lies, bucket first; `encoder` is the digest of its weights."""
    return f"{MODELS}/{project_id}/features/{encoder[:16]}/{kind}-{part_id}.parquet"


def drop(tx: Any, project_id: str, image_id: str, now: dt.datetime) -> None:
    """Forget what was computed of a picture, in the transaction that removes it; the files go after it."""
    for encoder, kind, part_id in features.drop_parts(tx, project_id, image_id):
        asking.promise(tx, "forget", key(project_id, encoder, kind, part_id), now)
