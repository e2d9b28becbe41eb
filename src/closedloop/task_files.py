"""The JSON of a labelling task, by queue: what a picture shows, which picture of a set is best, which part to keep."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from closedloop.project import UNKNOWN, Project
from closedloop.queues import CROP, SELECTION

HOTKEYS = "1234567890qwertyuiopasdfghjklzxcvbnm"
UNKNOWN_HOTKEY = "-"
MODEL_VERSION = "closedloop"  # one for all releases: Label Studio preselects the answers of a single version only
CHOICE, IMAGE, QUESTION = "choice", "image", "question"  # the names in label_studio/*.xml
BOX, PART = "box", "crop"
NONE_IS_GOOD = "none is good"
_PICTURE = r"^s3://production/[a-z0-9-]+/(class_\d{2,3}|unclassified)/[0-9a-f]{32}\.jpg$"
_ID = r"^[0-9a-f]{32}$"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Option(_Part):
    """One answer that an annotator may give; `html` shows it where its name is not enough."""

    value: str = Field(min_length=1)
    hotkey: str | None = None


class PictureOption(Option):
    """One picture of a set as an answer, or that none is good."""

    html: str


class _Data(_Part):
    """What comes back with an annotation of any queue: Label Studio keeps `data` and loses the rest."""

    task_id: str
    project: str
    queue: str
    confidence: float | None = Field(ge=0, le=1)
    model_says: str  # for the annotator: the answer, as a sentence
    release: str | None
    source: str
    timestamp: str
    inclusion_probability: float = Field(gt=0, le=1)


class _OfPicture(_Data):
    image: str = Field(pattern=_PICTURE)
    image_id: str = Field(pattern=_ID)

    @model_validator(mode="after")
    def _image_is_its_own(self) -> "_OfPicture":
        folder, file = f"s3://production/{self.project}/", f"/{self.image_id}.jpg"
        if not (self.image.startswith(folder) and self.image.endswith(file)):
            raise ValueError("the image is not that of this task")
        return self


class TaskData(_OfPicture):
    """What does a picture show?"""

    prediction_id: str
    ml_prediction: str | None
    visitor_says: str
    user_feedback: str | None
    user_label: str | None
    options: list[Option] = Field(min_length=2)


class SetData(_Data):
    """Which picture of a set is best?"""

    set_id: str = Field(pattern=_ID)
    image_ids: list[str] = Field(min_length=2, max_length=12)
    ml_best: str | None
    reason: str
    question: str
    options: list[PictureOption] = Field(min_length=3, max_length=13)


class CropData(_OfPicture):
    """Which part of a picture should stay?"""

    ml_box: dict[str, float] | None
    reason: str


class Suggestion(_Part):
    """The model's answer as pre-annotation, in Label Studio's own shape."""

    model_version: str
    score: float = Field(ge=0, le=1)
    result: list[dict[str, Any]]


class TaskFile(_Part):
    """The whole file; nothing is delivered that does not fit this schema."""

    data: TaskData | SetData | CropData
    predictions: list[Suggestion] = Field(max_length=1)

    def to_bytes(self) -> bytes:
        """The file's bytes, always the same for the same task."""
        return json.dumps(self.model_dump(), ensure_ascii=False, sort_keys=True, allow_nan=False).encode()


def config(project: Project, queue: str) -> str:
    """The name of the label config (label_studio/<name>.xml) of a queue."""
    return queue if queue in (SELECTION, CROP) else project.kind


def of_picture(project: Project, task: Any, picture: Any, answer: Any) -> TaskFile:
    """The question what a picture shows. Raises pydantic.ValidationError where it would not fit its schema."""
    probabilities = answer["probabilities"] or {}
    likeliest_first = sorted(
        project.classes, key=lambda name: (-probabilities.get(name, 0.0), project.classes.index(name))
    )
    hotkeys = iter(HOTKEYS)
    options = [{"value": name, "hotkey": next(hotkeys, None)} for name in likeliest_first]
    options.append({"value": UNKNOWN, "hotkey": UNKNOWN_HOTKEY})
    label, confidence = answer["label"], answer["confidence"]
    data = {
        **_common(task, picture["source"], answer["release"], confidence),
        "image": f"s3://{picture['key']}",
        "image_id": task["image_id"],
        "prediction_id": answer["id"],
        "ml_prediction": label,
        "model_says": NOBODY if label is None else f"The model said: {label} ({confidence:.0%})",
        "visitor_says": _visitor_says(task["user_feedback"], task["user_label"]),
        "user_feedback": task["user_feedback"],
        "user_label": task["user_label"],
        "options": options,
    }
    return _file(data, confidence, _choice(label, IMAGE) if label else None)


