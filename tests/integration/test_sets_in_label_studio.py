"""Sets and crops in the real Label Studio: shown with every picture and the suggestion, answered, collected once."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from closedloop import crops, outbox, removal, selections, sets
from closedloop import project as projects
from closedloop.project import Project
from closedloop.task_files import MODEL_VERSION, NONE_IS_GOOD
from tests.integration.stack import FAR, Loop, StandIn, now

SCENES = "scenes-ls"
Make = Callable[..., bytes]


@pytest.fixture(scope="module")
def scenes(loop: Loop, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project of sets that asks about each, whose schedules do not come by themselves."""
    file = tmp_path_factory.mktemp("scenes") / "scenes.yaml"
    file.write_text(
        f"id: {SCENES}\ntitle: Which one?\nkind: selection\nask: {{random_share: 1.0, least_sure: 0}}\n"
        f"sync: {{cron: {FAR}}}\ntrain: {{cron: {FAR}}}\n"
    )
    loop.installation.command("project", "add", str(file))
    return projects.get(loop.stores, SCENES)


def send(loop: Loop, scenes: Project, *files: bytes) -> sets.PictureSet:
    """A set that inference has answered, and its task in Label Studio."""
    made = sets.receive(loop.stores, StandIn(), scenes, files, now())  # type: ignore[arg-type]
    brought(loop, scenes)
    return made


def brought(loop: Loop, scenes: Project) -> None:
    outbox.work(loop.stores, StandIn(), now)  # type: ignore[arg-type]
    loop.wait_delivered(scenes.id)
    assert loop.round(scenes.id).faults == []


def task_of(loop: Loop, queue: str, column: str, subject: str) -> dict[str, Any]:
    """Label Studio's task about a set or a picture."""
    (row,) = loop.sql(
        f"SELECT id FROM tasks WHERE project_id = :p AND queue = :q AND {column} = :s", p=SCENES, q=queue, s=subject
    )
    return loop.task(loop.number(SCENES, queue), row.id)


def submit(loop: Loop, task: int, *result: dict[str, Any], **more: Any) -> int:
    body = {"result": list(result), "lead_time": 2.0, **more}
    return loop.ls.post(f"/api/tasks/{task}/annotations/", json=body).raise_for_status().json()["id"]


def pick(value: str) -> dict[str, Any]:
    return {"from_name": "choice", "to_name": "question", "type": "choices", "value": {"choices": [value]}}


def box(**value: float) -> dict[str, Any]:
    size = {"original_width": 64, "original_height": 48, "image_rotation": 0}
    drawn = {"rotation": 0, "rectanglelabels": ["crop"], **value}
    return {"from_name": "box", "to_name": "image", "type": "rectanglelabels", "value": drawn, **size}


def test_every_picture_of_a_set_is_shown_and_the_suggestion_is_preselected(
    loop: Loop, scenes: Project, picture: Make
) -> None:
    made = send(loop, scenes, picture(1), picture(2, (300, 200)), picture(3))
    task = task_of(loop, "selection", "set_id", made.id)
    for option in task["data"]["options"][:3]:
        (address,) = re.findall(r'src="([^"]+)"', option["html"])
        shown = loop.ls.get(address, follow_redirects=True)
        assert shown.status_code == 200
        assert shown.headers["content-type"] == "image/jpeg"
    (suggestion,) = task["predictions"]
    assert suggestion["result"][0]["value"] == {"choices": ["2"]}
    project = loop.ls.get(f"/api/projects/{loop.number(SCENES, 'selection')}").json()
    assert (project["model_version"], project["show_collab_predictions"]) == (MODEL_VERSION, True)


