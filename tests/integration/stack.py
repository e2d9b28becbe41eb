"""Hands for the integration tests: visitors, annotators and administrators of one running installation."""

import datetime as dt
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy as sa

from closedloop import project as projects
from closedloop import sync
from closedloop.errors import InferenceAway, LeaseTaken
from closedloop.inference import Answer, Proposed, Ranked
from closedloop.label_studio import LabelStudio
from closedloop.project import CROPPER, RANKER
from closedloop.storage import Stores
from closedloop.storage.database import Database
from closedloop.storage.objects import Objects
from demo.installation import Installation
from tests.waiting import wait_for

FAR = '"0 3 1 1 *"'  # a schedule that does not come while a test runs


def now() -> dt.datetime:
    """This moment."""
    return dt.datetime.now(dt.UTC)


class StandIn:
    """In the place of the inference service where a real one adds nothing."""

    def __init__(self) -> None:
        self.label: str | None = "cat"
        self.confidence = 0.9
        self.release = "r0001-test"
        self.away = False

    def predict(self, project_id: str, jpeg: bytes) -> Answer:
        if self.away:
            raise InferenceAway(reason="test")
        rest = {"cat": 0.0, "dog": 0.0, "owl": 0.0}
        probabilities = rest | {self.label: self.confidence} if self.label else dict.fromkeys(rest, 1 / 3)
        confidence = self.confidence if self.label else 1 / 3
        return Answer(self.label, confidence, probabilities, "r0001-test" if self.label else None, "e" * 64, b"\0" * 8)

    def rank(self, project_id: str, jpegs: Sequence[bytes]) -> Ranked:
        """The largest file is best, where a model answers."""
        if self.away:
            raise InferenceAway(reason="test")
        scores = tuple(float(len(jpeg)) for jpeg in jpegs)
        if self.label is None:
            return Ranked(tuple(0.0 for _ in jpegs), None, 1 / len(jpegs), None, "e" * 64)
        return Ranked(scores, scores.index(max(scores)), self.confidence, self.release, "e" * 64)

    def crop(self, project_id: str, jpeg: bytes) -> Proposed | None:
        if self.away:
            raise InferenceAway(reason="test")
        return Proposed((0.1, 0.2, 0.8, 0.9), 0.7, self.release, "e" * 64) if self.label else None

    def served(self, project_id: str) -> dict[str, str]:
        if self.away:
            raise InferenceAway(reason="test")
        return {RANKER: self.release, CROPPER: self.release} if self.label else {}


