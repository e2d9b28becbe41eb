"""The JSON of a labelling task, and its delivery: exactly one file per (picture, queue).

That a picture is asked about is recorded in the transaction of the reason, with an outbox entry. The file's key and
bytes follow from the record alone, so delivering again after a crash finds its own file and makes no second one.
"""

import datetime as dt
import json
import uuid
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from closedloop.project import UNKNOWN, Project
from closedloop.project import get as get_project
from closedloop.storage import Stores, asking, pictures
from closedloop.storage.objects import LABEL_STUDIO

HOTKEYS = "1234567890qwertyuiopasdfghjklzxcvbnm"
UNKNOWN_HOTKEY = "-"
MODEL_VERSION = "closedloop"  # one for all releases: Label Studio preselects the answers of a single version only
CHOICE, IMAGE = "choice", "image"  # the names in label_studio/classification.xml


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Option(_Part):
    """One answer that an annotator may give."""

    value: str = Field(min_length=1)
    hotkey: str | None = None


class TaskData(_Part):
    """Everything that must come back with the annotation: Label Studio keeps `data` and loses the rest."""

    image: str = Field(pattern=r"^s3://production/[a-z0-9-]+/(class_\d{2,3}|unclassified)/[0-9a-f]{32}\.jpg$")
    task_id: str
    prediction_id: str
    image_id: str = Field(pattern=r"^[0-9a-f]{32}$")
    project: str
    queue: str
    ml_prediction: str | None
    confidence: float | None = Field(ge=0, le=1)
    model_says: str  # for the annotator: what stands above, as sentences
    visitor_says: str
    release: str | None
    user_feedback: str | None
    user_label: str | None
    source: str
    timestamp: str
    inclusion_probability: float = Field(gt=0, le=1)
    options: list[Option] = Field(min_length=2)

    @model_validator(mode="after")
    def _image_is_its_own(self) -> "TaskData":
        folder, file = f"s3://production/{self.project}/", f"/{self.image_id}.jpg"
        if not (self.image.startswith(folder) and self.image.endswith(file)):
            raise ValueError("the image is not that of this task")
        return self


class Suggestion(_Part):
    """The model's answer as pre-annotation, in Label Studio's own shape."""

    model_version: str
    score: float = Field(ge=0, le=1)
    result: list[dict[str, Any]]


class TaskFile(_Part):
    """The whole file; nothing is delivered that does not fit this schema."""

    data: TaskData
    predictions: list[Suggestion] = Field(max_length=1)

    def to_bytes(self) -> bytes:
        """The file's bytes, always the same for the same task."""
        return json.dumps(self.model_dump(), ensure_ascii=False, sort_keys=True, allow_nan=False).encode()


class NotYet(Exception):
    """The picture has no answer yet, so nobody can be asked about it."""


def prefix(project_id: str, queue: str) -> str:
    """The folder of a queue's task files, bucket first."""
    return f"{LABEL_STUDIO}/tasks/{project_id}/{queue}"


def key(project_id: str, queue: str, id_: str) -> str:
    """Where a task's file lies, bucket first."""
    return f"{prefix(project_id, queue)}/task_{id_}.json"


def ask(
    tx: Any,
    project_id: str,
    image_id: str,
    queue: str,
    now: dt.datetime,
    *,
    prediction_id: str | None = None,
    probability: float = 1.0,
    user_feedback: str | None = None,
    user_label: str | None = None,
    window_id: int | None = None,
) -> str | None:
    """Record, in the transaction of the reason, that annotators are to be asked; None where they are already.

    Returns the id of the new task. A picture that was removed and has come again gets a new one: nothing that was said
    of its former life may be taken for an answer.

    `probability` (0-1] is that with which the picture entered the queue, given the reason; 1 where every such one does.
    """
    id_ = str(uuid.uuid4())
    row = {
        "id": id_,
        "project_id": project_id,
        "image_id": image_id,
        "queue": queue,
        "prediction_id": prediction_id,
        "probability": probability,
        "user_feedback": user_feedback,
        "user_label": user_label,
        "created_at": now,
    }
    if not asking.add_task(tx, row):
        said = {"user_feedback": user_feedback, "user_label": user_label}
        if again := asking.ask_again(tx, project_id, image_id, queue, said):
            asking.promise(tx, "deliver", again, now)  # it may have been withdrawn before it was delivered
        return None
    inclusion = {"project_id": project_id, "image_id": image_id, "queue": queue, "probability": probability}
    asking.add_inclusions(tx, [{**inclusion, "drawn": True, "window_id": window_id, "at": now}])
    asking.promise(tx, "deliver", id_, now)
    return id_