def of_set(task: Any, source: str, pictures: Sequence[Any], suggestion: Any) -> TaskFile:
    """The question which picture of a set is best. `pictures` are the records in the set's order, `suggestion` the
    newest, or None. Raises pydantic.ValidationError where it would not fit its schema.
    """
    ids = [picture["id"] for picture in pictures]
    best = suggestion["best"] if suggestion else None
    confidence = suggestion["confidence"] if best else None
    numbers = [str(number) for number in range(1, len(ids) + 1)]
    hotkeys = iter(HOTKEYS)
    options = [
        {"value": number, "hotkey": next(hotkeys), "html": _shown(number, picture["key"])}
        for number, picture in zip(numbers, pictures, strict=True)
    ]
    options.append({"value": NONE_IS_GOOD, "hotkey": UNKNOWN_HOTKEY, "html": f"<b>{NONE_IS_GOOD}</b>"})
    chosen = numbers[ids.index(best)] if best else None
    data = {
        **_common(task, source, suggestion["release"] if suggestion else None, confidence),
        "set_id": task["set_id"],
        "image_ids": ids,
        "ml_best": best,
        "model_says": NOBODY if chosen is None else f"The model said: picture {chosen} ({confidence:.0%})",
        "reason": task["reason"],
        "question": "Which of these pictures is the best?",
        "options": options,
    }
    return _file(data, confidence, _choice(chosen, QUESTION) if chosen else None)


def of_crop(task: Any, picture: Any, proposal: Any) -> TaskFile:
    """The question which part of a picture should stay; `proposal` is the newest, or None.

    Raises pydantic.ValidationError where it would not fit its schema.
    """
    box = proposal and {name: proposal[name] for name in ("x1", "y1", "x2", "y2")}
    confidence = proposal["confidence"] if proposal else None
    data = {
        **_common(task, picture["source"], proposal["release"] if proposal else None, confidence),
        "image": f"s3://{picture['key']}",
        "image_id": task["image_id"],
        "ml_box": box,
        "model_says": NOBODY if box is None else f"The model drew a box (expected overlap {confidence:.0%})",
        "reason": task["reason"],
    }
    return _file(data, confidence, box and _rectangle(box, picture["width"], picture["height"]))


NOBODY = "No model could answer."


def _common(task: Any, source: str, release: str | None, confidence: float | None) -> dict[str, Any]:
    return {
        "task_id": task["id"],
        "project": task["project_id"],
        "queue": task["queue"],
        "confidence": confidence,
        "release": release,
        "source": source,
        "timestamp": task["created_at"].isoformat(),
        "inclusion_probability": task["probability"],
    }


def _file(data: Mapping[str, Any], score: float | None, result: dict[str, Any] | None) -> TaskFile:
    suggestion = {"model_version": MODEL_VERSION, "score": score, "result": [result]}
    return TaskFile.model_validate({"data": data, "predictions": [suggestion] if result else []})


def _choice(value: str, of: str) -> dict[str, Any]:
    chosen = {"value": {"choices": [value]}, "id": "suggestion"}
    return {"from_name": CHOICE, "to_name": of, "type": "choices", **chosen}


def _rectangle(box: Mapping[str, float], width: int, height: int) -> dict[str, Any]:
    corner = {"x": 100 * box["x1"], "y": 100 * box["y1"]}
    size = {"width": 100 * (box["x2"] - box["x1"]), "height": 100 * (box["y2"] - box["y1"])}
    return {
        "from_name": BOX,
        "to_name": IMAGE,
        "type": "rectanglelabels",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {**corner, **size, "rotation": 0, "rectanglelabels": [PART]},
        "id": "suggestion",
    }


def _shown(number: str, key: str) -> str:
    """A picture of a set as an option. Label Studio finds one s3:// in a string, up to the last quote before a "="."""
    return f'<figure class="cl-option"><img src="s3://{key}" alt="" /><figcaption>{number}</figcaption></figure>'


def _visitor_says(user_feedback: str | None, user_label: str | None) -> str:
    if user_label:
        return f"The visitor said: {user_label}"
    return "The visitor said that this is wrong." if user_feedback else ""
