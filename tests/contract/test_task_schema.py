"""The file of a labelling task: design.md's fields, nothing that does not fit, the same bytes each time."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from closedloop import project as projects
from closedloop import queues, task_files, tasks
from closedloop.project import Project
from closedloop.task_files import TaskFile
from tests.conftest import START

PROMISED = {
    "image", "prediction_id", "image_id", "project", "queue", "ml_prediction", "confidence", "release",
    "user_feedback", "user_label", "source", "timestamp", "inclusion_probability",
}  # fmt: skip
IMAGE = "0123456789abcdef" * 2
TASK = "0d5c1a3e-7a54-4a37-9d53-3f6f0c8a1b2c"


def build(project: Project, **changes: Any) -> TaskFile:
    """The file of a task whose records are right but for `changes`."""
    task = {
        "id": TASK,
        "project_id": project.id,
        "image_id": IMAGE,
        "queue": queues.LOW_CONFIDENCE,
        "probability": 0.25,
        "user_feedback": None,
        "user_label": None,
        "created_at": START,
    }
    picture = {"key": f"production/{project.id}/class_01/{IMAGE}.jpg", "source": "upload"}
    answer = {
        "id": "f" * 32,
        "label": "dog",
        "confidence": 0.6,
        "probabilities": {"cat": 0.1, "dog": 0.6, "owl": 0.3},
        "release": "classifier-1",
    }
    rows = (task, picture, answer)
    for name, value in changes.items():
        next(row for row in rows if name in row)[name] = value
    return task_files.of_picture(project, task, picture, answer)


def test_a_task_has_the_promised_fields(pets: Project) -> None:
    file = json.loads(build(pets).to_bytes())
    data = file["data"]
    assert set(data) >= PROMISED
    assert (data["project"], data["queue"], data["ml_prediction"]) == ("pets", "low_confidence", "dog")
    assert (data["confidence"], data["inclusion_probability"]) == (0.6, 0.25)
    assert data["image"] == f"s3://production/pets/class_01/{IMAGE}.jpg"
    assert data["timestamp"] == "2026-03-01T12:00:00+00:00"
    assert file["predictions"][0]["result"][0]["value"] == {"choices": ["dog"]}


def test_the_same_task_has_the_same_bytes_and_key(pets: Project) -> None:
    assert build(pets).to_bytes() == build(pets).to_bytes()
    assert tasks.key("pets", "low_confidence", TASK) == f"labelstudio/tasks/pets/low_confidence/task_{TASK}.json"


def test_options_come_most_likely_first_with_a_key_each(pets: Project) -> None:
    options = build(pets).data.options
    assert [option.value for option in options] == ["dog", "owl", "cat", "unknown"]
    assert [option.hotkey for option in options] == ["1", "2", "3", "-"]


def test_with_many_classes_no_two_share_a_key() -> None:
    names = ", ".join(f"class {number}" for number in range(60))
    many = projects.parse_manifest(f"{{id: many, title: Many, kind: classification, classes: [{names}]}}")
    options = build(many, label="class 7", probabilities={"class 7": 0.6}).data.options
    keys = [option.hotkey for option in options if option.hotkey]
    assert len(options) == 61
    assert len(set(keys)) == len(keys) >= 30
    assert options[0].value == "class 7"


def test_without_a_model_nothing_is_suggested(pets: Project) -> None:
    equal = dict.fromkeys(("cat", "dog", "owl"), 1 / 3)
    file = build(pets, label=None, confidence=1 / 3, probabilities=equal, release=None)
    assert file.predictions == []
    assert [option.value for option in file.data.options] == ["cat", "dog", "owl", "unknown"]


@pytest.mark.parametrize(
    "changes",
    [
        {"confidence": float("nan")},
        {"confidence": float("inf")},
        {"confidence": 1.01},
        {"probability": 0.0},
        {"probability": float("nan")},
        {"key": f"elsewhere/pets/class_01/{IMAGE}.jpg"},
        {"key": f"production/pets/../cats/{IMAGE}.jpg"},
        {"key": f"production/pets/class_01/{IMAGE}.jpg.exe"},
        {"key": "production/pets/class_01/short.jpg"},
        pytest.param({"key": f"production/cats/class_01/{IMAGE}.jpg"}),
        pytest.param({"key": f"production/pets/class_01/{'f' * 32}.jpg"}),
        {"image_id": "../../etc/passwd"},
        {"source": None},
    ],
    ids=str,
)
def test_what_does_not_fit_is_never_delivered(pets: Project, changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        build(pets, **changes)


@pytest.mark.parametrize(
    ("feedback", "label", "says"),
    [(None, None, ""), ("flagged", None, "The visitor said that this is wrong."), (None, "owl", "The visitor said: owl"),
     ("flagged", "owl", "The visitor said: owl")],
)  # fmt: skip
def test_annotators_read_sentences_and_never_null(
    pets: Project, feedback: str | None, label: str | None, says: str
) -> None:
    assert task_files._visitor_says(feedback, label) == says
    equal = dict.fromkeys(pets.classes, 1 / 3)
    nobody = build(pets, label=None, confidence=1 / 3, probabilities=equal, release=None)
    assert nobody.data.model_says == "No model could answer."
    assert build(pets).data.model_says.startswith("The model said: ")
