"""Asking annotators, and the delivery of what is asked: exactly one file per (picture or set, queue).

That a picture is asked about is recorded in the transaction of the reason, with an outbox entry. The file's key and
bytes follow from the record alone, so delivering again after a crash finds its own file and makes no second one.
"""

import datetime as dt
import uuid
from typing import Any

from closedloop import task_files
from closedloop.project import get as get_project
from closedloop.queues import CROP, SELECTION
from closedloop.storage import Stores, asking, pictures, sets
from closedloop.storage.objects import LABEL_STUDIO
from closedloop.task_files import TaskFile


class NotYet(Exception):
    """What annotators are to be shown has not come yet."""


def prefix(project_id: str, queue: str) -> str:
    """The folder of a queue's task files, bucket first."""
    return f"{LABEL_STUDIO}/tasks/{project_id}/{queue}"


def key(project_id: str, queue: str, id_: str) -> str:
    """Where a task's file lies, bucket first."""
    return f"{prefix(project_id, queue)}/task_{id_}.json"


def ask(
    tx: Any,
    project_id: str,
    image_id: str | None,
    queue: str,
    now: dt.datetime,
    *,
    set_id: str | None = None,
    prediction_id: str | None = None,
    probability: float = 1.0,
    reason: str | None = None,
    user_feedback: str | None = None,
    user_label: str | None = None,
    window_id: int | None = None,
) -> str | None:
    """Record, in the transaction of the reason, that annotators are to be asked; None where they are already.

    It is about a picture, or about a set. Returns the id of the new task. A picture that was removed and has come again
    gets a new one: nothing that was said of its former life may be taken for an answer.

    `probability` (0-1] is that with which the picture entered the queue, given the reason; 1 where every such one does.
    """
    id_ = str(uuid.uuid4())
    row = {
        "id": id_,
        "project_id": project_id,
        "image_id": image_id,
        "set_id": set_id,
        "queue": queue,
        "reason": reason,
        "prediction_id": prediction_id,
        "probability": probability,
        "user_feedback": user_feedback,
        "user_label": user_label,
        "created_at": now,
    }
    if not asking.add_task(tx, row):
        said = {"user_feedback": user_feedback, "user_label": user_label}
        if image_id and (again := asking.ask_again(tx, project_id, image_id, queue, said)):
            asking.promise(tx, "deliver", again, now)  # it may have been withdrawn before it was delivered
        return None
    if image_id:
        inclusion = {"project_id": project_id, "image_id": image_id, "queue": queue, "probability": probability}
        asking.add_inclusions(tx, [{**inclusion, "drawn": True, "window_id": window_id, "at": now}])
    asking.promise(tx, "deliver", id_, now)
    return id_


def deliver(stores: Stores, id_: str, now: dt.datetime) -> None:
    """Put a task's file where Label Studio will find it; safe to repeat.

    Raises NotYet while there is no answer to show, pydantic.ValidationError where the file would not fit its schema
    (it is not put), StoreAway or DatabaseAway.
    """
    with stores.db.read() as tx:
        task = asking.task(tx, id_)
        if task is None or task["delivered_at"] or task["withdrawn_at"]:
            return
    file = build(stores, task)
    place = key(task["project_id"], task["queue"], id_)
    if not stores.objects.exists(place):
        stores.objects.put(place, file.to_bytes())
    with stores.db.write() as tx:
        still_asked = asking.delivered(tx, id_, now)
    if not still_asked:  # its picture was removed meanwhile
        stores.objects.remove(place)


def build(stores: Stores, task: Any) -> TaskFile:
    """The file of a task, from the records. Raises NotYet, or pydantic.ValidationError where it would not fit."""
    project = get_project(stores, task["project_id"])
    with stores.db.read() as tx:
        if task["queue"] == SELECTION:
            of_set = sets.one(tx, task["set_id"])
            ids = sets.pictures_of(tx, project.id, [task["set_id"]]).get(task["set_id"], [])
            known = pictures.images_of(tx, project.id, ids)
            suggestion = sets.newest_suggestion(tx, project.id, task["set_id"])
            if of_set is None or suggestion is None:
                raise NotYet
            return task_files.of_set(task, of_set["source"], [known[image_id] for image_id in ids], suggestion)
        picture = pictures.image(tx, project.id, task["image_id"])
        if picture is None:
            raise NotYet
        if task["queue"] == CROP:
            proposal = sets.newest_proposal(tx, project.id, task["image_id"])
            if proposal is None and asking.is_fresh(tx, "propose", f"{project.id}/{task['image_id']}"):
                raise NotYet
            return task_files.of_crop(task, picture, proposal)
        answer = pictures.prediction(tx, task["prediction_id"]) if task["prediction_id"] else None
        if answer is None or answer["status"] != "done":
            answer = pictures.newest_answer(tx, project.id, task["image_id"])
    if answer is None:
        raise NotYet
    return task_files.of_picture(project, task, picture, answer)