class Loop:
    """One running installation, seen by those who use it; its records by SQL."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        json = {"Accept": "application/json"}
        self.web = httpx.Client(base_url=installation.pages, headers=json, timeout=60, trust_env=False)
        secrets = installation.secrets
        self.url = secrets["LABEL_STUDIO_URL"]
        token = {"Authorization": f"Token {secrets['LABEL_STUDIO_API_KEY']}"}
        self.ls = httpx.Client(base_url=self.url, headers=token, timeout=120, trust_env=False)
        self.studio = LabelStudio(self.url, secrets["LABEL_STUDIO_API_KEY"])
        self.stores = Stores(
            Database(f"sqlite:///{installation.home / 'closedloop.db'}"),
            Objects(secrets["S3_ENDPOINT_URL"], secrets["AWS_ACCESS_KEY_ID"], secrets["AWS_SECRET_ACCESS_KEY"]),
        )

    def close(self) -> None:
        self.web.close()
        self.ls.close()
        self.stores.db.close()

    def add_project(self, id_: str, folder: Path, sync: str = FAR) -> None:
        """A project whose schedules do not come by themselves (but for `sync`, if wanted)."""
        file = folder / f"{id_}.yaml"
        file.write_text(
            f"id: {id_}\ntitle: Which animal?\nkind: classification\nclasses: [cat, dog, owl]\n"
            f"random_sample: {{cron: {FAR}}}\nsync: {{cron: {sync}}}\ntrain: {{cron: {FAR}}}\n"
        )
        self.installation.command("project", "add", str(file))

    def upload(self, project: str, picture: bytes, key: str | None = None) -> dict[str, Any]:
        """Upload a picture; returns the answer, which must be 201 or 202."""
        headers = {"Idempotency-Key": key} if key else {}
        files = {"file": ("picture.png", picture, "image/png")}
        response = self.web.post(f"/p/{project}/predict", files=files, headers=headers)
        assert response.status_code in (201, 202), response.text
        return response.json()

    def flag(self, prediction_id: str) -> None:
        assert self.web.post("/feedback", json={"prediction_id": prediction_id}).json()["success"]

    def ask_about(self, project: str, pictures: Sequence[bytes]) -> list[str]:
        """Upload and flag pictures, wait until their task files lie in S3; returns the tasks' ids in order."""
        ids = []
        for picture in pictures:
            said = self.upload(project, picture)
            self.flag(said["prediction_id"])
            ids.append(
                self.sql(
                    "SELECT id FROM tasks WHERE project_id = :p AND image_id = :i AND queue = 'user_feedback'",
                    p=project,
                    i=said["image_id"],
                )[0].id
            )
        self.wait_delivered(project)
        return ids

    def wait_delivered(self, project: str, seconds: float = 30) -> None:
        waiting = "SELECT id FROM tasks WHERE project_id = :p AND delivered_at IS NULL"
        wait_for(lambda: not self.sql(waiting, p=project), seconds, "every task's file lies in S3")

    def round(self, project: str) -> sync.Round:
        """What `closedloop sync` does, for one project."""
        only = [projects.get(self.stores, project)]
        end = time.monotonic() + 120
        while True:
            try:
                return sync.run(self.stores, self.studio, now, only)
            except LeaseTaken:
                assert time.monotonic() < end
                time.sleep(0.3)

    def number(self, project: str, queue: str) -> int:
        rows = self.sql(
            "SELECT ls_project FROM label_studio_projects WHERE project_id = :p AND queue = :q", p=project, q=queue
        )
        return rows[0].ls_project

    def tasks(self, number: int) -> list[dict[str, Any]]:
        """All tasks that Label Studio has in a project."""
        query = {"project": number, "fields": "all", "page_size": 1000}
        return self.ls.get("/api/tasks", params=query).raise_for_status().json()["tasks"]

    def task(self, number: int, task_id: str) -> dict[str, Any]:
        """Label Studio's one task with our id."""
        (found,) = [task for task in self.tasks(number) if task["data"]["task_id"] == task_id]
        return found

    def annotate(self, task: int, label: str, **more: Any) -> int:
        """Submit an annotation; returns its id."""
        body = {"result": choice(label), "lead_time": 2.0, **more}
        return self.ls.post(f"/api/tasks/{task}/annotations/", json=body).raise_for_status().json()["id"]

    def storages(self, number: int, kind: str = "") -> dict[str, dict[str, Any]]:
        found = self.ls.get(f"/api/storages/{kind}s3", params={"project": number}).raise_for_status().json()
        assert len({one["title"] for one in found}) == len(found)
        return {one["title"]: one for one in found}

    def sql(self, query: str, **values: Any) -> Sequence[Any]:
        with self.stores.db.read() as tx:
            return tx.execute(sa.text(query), values).all()

    def states(self, task_id: str) -> dict[str, tuple[str, str | None]]:
        """Of each annotation of a task the newest version: (state, label)."""
        rows = self.sql(
            "SELECT annotation_id, state, label FROM annotations WHERE task_id = :t ORDER BY answered_at", t=task_id
        )
        return {row.annotation_id: (row.state, row.label) for row in rows}


def choice(*labels: str) -> list[dict[str, Any]]:
    """The result of an annotation."""
    return [{"from_name": "choice", "to_name": "image", "type": "choices", "value": {"choices": list(labels)}}]


def processes(home: Path, word: str = "") -> list[int]:
    """Ids of the running processes that belong to an installation, with a word in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            environ, command = (entry / "environ").read_bytes(), (entry / "cmdline").read_bytes()
            state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            continue
        ours = f"CLOSEDLOOP_HOME={home}\0".encode() in environ
        if ours and state != "Z" and word in command.decode(errors="replace").replace("\0", " "):
            found.append(int(entry.name))
    return sorted(found)
