"""One JSON line per prediction and day in the bucket `tracking`, for whoever reads files rather than SQL.

SQL is the record; a day's file is derived from it when the day is over and all its pictures are answered. It is written
again only where a picture of that day was removed.
"""

import datetime as dt
import json
from collections.abc import Sequence

from closedloop.project import Project
from closedloop.storage import Stores, installation, pictures
from closedloop.storage.objects import TRACKING

SETTLED = dt.timedelta(minutes=10)  # after midnight: a picture of 23:59:59 may be committed a little later
GRACE = dt.timedelta(days=2)  # so long is a day kept open for pictures that wait for inference


def close_days(stores: Stores, project: Project, now: dt.datetime) -> list[str]:
    """Write the files of all days that are over; returns their keys. Safe to repeat; a file is never rewritten."""
    job = f"tracking:{project.id}"
    with stores.db.read() as tx:
        last = installation.last_run(tx, job)
        first = pictures.first_prediction_at(tx, project.id)
    if first is None:
        return []
    day = (last + dt.timedelta(days=1)).date() if last else first.date()
    written = []
    while day < (now - SETTLED).date():
        end = dt.datetime.combine(day + dt.timedelta(days=1), dt.time(), dt.UTC)
        with stores.db.read() as tx:
            if now - end < GRACE and pictures.pending_before(tx, project.id, end):
                break
            rows = pictures.predictions_of_day(tx, project.id, day)
        key = f"{TRACKING}/{project.id}/{day.isoformat()}.jsonl"
        if rows and not stores.objects.exists(key):
            stores.objects.put(key, _lines(rows))
            written.append(key)
            write_again(stores, f"{project.id}/{day.isoformat()}")  # for what was removed while there was no file yet
        with stores.db.write() as tx:
            installation.note_run(tx, job, end - dt.timedelta(microseconds=1))
        day += dt.timedelta(days=1)
    return written


def write_again(stores: Stores, ref: str) -> None:
    """Write a closed day's file (`<project>/<day>`) anew, after something of that day was removed."""
    project_id, day = ref.split("/")
    key = f"{TRACKING}/{ref}.jsonl"
    if not stores.objects.exists(key):
        return  # it is not closed yet
    with stores.db.read() as tx:
        rows = pictures.predictions_of_day(tx, project_id, dt.date.fromisoformat(day))
    if (lines := _lines(rows)) != stores.objects.get(key):
        stores.objects.put(key, lines)


def _lines(rows: Sequence[pictures.sa.RowMapping]) -> bytes:
    return b"".join(_line(row) for row in rows)


def _line(row: pictures.sa.RowMapping) -> bytes:
    names = ("project_id", "image_id", "status", "label", "confidence", "probabilities", "release", "encoder")
    fields = {"prediction_id": row["id"], **{name: row[name] for name in names}, "image": f"s3://{row['key']}"}
    moments = {name: row[name].isoformat() if row[name] else None for name in ("created_at", "answered_at")}
    return json.dumps({**fields, **moments}, ensure_ascii=False, sort_keys=True).encode() + b"\n"