def deliver(stores: Stores, id_: str, now: dt.datetime) -> None:
    """Put a task's file where Label Studio will find it; safe to repeat.

    Raises NotYet while the picture has no answer, pydantic.ValidationError where the file would not fit its schema
    (it is not put), StoreAway or DatabaseAway.
    """
    with stores.db.read() as tx:
        task = asking.task(tx, id_)
        if task is None or task["delivered_at"] or task["withdrawn_at"]:
            return
        picture = pictures.image(tx, task["project_id"], task["image_id"])
        answer = pictures.prediction(tx, task["prediction_id"]) if task["prediction_id"] else None
        if answer is None or answer["status"] != "done":
            answer = pictures.newest_answer(tx, task["project_id"], task["image_id"])
    if answer is None or picture is None:
        raise NotYet
    file = build(get_project(stores, task["project_id"]), task, picture, answer)
    place = key(task["project_id"], task["queue"], id_)
    if not stores.objects.exists(place):
        stores.objects.put(place, file.to_bytes())
    with stores.db.write() as tx:
        still_asked = asking.delivered(tx, id_, now)
    if not still_asked:  # its picture was removed meanwhile
        stores.objects.remove(place)


def build(project: Project, task: Any, picture: Any, answer: Any) -> TaskFile:
    """The file of a task, from its records. Raises pydantic.ValidationError where it would not fit its schema."""
    probabilities = answer["probabilities"] or {}
    likeliest_first = sorted(
        project.classes, key=lambda name: (-probabilities.get(name, 0.0), project.classes.index(name))
    )
    hotkeys = iter(HOTKEYS)
    options = [{"value": name, "hotkey": next(hotkeys, None)} for name in likeliest_first]
    options.append({"value": UNKNOWN, "hotkey": UNKNOWN_HOTKEY})
    label, confidence = answer["label"], answer["confidence"]
    suggestion = {
        "model_version": MODEL_VERSION,
        "score": confidence,
        "result": [
            {
                "from_name": CHOICE,
                "to_name": IMAGE,
                "type": "choices",
                "value": {"choices": [label]},
                "id": "suggestion",
            }
        ],
    }
    return TaskFile.model_validate(
        {
            "data": {
                "image": f"s3://{picture['key']}",
                "task_id": task["id"],
                "prediction_id": answer["id"],
                "image_id": task["image_id"],
                "project": project.id,
                "queue": task["queue"],
                "ml_prediction": label,
                "confidence": confidence,
                "model_says": _model_says(label, confidence),
                "visitor_says": _visitor_says(task["user_feedback"], task["user_label"]),
                "release": answer["release"],
                "user_feedback": task["user_feedback"],
                "user_label": task["user_label"],
                "source": picture["source"],
                "timestamp": task["created_at"].isoformat(),
                "inclusion_probability": task["probability"],
                "options": options,
            },
            "predictions": [suggestion] if label is not None else [],
        }
    )


def _model_says(label: str | None, confidence: float) -> str:
    return "No model could answer." if label is None else f"The model said: {label} ({confidence:.0%})"


def _visitor_says(user_feedback: str | None, user_label: str | None) -> str:
    if user_label:
        return f"The visitor said: {user_label}"
    return "The visitor said that this is wrong." if user_feedback else ""
