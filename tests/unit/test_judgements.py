"""What an annotation's result is believed to say, in each queue."""

from typing import Any

import pytest

from closedloop import judgements
from closedloop.crops import Box
from closedloop.project import Project
from closedloop.task_files import NONE_IS_GOOD

IN_SET = ["a" * 32, "b" * 32, "c" * 32]


def chosen(value: Any, name: str = "choice") -> list:
    return [{"from_name": name, "value": {"choices": [value]}}]


def drawn(name: str = "box", **value: Any) -> list:
    return [{"from_name": name, "value": {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 0, **value}}]


def judge(project: Project, queue: str, result: Any, cancelled: bool = False) -> tuple[str, str | None]:
    said = judgements.judge(project, queue, cancelled, result, IN_SET)
    assert (said.reason is not None) == (said.state == "refused")
    return said.state, said.label


def test_a_number_is_the_picture_at_its_place(pets: Project) -> None:
    assert judge(pets, "selection", chosen("2")) == ("answered", "b" * 32)
    assert judge(pets, "selection", chosen(NONE_IS_GOOD)) == ("none", None)


def test_a_box_is_kept_as_fractions(pets: Project) -> None:
    state, label = judge(pets, "crop", drawn())
    assert (state, Box.from_text(str(label))) == ("answered", Box(0.1, 0.2, 0.4, 0.6))


@pytest.mark.parametrize("queue", ["selection", "crop", "low_confidence"])
def test_a_skip_is_looked_at_before_the_untouched_suggestion(pets: Project, queue: str) -> None:
    assert judge(pets, queue, chosen("1"), cancelled=True) == ("skipped", None)


@pytest.mark.parametrize(
    ("queue", "result"),
    [
        ("selection", chosen("0")),
        ("selection", chosen("4")),
        ("selection", chosen("")),
        ("selection", chosen(1)),
        ("selection", chosen(["1"])),
        ("selection", chosen("a" * 32)),
        ("selection", chosen("1", name="elsewhere")),
        ("selection", drawn()),
        ("crop", chosen("1")),
        ("crop", []),
        ("crop", drawn() + drawn()),
        ("crop", drawn(rotation=12)),
        ("crop", drawn(rotation="0; drop")),
        ("crop", drawn(x="10")),
        ("crop", drawn(width=-5)),
        ("crop", drawn(width=float("nan"))),
        ("crop", drawn(x=95)),
        ("crop", drawn(height=0.2)),
        ("crop", drawn(name="image")),
        ("crop", [{"from_name": "box"}]),
        ("crop", [{"from_name": "box", "value": "x"}]),
        ("crop", None),
        ("low_confidence", drawn()),
    ],
    ids=str,
)
def test_what_nobody_asked_is_refused_with_its_reason(pets: Project, queue: str, result: Any) -> None:
    assert judge(pets, queue, result)[0] == "refused"
