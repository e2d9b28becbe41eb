"""Rounds with the real Label Studio: everything arrives once, and what is broken is named and mended."""

import io
import json
import sqlite3
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urljoin

import httpx
import numpy as np
import pytest
from PIL import Image

from closedloop import removal
from closedloop.task_files import MODEL_VERSION
from demo.installation import live_release
from demo.people import label_studio_projects
from tests.integration.stack import Loop, choice, now
from tests.waiting import wait_for

QUEUES = ("random_sample", "low_confidence", "user_feedback", "user_label")
COLOURS = {"cat": (200, 60, 60), "dog": (60, 200, 60), "owl": (60, 60, 200)}
PETS = "pets-ls"
Make = Callable[..., bytes]


def coloured(label: str, seed: int) -> bytes:
    """A picture that even a small model tells from the other classes'."""
    noise = np.random.default_rng(seed).integers(-50, 50, (6, 8, 3))
    pixels = np.clip(np.array(COLOURS[label]) + noise, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((64, 48), Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def pets(loop: Loop, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A project with a live release, learnt from a folder of pictures."""
    folder = tmp_path_factory.mktemp("pets")
    loop.add_project(PETS, folder)
    for label in COLOURS:
        (folder / "pictures" / label).mkdir(parents=True)
        for seed in range(8):
            (folder / "pictures" / label / f"{seed}.png").write_bytes(coloured(label, seed))
    assert loop.installation.command("import", PETS, str(folder / "pictures"))["added"] == 24
    release = loop.installation.command("train", PETS)
    assert release["released"], release
    wait_for(lambda: live_release(loop.installation, PETS) == release["release"], 15, "inference serves the release")
    return PETS


def test_four_projects_with_their_storages(loop: Loop, pets: str) -> None:
    titles = Counter(one["title"] for one in label_studio_projects(loop.ls))
    for project in ("food11", pets):
        for queue in QUEUES:
            assert titles[f"{project} / {queue}"] == 1
            number = loop.number(project, queue)
            sources = loop.storages(number)
            assert sources["pictures"]["bucket"] == "production"
            assert sources["tasks"]["prefix"] == f"tasks/{project}/{queue}"
            targets = loop.ls.get("/api/storages/export/s3", params={"project": number}).json()
            assert [(t["title"], t["prefix"]) for t in targets] == [("answers", f"output/{project}/{queue}")]
            for storage in (*sources.values(), *targets):  # no secret of ours in its records
                assert not storage.get("aws_access_key_id")
                assert not storage.get("s3_endpoint")


def test_sign_up_is_closed(loop: Loop) -> None:
    with httpx.Client(base_url=loop.url, trust_env=False, timeout=30) as stranger:
        page = stranger.get("/user/signup/")
        form = {"email": "stranger@example.org", "password": "a long password 1", "allow_newsletters": "false"}
        token = {"csrfmiddlewaretoken": stranger.cookies.get("csrftoken", "")}
        answer = stranger.post("/user/signup/", data=form | token, headers={"Referer": loop.url})
        assert page.status_code == answer.status_code == 403 or answer.status_code == 403, (page, answer)
    users = [user["email"] for user in loop.ls.get("/api/users").json()]
    assert users == ["admin@closedloop.local"]


def test_a_task_arrives_with_its_suggestion_and_its_picture(loop: Loop, pets: str) -> None:
    said = loop.upload(pets, coloured("owl", 101))
    assert said["label"] == "owl"
    loop.flag(said["prediction_id"])
    loop.wait_delivered(pets)
    assert loop.round(pets).faults == []
    number = loop.number(pets, "user_feedback")
    task = next(t for t in loop.tasks(number) if t["data"]["image_id"] == said["image_id"])
    data = task["data"]
    assert data["prediction_id"] == said["prediction_id"]
    assert (data["ml_prediction"], data["release"], data["user_feedback"]) == ("owl", said["release"], "flagged")
    assert data["options"][0]["value"] == "owl"
    (suggestion,) = task["predictions"]
    assert suggestion["result"][0]["value"] == {"choices": ["owl"]}
    assert suggestion["score"] == pytest.approx(said["confidence"])
    project = loop.ls.get(f"/api/projects/{number}").json()
    assert project["model_version"] == suggestion["model_version"] == MODEL_VERSION
    assert project["show_collab_predictions"]
    shown = loop.ls.get(data["image"], follow_redirects=True)
    assert shown.status_code == 200
    (row,) = loop.sql("SELECT key, bytes FROM images WHERE id = :i", i=said["image_id"])
    assert shown.content == loop.stores.objects.get(row.key)
    assert Image.open(io.BytesIO(shown.content)).format == "JPEG"
    stranger = httpx.get(urljoin(loop.url, data["image"]), trust_env=False, timeout=30)
    assert stranger.status_code in (401, 403)


def test_what_does_not_belong_among_the_tasks_is_put_aside_and_named(loop: Loop, pets: str) -> None:
    prefix = f"labelstudio/tasks/{pets}/user_feedback"
    ids = loop.ask_about(pets, [coloured("cat", 201), coloured("dog", 202), coloured("owl", 203)])
    foreign = {
        f"{prefix}/aaa.json": b'{"data": {"image": "x"}',
        f"{prefix}/notes.txt": b"to do",
        f"{prefix}/deep/er.json": b"[]",
        f"{prefix}/task_00000000-0000-0000-0000-000000000000.json": b'{"data": {"text": "not asked"}}',
    }
    for key, data in foreign.items():
        loop.stores.objects.put(key, data)
    changed = f"{prefix}/task_{ids[0]}.json"
    former = loop.stores.objects.get(changed)
    loop.stores.objects.put(changed, former[:-20])
    loop.stores.objects.remove(f"{prefix}/task_{ids[1]}.json")
    done = loop.round(pets)
    assert done.faults == []
    assert {entry.split(": ")[0] for entry in done.quarantined} == {*foreign, changed}
    number = loop.number(pets, "user_feedback")
    for id_ in ids:  # the others arrive, and so do those that were damaged or lost
        loop.task(number, id_)
    assert not any("not asked" in json.dumps(task["data"]) for task in loop.tasks(number))
    assert loop.stores.objects.get(changed) == former
    for key, data in foreign.items():
        assert not loop.stores.objects.exists(key)
        assert loop.stores.objects.get(key.replace("/tasks/", "/quarantine/")) == data
    findings = loop.installation.command("doctor")["findings"]
    (finding,) = [one for one in findings if one["part"] == "collected objects"]
    for key in (*foreign, changed):
        assert key in finding["seen"]


def test_a_sync_that_was_left_half_way_is_taken_up(loop: Loop, pets: str) -> None:
    (id_,) = loop.ask_about(pets, [coloured("cat", 301)])
    number = loop.number(pets, "user_feedback")
    storage = loop.storages(number)["tasks"]["id"]
    records = sqlite3.connect(loop.installation.home / "label-studio" / "label_studio.sqlite3", timeout=30)
    with records:
        for status in ("queued", "in_progress"):
            meta = json.dumps({"attempts": 1, "time_queued": "2026-01-01 00:00:00+00:00"})
            query = "UPDATE io_storages_s3importstorage SET status = ?, meta = ? WHERE id = ?"
            assert records.execute(query, (status, meta, storage)).rowcount == 1
    records.close()
    assert loop.storages(number)["tasks"]["status"] == "in_progress"
    assert loop.round(pets).faults == []
    loop.task(number, id_)


def test_a_sync_that_is_going_on_is_left_alone(loop: Loop, pets: str) -> None:
    (id_,) = loop.ask_about(pets, [coloured("cat", 302)])
    number = loop.number(pets, "user_feedback")
    storage = loop.storages(number)["tasks"]["id"]
    running = {"status": "in_progress", "meta": {"time_last_ping": str(now()), "time_in_progress": str(now())}}
    records = sqlite3.connect(loop.installation.home / "label-studio" / "label_studio.sqlite3", timeout=30)
    with records:
        query = "UPDATE io_storages_s3importstorage SET status = ?, meta = ? WHERE id = ?"
        records.execute(query, (running["status"], json.dumps(running["meta"]), storage))
    assert len(loop.round(pets).faults) == 1
    assert id_ not in {task["data"]["task_id"] for task in loop.tasks(number)}
    with records:
        records.execute("UPDATE io_storages_s3importstorage SET status = 'completed' WHERE id = ?", (storage,))
    records.close()
    assert loop.round(pets).faults == []
    loop.task(number, id_)


class TestAnswers:
    @pytest.fixture(scope="class")
    def asked(self, loop: Loop, pets: str) -> list[tuple[str, int]]:
        """(our id, Label Studio's id) of nine tasks that nobody has answered."""
        ids = loop.ask_about(pets, [coloured("dog", 400 + n) for n in range(9)])
        loop.round(pets)
        number = loop.number(pets, "user_feedback")
        there = {task["data"]["task_id"]: task["id"] for task in loop.tasks(number)}
        return [(id_, there[id_]) for id_ in ids]

    def test_every_kind_of_answer(self, loop: Loop, pets: str, asked: list[tuple[str, int]]) -> None:
        plain, edited, skipped, twice, unsure, foreign, empty, unwritten, undone = asked
        output = f"labelstudio/output/{pets}/user_feedback"
        a = str(loop.annotate(plain[1], "cat"))
        b = str(loop.annotate(edited[1], "cat"))
        c = str(loop.annotate(skipped[1], "dog", was_cancelled=True))
        d, e = str(loop.annotate(twice[1], "cat")), str(loop.annotate(twice[1], "owl"))
        f = str(loop.annotate(unsure[1], "unknown"))
        g = str(loop.annotate(foreign[1], "zebra"))
        h = str(loop.annotate(empty[1], "", result=[]))
        i = str(loop.annotate(unwritten[1], "owl"))
        j = str(loop.annotate(undone[1], "owl"))
        loop.ls.delete(f"/api/annotations/{j}/").raise_for_status()  # Label Studio leaves its object where it is
        poison = {
            "garbage": b"\xff\xfe not json",
            "list": b"[]",
            "deep": b"[" * 100_000,
            "stranger": json.dumps(
                {"id": 1, "task": {"data": {"task_id": "none"}}, "updated_at": "2026-01-01"}
            ).encode(),
            "huge": json.dumps(
                {
                    "id": 10**60,
                    "completed_by": 10**60,
                    "result": [],
                    "updated_at": "0001-01-01T00:00:00+14:00",
                    "task": {"data": {"task_id": plain[0]}},
                }
            ).encode(),
            "early": json.dumps(
                {
                    "id": 2**40,
                    "result": choice("cat"),
                    "updated_at": "0001-01-01T00:00:00+14:00",
                    "task": {"data": {"task_id": plain[0]}},
                }
            ).encode(),
            "nul": json.dumps(
                {"id": 7, "updated_at": "2026-01-01T00:00:00Z", "task": {"data": {"task_id": "\0\ud800"}}}
            ).encode(),
        }
        for name, data in poison.items():
            loop.stores.objects.put(f"{output}/{name}", data)
        loop.stores.objects.remove(f"{output}/{i}")  # as if the store was down at submit: only the API knows

        done = loop.round(pets)
        assert done.faults == []
        assert done.answers_collected == 9
        assert done.answers_reconciled == 1
        assert loop.states(plain[0]) == {a: ("answered", "cat")}
        assert loop.states(skipped[0]) == {c: ("skipped", None)}
        assert loop.states(twice[0]) == {d: ("answered", "cat"), e: ("answered", "owl")}
        assert loop.states(unsure[0]) == {f: ("unknown", None)}
        assert loop.states(foreign[0]) == {g: ("refused", None)}
        assert loop.states(empty[0]) == {h: ("refused", None)}
        assert loop.states(unwritten[0]) == {i: ("answered", "owl")}
        assert loop.states(undone[0]) == {j: ("withdrawn", None)}
        (refused,) = loop.sql("SELECT reason FROM annotations WHERE annotation_id = :a", a=g)
        assert "zebra" in refused.reason
        problems = {
            row.key: row.problem for row in loop.sql("SELECT key, problem FROM collected_objects") if row.problem
        }
        for name in poison:
            assert problems[f"{output}/{name}"]
        seen = next(f for f in loop.installation.command("doctor")["findings"] if f["part"] == "collected objects")
        assert f"{output}/garbage" in seen["seen"]

        # An edit is a new version, and the newest counts; a deleted answer is withdrawn.
        loop.ls.patch(f"/api/annotations/{b}/", json={"result": choice("owl")}).raise_for_status()
        loop.ls.delete(f"/api/annotations/{a}/").raise_for_status()
        done = loop.round(pets)
        assert done.answers_collected + done.answers_reconciled == 1
        assert loop.states(edited[0]) == {b: ("answered", "owl")}
        assert len(loop.sql("SELECT 1 FROM annotations WHERE annotation_id = :b", b=b)) == 2
        assert loop.states(plain[0]) == {a: ("withdrawn", None)}

        # Nothing is collected twice.
        before = loop.sql("SELECT annotation_id, answered_at, state, label FROM annotations ORDER BY 1, 2")
        for _ in range(2):
            done = loop.round(pets)
            assert (done.answers_collected, done.answers_reconciled) == (0, 0)
        assert loop.sql("SELECT annotation_id, answered_at, state, label FROM annotations ORDER BY 1, 2") == before

    def test_one_that_label_studio_saved_half_way(self, loop: Loop, pets: str) -> None:
        """Its storage fails at submit: the answer is saved, its task looks untouched, and another one follows it."""
        half, whole = loop.ask_about(pets, [coloured("cat", 450), coloured("cat", 451)])
        loop.round(pets)
        number = loop.number(pets, "user_feedback")
        first, second = loop.task(number, half)["id"], loop.task(number, whole)["id"]
        records = sqlite3.connect(loop.installation.home / "label-studio" / "label_studio.sqlite3", timeout=30)
        away = "UPDATE io_storages_s3exportstorage SET bucket = ? WHERE project_id = ?"
        with records:
            records.execute("UPDATE task SET updated_at = '2026-01-01 00:00:00' WHERE id = ?", (first,))
            records.execute(away, ("nowhere", number))
        said = loop.ls.post(f"/api/tasks/{first}/annotations/", json={"result": choice("cat")})
        with records:
            records.execute(away, ("labelstudio", number))
        records.close()
        assert said.status_code == 500
        (saved,) = loop.ls.get(f"/api/tasks/{first}/annotations/").json()
        answered = str(loop.annotate(second, "owl"))
        loop.round(pets)
        assert loop.states(whole) == {answered: ("answered", "owl")}
        assert loop.states(half) == {str(saved["id"]): ("answered", "cat")}

    def test_what_counts_in_training(self, loop: Loop, pets: str, asked: list[tuple[str, int]]) -> None:
        from closedloop import labels
        from closedloop import project as projects

        items = {
            item.image_id: item.label for item in labels.settled_items(loop.stores, projects.get(loop.stores, pets))
        }
        images = [loop.sql("SELECT image_id FROM tasks WHERE id = :t", t=id_)[0].image_id for id_, _ in asked]
        counted = [items.get(image) for image in images]
        #          plain edited skipped twice(newest) unsure foreign empty unwritten undone
        assert counted == [None, "owl", None, "owl", None, None, None, "owl", None]


class TestRepair:
    """Somebody removes what Closedloop made in Label Studio."""

    PROJECT = "repair-ls"

    @pytest.fixture(scope="class")
    def mended(self, loop: Loop, tmp_path_factory: pytest.TempPathFactory) -> str:
        loop.add_project(self.PROJECT, tmp_path_factory.mktemp("repair"))
        return self.PROJECT

    def test_a_storage_that_was_deleted(self, loop: Loop, mended: str, picture: Make) -> None:
        ids = loop.ask_about(mended, [picture(n) for n in range(3)])
        loop.round(mended)
        number = loop.number(mended, "user_feedback")
        answered = loop.annotate(loop.task(number, ids[0])["id"], "cat")
        for title, storage in loop.storages(number).items():
            assert loop.ls.delete(f"/api/storages/s3/{storage['id']}").status_code == 204, title
        (target,) = loop.ls.get("/api/storages/export/s3", params={"project": number}).json()
        loop.ls.delete(f"/api/storages/export/s3/{target['id']}").raise_for_status()
        ids += loop.ask_about(mended, [picture(10)])
        loop.round(mended)
        assert set(loop.storages(number)) == {"pictures", "tasks"}
        assert len(loop.ls.get("/api/storages/export/s3", params={"project": number}).json()) == 1
        # A new storage reads every file again: still each is one task, and the answer is still there, once.
        loop.round(mended)
        assert Counter(task["data"]["task_id"] for task in loop.tasks(number)) == Counter(ids)
        assert list(loop.states(ids[0]).values()) == [("answered", "cat")]
        assert loop.task(number, ids[0])["annotations"][0]["id"] == answered
        ids += loop.ask_about(mended, [picture(11)])
        loop.round(mended)
        assert Counter(task["data"]["task_id"] for task in loop.tasks(number)) == Counter(ids)
        new = loop.annotate(loop.task(number, ids[-1])["id"], "dog")  # answers are still written and collected
        assert loop.round(mended).answers_collected == 1
        assert loop.states(ids[-1]) == {str(new): ("answered", "dog")}

    def test_a_whole_project_that_was_deleted(self, loop: Loop, mended: str, picture: Make) -> None:
        ids = [
            row.id
            for row in loop.sql("SELECT id FROM tasks WHERE project_id = :p AND queue = 'user_feedback'", p=mended)
        ]
        before = {id_: loop.states(id_) for id_ in ids}
        number = loop.number(mended, "user_feedback")
        loop.ls.delete(f"/api/projects/{number}/").raise_for_status()
        loop.installation.command("sync")
        again = loop.number(mended, "user_feedback")
        assert again != number
        assert set(loop.storages(again)) == {"pictures", "tasks"}
        assert Counter(task["data"]["task_id"] for task in loop.tasks(again)) == Counter(ids)
        loop.round(mended)
        # Nobody took an answer back: what was collected stays.
        assert {id_: loop.states(id_) for id_ in ids} == before

    def test_the_configuration_is_put_back(self, loop: Loop, mended: str, monkeypatch: pytest.MonkeyPatch) -> None:
        number = loop.number(mended, "user_label")
        config = Path("label_studio/classification.xml").read_text(encoding="utf-8").strip()
        other = '<View><Image name="image" value="$image"/></View>'
        loop.ls.patch(f"/api/projects/{number}/", json={"label_config": other}).raise_for_status()
        loop.round(mended)
        assert loop.ls.get(f"/api/projects/{number}").json()["label_config"] == config
        assert loop.number(mended, "user_label") == number
        # What is as it should be is left alone.
        changed: list[object] = []
        monkeypatch.setattr(loop.studio._client.projects, "update", lambda **change: changed.append(change))
        loop.round(mended)
        assert changed == []


def ours(loop: Loop, number: int, task_id: str) -> list[dict]:
    return [task for task in loop.tasks(number) if task["data"]["task_id"] == task_id]


def test_a_task_that_nobody_needs_any_more_goes_and_comes_again(loop: Loop, pets: str) -> None:
    said = loop.upload(pets, coloured("cat", 901))
    number = loop.number(pets, "user_feedback")

    def flagged() -> str:
        loop.flag(said["prediction_id"])
        loop.wait_delivered(pets)
        assert loop.round(pets).faults == []
        found = loop.sql("SELECT id FROM tasks WHERE image_id = :i AND queue = 'user_feedback'", i=said["image_id"])
        return found[0].id

    task_id = flagged()
    assert len(ours(loop, number, task_id)) == 1
    loop.web.post("/feedback/undo", json={"prediction_id": said["prediction_id"]}).raise_for_status()
    assert loop.round(pets).faults == []
    assert ours(loop, number, task_id) == []
    assert loop.sql("SELECT * FROM tasks WHERE id = :t", t=task_id) == []
    task_id = flagged()
    assert len(ours(loop, number, task_id)) == 1
    # Who has answered in the meantime is not sent away.
    loop.annotate(loop.task(number, task_id)["id"], "dog")
    loop.web.post("/feedback/undo", json={"prediction_id": said["prediction_id"]}).raise_for_status()
    assert loop.round(pets).faults == []
    assert len(ours(loop, number, task_id)) == 1
    assert list(loop.states(task_id).values()) == [("answered", "dog")]
    assert loop.sql("SELECT withdrawn_at FROM tasks WHERE id = :t", t=task_id)[0].withdrawn_at is None


def test_a_removed_picture_leaves_nothing_in_label_studio(loop: Loop, pets: str) -> None:
    picture = coloured("owl", 902)
    said = loop.upload(pets, picture)
    (task_id,) = loop.ask_about(pets, [picture])
    assert loop.round(pets).faults == []
    number = loop.number(pets, "user_feedback")
    annotation = loop.annotate(loop.task(number, task_id)["id"], "owl")
    assert loop.round(pets).faults == []
    output = f"labelstudio/output/{pets}/user_feedback/{annotation}"
    assert loop.stores.objects.exists(output)
    removal.remove(loop.stores, pets, said["image_id"], "owner@example.org", now())
    assert loop.round(pets).faults == []
    assert ours(loop, number, task_id) == []
    assert not loop.stores.objects.exists(output)
    assert not loop.stores.objects.exists(f"labelstudio/tasks/{pets}/user_feedback/task_{task_id}.json")
    for table in ("tasks", "inclusions", "predictions", "embeddings", "catalogue"):
        assert loop.sql(f"SELECT * FROM {table} WHERE image_id = :i", i=said["image_id"]) == [], table
    assert loop.sql("SELECT * FROM annotations WHERE task_id = :t", t=task_id) == []
    key = "SELECT count(*) AS n FROM outbox WHERE kind = 'remove' AND done_at IS NULL"
    wait_for(lambda: loop.sql(key)[0].n == 0, 15, "the sampler removes the picture")
    assert not any(said["image_id"] in one.key for one in loop.stores.objects.list(f"production/{pets}"))
    for _ in range(2):  # and nothing of it comes back
        assert loop.round(pets).faults == []
    assert ours(loop, number, task_id) == []
    assert loop.sql("SELECT * FROM annotations WHERE task_id = :t", t=task_id) == []


def test_a_picture_that_was_removed_and_sent_again_is_asked_about_anew(loop: Loop, pets: str) -> None:
    """All before the next round: the new task is none of the former ones, and no former answer is its answer."""
    picture = coloured("owl", 903)
    said = loop.upload(pets, picture)
    (former,) = loop.ask_about(pets, [picture])
    assert loop.round(pets).faults == []
    number = loop.number(pets, "user_feedback")
    annotation = loop.annotate(loop.task(number, former)["id"], "dog")
    assert loop.round(pets).faults == []
    removal.remove(loop.stores, pets, said["image_id"], "owner@example.org", now())
    assert loop.upload(pets, picture)["image_id"] == said["image_id"]
    (task_id,) = loop.ask_about(pets, [picture])
    assert task_id != former
    done = loop.round(pets)
    assert (done.faults, done.quarantined) == ([], [])
    assert ours(loop, number, former) == []
    assert not loop.stores.objects.exists(f"labelstudio/output/{pets}/user_feedback/{annotation}")
    (asked,) = ours(loop, number, task_id)
    assert asked["annotations"] == []
    loop.annotate(asked["id"], "owl")
    assert loop.round(pets).faults == []
    assert list(loop.states(task_id).values()) == [("answered", "owl")]
    assert loop.sql("SELECT * FROM leftovers WHERE project_id = :p", p=pets) == []


def test_an_undone_flag_that_was_answered_in_a_former_label_studio_stays_answered(loop: Loop, pets: str) -> None:
    picture = coloured("cat", 904)
    said = loop.upload(pets, picture)
    loop.flag(said["prediction_id"])
    (task_id,) = loop.ask_about(pets, [picture])
    assert loop.round(pets).faults == []
    former = loop.number(pets, "user_feedback")
    loop.annotate(loop.task(former, task_id)["id"], "dog")
    assert loop.round(pets).faults == []
    loop.ls.delete(f"/api/projects/{former}/").raise_for_status()
    loop.web.post("/feedback/undo", json={"prediction_id": said["prediction_id"]}).raise_for_status()
    assert loop.round(pets).faults == []
    assert loop.number(pets, "user_feedback") != former
    assert list(loop.states(task_id).values()) == [("answered", "dog")]
    assert loop.sql("SELECT withdrawn_at FROM tasks WHERE id = :t", t=task_id)[0].withdrawn_at is None