def test_from_the_pick_to_the_crop(loop: Loop, scenes: Project, picture: Make) -> None:
    made = send(loop, scenes, picture(11), picture(12, (300, 200)))
    submit(loop, task_of(loop, "selection", "set_id", made.id)["id"], pick("2"))
    loop.round(scenes.id)
    brought(loop, scenes)
    task = task_of(loop, "crop", "image_id", made.image_ids[1])
    assert loop.ls.get(task["data"]["image"], follow_redirects=True).status_code == 200
    (suggestion,) = task["predictions"]
    value = suggestion["result"][0]["value"]
    assert (value["x"], value["y"], value["width"]) == (pytest.approx(10), pytest.approx(20), pytest.approx(70))
    submit(loop, task["id"], box(x=10, y=10, width=50, height=60))
    assert loop.round(scenes.id).answers_collected + loop.round(scenes.id).answers_reconciled <= 1
    (item,) = [one for one in crops.settled_items(loop.stores, scenes) if one.image_id == made.image_ids[1]]
    assert item.box == crops.Box(0.1, 0.1, 0.6, 0.7)
    (chosen,) = [one.chosen for one in selections.settled_items(loop.stores, scenes) if one.set_id == made.id]
    assert chosen == made.image_ids[1]


def test_none_is_good_skips_and_what_nobody_asked(loop: Loop, scenes: Project, picture: Make) -> None:
    made = [send(loop, scenes, picture(seed), picture(seed + 1)) for seed in (21, 23, 25)]
    tasks = [task_of(loop, "selection", "set_id", one.id) for one in made]
    submit(loop, tasks[0]["id"], pick(NONE_IS_GOOD))
    submit(loop, tasks[1]["id"], pick("1"), was_cancelled=True)
    submit(loop, tasks[2]["id"], pick("7"))
    loop.round(scenes.id)
    states = [loop.sql("SELECT state FROM annotations WHERE task_id = :t", t=t["data"]["task_id"]) for t in tasks]
    assert [row.state for (row,) in states] == ["none", "skipped", "refused"]
    settled = {one.set_id for one in selections.settled_items(loop.stores, scenes)}
    assert not settled & {one.id for one in made}


def test_an_edit_counts_and_a_deleted_answer_is_withdrawn(loop: Loop, scenes: Project, picture: Make) -> None:
    made = send(loop, scenes, picture(31), picture(32))
    task = task_of(loop, "selection", "set_id", made.id)
    annotation = submit(loop, task["id"], pick("1"))
    loop.round(scenes.id)
    loop.ls.patch(f"/api/annotations/{annotation}/", json={"result": [pick("2")]}).raise_for_status()
    loop.round(scenes.id)
    (item,) = [one for one in selections.settled_items(loop.stores, scenes) if one.set_id == made.id]
    assert item.chosen == made.image_ids[1]
    loop.ls.delete(f"/api/annotations/{annotation}/").raise_for_status()
    loop.round(scenes.id)
    assert made.id not in {one.set_id for one in selections.settled_items(loop.stores, scenes)}


def test_a_removed_set_goes_from_label_studio(loop: Loop, scenes: Project, picture: Make) -> None:
    made = send(loop, scenes, picture(41), picture(42))
    task = task_of(loop, "selection", "set_id", made.id)
    submit(loop, task["id"], pick("1"))
    loop.round(scenes.id)
    removal.remove_set(loop.stores, made.id, "owner", now())
    outbox.work(loop.stores, StandIn(), now)  # type: ignore[arg-type]
    loop.round(scenes.id)
    ours = task["data"]["task_id"]
    assert ours not in {one["data"]["task_id"] for one in loop.tasks(loop.number(SCENES, "selection"))}
    left = [one.key for one in loop.stores.objects.list(f"labelstudio/tasks/{SCENES}") if ours in one.key]
    assert left == []


def test_the_configs_are_what_label_studio_takes(loop: Loop, scenes: Project) -> None:
    for queue in ("selection", "crop"):
        said = loop.ls.get(f"/api/projects/{loop.number(SCENES, queue)}").json()
        config = (Path(__file__).parents[2] / "label_studio" / f"{queue}.xml").read_text(encoding="utf-8").strip()
        assert said["label_config"] == config
