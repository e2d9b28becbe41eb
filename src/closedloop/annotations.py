"""What annotators answered, collected exactly once and checked against the manifest before it is believed.

The same annotation may come from the target storage and from the API, and again after an edit: each version is kept
once, the newest of each (task, annotator) counts.
"""

import datetime as dt
import math
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from closedloop.judgements import judge
from closedloop.project import Project
from closedloop.storage import answers, asking, sets
from closedloop.votes import WITHDRAWN


class NotOurs(Exception):
    """An annotation that cannot be placed: unreadable, or of a task that was never asked."""


class _Annotator(BaseModel):
    model_config = ConfigDict(extra="ignore")
    id: int


class _Annotation(BaseModel):
    """What is read of Label Studio's annotation; the rest is its own business."""

    model_config = ConfigDict(extra="ignore")
    id: int = Field(ge=0, lt=2**63)
    completed_by: _Annotator | int | None = None
    was_cancelled: bool = False
    updated_at: dt.datetime
    lead_time: float | None = None
    result: Any = None


@dataclass(frozen=True)
class TaskAnswers:
    """One task of Label Studio with the annotations that it has now."""

    data: dict[str, Any]
    annotations: list[dict[str, Any]]
    created_at: dt.datetime  # in Label Studio
    updated_at: dt.datetime


def keep(tx: Any, project: Project, queue: str, data: Any, raw: Any, now: dt.datetime) -> bool:
    """Keep one version of one annotation (Label Studio's JSON) of the task with this `data`.

    Returns False where it was kept before. Raises NotOurs with the reason where it belongs to no task of this queue.
    """
    try:
        annotation = _Annotation.model_validate(raw)
    except (ValidationError, RecursionError) as error:
        raise NotOurs(f"not an annotation: {str(error)[:300]}") from None
    task_id = data.get("task_id") if isinstance(data, dict) else None
    task = asking.task(tx, task_id) if isinstance(task_id, str) else None
    if task is None or (task["project_id"], task["queue"]) != (project.id, queue):
        raise NotOurs(f"no task of {project.id}/{queue} has the id {str(task_id)[:60]!r}")
    in_set = sets.pictures_of(tx, project.id, [task["set_id"]]).get(task["set_id"], []) if task["set_id"] else []
    judgement = judge(project, queue, annotation.was_cancelled, annotation.result, in_set)
    moment = annotation.updated_at if annotation.updated_at.tzinfo else annotation.updated_at.replace(tzinfo=dt.UTC)
    by = annotation.completed_by
    seconds = annotation.lead_time
    return answers.add_annotation(
        tx,
        {
            "annotation_id": str(annotation.id),
            "answered_at": moment,
            "project_id": project.id,
            "task_id": task_id,
            "annotator": str(by.id if isinstance(by, _Annotator) else by),
            "state": judgement.state,
            "label": judgement.label,
            "reason": judgement.reason,
            "seconds": seconds if seconds is not None and math.isfinite(seconds) and seconds >= 0 else None,
            "collected_at": now,
        },
    )


def withdraw_missing(tx: Any, project: Project, queue: str, task: TaskAnswers, now: dt.datetime) -> int:
    """Withdraw the kept annotations that Label Studio's task no longer has; returns how many.

    Answers from before that task was made were given to a former copy of it (Label Studio's project was removed and
    made again, say): nobody took them back, so they stay.
    """
    task_id = task.data.get("task_id")
    asked = asking.task(tx, task_id) if isinstance(task_id, str) else None
    if asked is None or (asked["project_id"], asked["queue"]) != (project.id, queue):
        return 0
    present = {str(raw.get("id")) for raw in task.annotations}
    count = 0
    for row in answers.annotations_of_task(tx, project.id, asked["id"]):
        if row["annotation_id"] in present or row["state"] == WITHDRAWN or row["answered_at"] < task.created_at:
            continue
        moment = max(task.updated_at, row["answered_at"] + dt.timedelta(microseconds=1))
        gone = {"answered_at": moment, "state": WITHDRAWN, "label": None, "reason": None, "collected_at": now}
        count += answers.add_annotation(tx, {**row, **gone})
    return count
