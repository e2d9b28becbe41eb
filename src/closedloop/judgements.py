"""What an annotation's result says, by the queue in which it was asked. Nothing is believed that no record knows.

A skipped task still carries the untouched suggestion as its result, so skipping is looked at first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from closedloop.crops import Box
from closedloop.errors import UnusableBox
from closedloop.project import UNKNOWN, Project
from closedloop.queues import CROP, SELECTION
from closedloop.task_files import BOX, CHOICE, NONE_IS_GOOD
from closedloop.votes import ANSWERED, NONE, REFUSED, SKIPPED, UNSURE


@dataclass(frozen=True)
class Judgement:
    """What an annotation means for the loop."""

    state: str
    label: str | None = None  # a class; the id of the picture that is best; a box as JSON
    reason: str | None = None


def judge(project: Project, queue: str, was_cancelled: bool, result: Any, in_set: Sequence[str] = ()) -> Judgement:
    """What an annotation in a queue says; `in_set` are the pictures of the set that it was asked about, in order."""
    if was_cancelled:
        return Judgement(SKIPPED)
    if not isinstance(result, list) or len(result) != 1 or not isinstance(result[0], dict):
        return Judgement(REFUSED, reason="not exactly one result")
    value = result[0].get("value")
    value = value if isinstance(value, dict) else {}
    if queue == CROP:
        return _box(result[0].get("from_name"), value)
    choices = value.get("choices")
    if result[0].get("from_name") != CHOICE or not isinstance(choices, list) or len(choices) != 1:
        return Judgement(REFUSED, reason="not exactly one choice")
    return _pick(choices[0], in_set) if queue == SELECTION else _class(choices[0], project)


def _class(label: Any, project: Project) -> Judgement:
    if label == UNKNOWN:
        return Judgement(UNSURE)
    if label not in project.classes:
        return Judgement(REFUSED, reason=f"not a class of the project: {str(label)[:100]!r}")
    return Judgement(ANSWERED, label)


def _pick(choice: Any, in_set: Sequence[str]) -> Judgement:
    if choice == NONE_IS_GOOD:
        return Judgement(NONE)
    numbered = {str(number): image_id for number, image_id in enumerate(in_set, start=1)}
    if not isinstance(choice, str) or choice not in numbered:
        return Judgement(REFUSED, reason=f"not a picture of the set: {str(choice)[:100]!r}")
    return Judgement(ANSWERED, numbered[choice])


def _box(name: Any, value: dict[str, Any]) -> Judgement:
    if name != BOX or value.get("rotation") not in (None, 0, 0.0):
        return Judgement(REFUSED, reason="not a box, or one that is turned")
    try:
        box = Box.from_percent(value.get("x"), value.get("y"), value.get("width"), value.get("height"))
    except UnusableBox as error:
        return Judgement(REFUSED, reason=str(error))
    except OverflowError:  # JSON knows whole numbers of any length
        return Judgement(REFUSED, reason="a box with a number that is too large")
    return Judgement(ANSWERED, box.as_text())
