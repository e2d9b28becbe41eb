"""kill -9 at the worst moments: what was acknowledged is there once after the restart, and nothing is there twice."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
import sqlalchemy as sa

from closedloop import feedback, installations, prediction, tasks, training
from closedloop import project as projects
from closedloop.errors import BadArtefact
from closedloop.installations import ChosenEncoder
from closedloop.models import artefact
from closedloop.project import CLASSIFIER, Project
from closedloop.queues import USER_FEEDBACK
from closedloop.storage import Stores, answers, pictures, registry, tables
from closedloop.storage.database import Database
from closedloop.storage.objects import Objects
from demo.installation import CHECKOUT, free_ports
from tests.conftest import KEY, SECRET, START
from tests.integration.answered import seen
from tests.integration.stack import Loop, StandIn, now, processes
from tests.waiting import wait_for

Make = Callable[..., bytes]

# Runs a part as `python -m` does, but kills it around a chosen call of `Objects.put`.
DYING_AT_PUT = """
import os, signal, sys
from closedloop.storage.objects import Objects
put = Objects.put
def dying(self, key, data):
    chosen = {chosen!r} in key
    if chosen and {before}:
        os.kill(os.getpid(), signal.SIGKILL)
    put(self, key, data)
    if chosen:
        os.kill(os.getpid(), signal.SIGKILL)
Objects.put = dying
"""
DYING_BEFORE_THE_ANSWER = """
import os, signal
from closedloop import prediction
prediction.get = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
"""
MAIN = "\nfrom closedloop import leases\nleases.LENGTH /= 10\nfrom {part}.__main__ import main\nmain()\n"


class Part:
    """One process of the product, started on its own."""

    def __init__(self, part: str, env: Mapping[str, str], death: str = "") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", death + MAIN.format(part=part)],
            env={**os.environ, **env},
            cwd=CHECKOUT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def dies(self, seconds: float = 60) -> None:
        """Wait for its death, which must be the chosen one."""
        assert self.process.wait(timeout=seconds) == -signal.SIGKILL

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=20)


@pytest.fixture
def start() -> Iterator[Callable[..., Part]]:
    """Starts parts; those that still run end with the test."""
    begun: list[Part] = []

    def begin(*arguments: object) -> Part:
        begun.append(Part(*arguments))  # type: ignore[arg-type]
        return begun[-1]

    yield begin
    for part in begun:
        if part.process.poll() is None:
            part.process.kill()
            part.process.wait()


@pytest.fixture
def own(tmp_path: Path, s3: tuple[str, Path], database_url: str) -> dict[str, str]:
    """The environment of parts that work on the test's own stores."""
    ports = dict(zip(("WEB", "INFERENCE", "SAMPLER", "TRAINER"), free_ports(4), strict=True))
    return {
        "CLOSEDLOOP_HOME": str(tmp_path / "home"),
        "CLOSEDLOOP_DATABASE_URL": database_url,
        "S3_ENDPOINT_URL": s3[0],
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "LABEL_STUDIO_URL": "http://127.0.0.1:9",
        "LABEL_STUDIO_API_KEY": "none",
        **{f"CLOSEDLOOP_{name}_PORT": str(port) for name, port in ports.items()},
    }


class TestWeb:
    @pytest.fixture
    def project(self, loop: Loop, tmp_path: Path) -> str:
        id_ = f"web-{free_ports(1)[0]}"
        loop.add_project(id_, tmp_path)
        return id_

    @pytest.mark.parametrize("death", ["before the commit", "before the answer"])
    def test_killed_with_an_upload_in_hand(
        self, loop: Loop, project: str, start: Callable[..., Part], picture: Make, death: str
    ) -> None:
        port = free_ports(1)[0]
        env = {**loop.installation.env, "CLOSEDLOOP_WEB_PORT": str(port)}
        put = DYING_AT_PUT.format(chosen=f"production/{project}/", before=False)
        web = start("flask_app", env, put if death == "before the commit" else DYING_BEFORE_THE_ANSWER)
        url = f"http://127.0.0.1:{port}"
        wait_for(lambda: _answers(f"{url}/healthz"), 30, "the dying web process answers")
        files = {"file": ("picture.png", picture(1), "image/png")}
        headers = {"Accept": "application/json", "Idempotency-Key": "k"}
        with pytest.raises(httpx.TransportError):  # nothing was acknowledged
            httpx.post(f"{url}/p/{project}/predict", files=files, headers=headers, timeout=30, trust_env=False)
        web.dies()
        count = "SELECT count(*) FROM {} WHERE project_id = :p"
        committed = loop.sql(count.format("images"), p=project)[0][0]
        assert committed == (0 if death == "before the commit" else 1)
        assert len(loop.stores.objects.list(f"production/{project}/unclassified")) == 1

        said = loop.upload(project, picture(1), key="k")
        assert loop.upload(project, picture(1), key="k") == said
        assert [loop.sql(count.format(table), p=project)[0][0] for table in ("images", "predictions")] == [1, 1]
        (row,) = loop.sql("SELECT key FROM images WHERE project_id = :p", p=project)
        pictures = [o.key for o in loop.stores.objects.list(f"production/{project}") if o.key.endswith(".jpg")]
        assert pictures == [row.key]


class TestSampler:
    def test_killed_between_put_and_commit(
        self,
        stores: Stores,
        project: Project,
        own: dict[str, str],
        start: Callable[..., Part],
        picture: Make,
        inference: StandIn,
    ) -> None:
        made = [prediction.receive(stores, inference, project, picture(n), START) for n in range(3)]  # type: ignore[arg-type]
        for one in made:
            feedback.flag(stores, one.id, START)
        start("sampler", own, DYING_AT_PUT.format(chosen=f"/{USER_FEEDBACK}/task_", before=False)).dies()
        prefix = f"labelstudio/tasks/{project.id}/{USER_FEEDBACK}"
        (first,) = stores.objects.list(prefix)  # it was put, and nobody knows
        assert _delivered(stores) == 0

        again = start("sampler", own)
        wait_for(lambda: _delivered(stores) == 3, 60, "all tasks are delivered after the restart")
        again.end()
        files = stores.objects.list(prefix)
        assert len(files) == 3
        assert first in files  # the same file, not written again
        keys = {tasks.key(project.id, USER_FEEDBACK, id_) for id_ in _task_ids(stores)}
        assert {file.key for file in files} == keys

    def test_killed_in_the_middle_of_a_sync(self, loop: Loop, tmp_path: Path) -> None:
        project, count = "midsync", 240
        loop.add_project(project, tmp_path, sync='"*/2 * * * * *"')
        with loop.stores.db.write() as tx:  # records of pictures that are asked about, as many uploads would leave them
            for n in range(count):
                _record_picture(tx, project, f"{n:032x}")
                row = {"id": f"p{n}", "project_id": project, "image_id": f"{n:032x}", "status": "done"}
                answer = {"confidence": 0.5, "probabilities": {}, "created_at": now(), "answered_at": now()}
                tx.execute(tables.predictions.insert().values(**row, **answer, label="cat", release="r"))
                tasks.ask(tx, project, f"{n:032x}", USER_FEEDBACK, now(), prediction_id=f"p{n}")
        number = loop.number(project, USER_FEEDBACK)

        def under_way() -> bool:
            counted = loop.ls.get(f"/api/projects/{number}").json()["task_number"]
            status = loop.storages(number)["tasks"]["status"]
            return status == "in_progress" and 0 < counted < count

        wait_for(under_way, 60, "a sync is under way", every=0.02)
        (pid,) = processes(loop.installation.home, "-m sampler")
        os.kill(pid, signal.SIGKILL)
        open_tasks = "SELECT count(*) FROM tasks WHERE project_id = :p AND synced_at IS NULL"
        assert loop.sql(open_tasks, p=project)[0][0] > 0  # it was in the middle
        wait_for(lambda: loop.sql(open_tasks, p=project)[0][0] == 0, 120, "the next sampler finishes the sync", every=1)
        assert processes(loop.installation.home, "-m sampler") not in ([], [pid])  # the supervisor started it again
        there = Counter(task["data"]["task_id"] for task in loop.tasks(number))
        ours = loop.sql("SELECT id FROM tasks WHERE project_id = :p", p=project)
        assert there == Counter(row.id for row in ours)
        assert len(there) == count


class TestTrainer:
    ENCODER = ChosenEncoder("embedded", "e" * 64, 16, False, "for a test", START.isoformat())

    @pytest.fixture
    def database_url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path / 'closedloop.db'}"

    @pytest.fixture
    def taught(self, tmp_path: Path, database_url: str, objects: Objects) -> Iterator[Stores]:
        """A project with thirty answers whose embeddings are known, to be trained every second."""
        database = Database(database_url)
        database.migrate()
        stores = Stores(database, objects)
        manifest = "{id: pets, title: T, kind: classification, classes: [cat, dog, owl], train: {cron: '* * * * * *'}}"
        projects.add(stores, projects.parse_manifest(manifest), START)
        random = np.random.default_rng(0)
        vectors = {}
        with database.write() as tx:
            installations.choose_encoder(tx, self.ENCODER, START)
            for n in range(30):
                vector = np.eye(3, 16)[n % 3] + 0.2 * random.standard_normal(16)
                vectors[f"{n:032x}"] = (vector / np.linalg.norm(vector)).astype("<f4")
                of = {"project_id": "pets", "image_id": f"{n:032x}"}
                _record_picture(tx, "pets", f"{n:032x}", f"{int(random.integers(0, 2**63)):016x}")
                answers.add_import(tx, {**of, "label": ("cat", "dog", "owl")[n % 3], "at": START})
        seen(stores, "pets", self.ENCODER.digest, vectors)
        yield stores
        database.close()

    def test_killed_while_it_writes_a_release(
        self, taught: Stores, own: dict[str, str], start: Callable[..., Part]
    ) -> None:
        folder = f"models/pets/{CLASSIFIER}"

        def names() -> list[str]:
            return sorted(o.key.rsplit("/", 1)[-1] for o in taught.objects.list(folder))

        def recorded() -> list[str]:
            with taught.db.read() as tx:
                return [row["id"] for row in registry.releases_of(tx, "pets")]

        # After the weights and the card, before the manifest: there is no release.
        start("trainer", own, DYING_AT_PUT.format(chosen="/MANIFEST.json", before=True)).dies()
        assert names() == ["card.json", "model.safetensors"]
        assert recorded() == []
        release = taught.objects.list(folder)[0].key.split("/")[3]
        with pytest.raises(BadArtefact):
            training.read(
                taught, projects.get(taught, "pets"), CLASSIFIER, release, self.ENCODER.digest, self.ENCODER.dimension
            )
        weights = taught.objects.get(f"{folder}/{release}/model.safetensors")
        # After the manifest, before the record: nobody serves it yet.
        start("trainer", own, DYING_AT_PUT.format(chosen="/MANIFEST.json", before=False)).dies()
        assert names() == ["MANIFEST.json", "card.json", "model.safetensors"]
        assert recorded() == []

        trainer = start("trainer", own)
        wait_for(recorded, 60, "a release after the restart")
        trainer.end()
        assert recorded() == [release]
        with taught.db.read() as tx:
            live = registry.live_release(tx, "pets", CLASSIFIER)
        assert live is not None
        whole = training.read(
            taught, projects.get(taught, "pets"), CLASSIFIER, release, self.ENCODER.digest, self.ENCODER.dimension
        )
        assert isinstance(whole, artefact.Artefact)
        assert whole.card == live["card"]
        assert {o.key.split("/")[3] for o in taught.objects.list(folder)} == {release}
        assert taught.objects.get(f"{folder}/{release}/model.safetensors") == weights


def test_inference_killed_under_load(loop: Loop, tmp_path: Path, picture: Make) -> None:
    project, count = "underload", 48
    loop.add_project(project, tmp_path)
    wait_for(lambda: loop.upload(project, picture(1))["status"] == "done", 30, "inference knows the project")
    (pid,) = processes(loop.installation.home, "-m inference_api")

    def send(n: int) -> tuple[int, dict[str, str]]:
        files = {"file": ("picture.png", picture(100 + n), "image/png")}
        response = loop.web.post(f"/p/{project}/predict", files=files)
        return response.status_code, response.json()

    with ThreadPoolExecutor(32) as pool:
        sent = [pool.submit(send, n) for n in range(count)]
        time.sleep(0.3)
        os.kill(pid, signal.SIGKILL)
        said = [one.result() for one in sent]
    assert {status for status, _ in said} <= {201, 202}
    assert 202 in {status for status, _ in said}  # the kill was felt
    pending = "SELECT count(*) FROM predictions WHERE project_id = :p AND status <> 'done'"
    wait_for(lambda: loop.sql(pending, p=project)[0][0] == 0, 90, "every kept picture is answered", every=0.5)
    (again,) = processes(loop.installation.home, "-m inference_api")
    assert again != pid  # the supervisor started it again by itself
    ids = {body["prediction_id"] for _, body in said}
    rows = loop.sql("SELECT id, image_id FROM predictions WHERE project_id = :p", p=project)
    assert ids <= {row.id for row in rows}
    assert len(ids) == count
    keys = [row.key for row in loop.sql("SELECT key FROM images WHERE project_id = :p", p=project)]
    assert len(keys) == count + 1

    def stored() -> list[str]:
        return [o.key for o in loop.stores.objects.list(f"production/{project}") if o.key.endswith(".jpg")]

    wait_for(lambda: stored() == sorted(keys), 30, "each picture lies in one place")
    for body in (body for _, body in said):
        assert loop.web.get(f"/predictions/{body['prediction_id']}").json()["status"] == "done"


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def _delivered(stores: Stores) -> int:
    with stores.db.read() as tx:
        query = sa.select(sa.func.count()).where(
            tables.tasks.c.delivered_at.is_not(None), tables.tasks.c.queue == USER_FEEDBACK
        )
        return tx.execute(query).scalar_one()


def _task_ids(stores: Stores) -> list[str]:
    with stores.db.read() as tx:
        query = sa.select(tables.tasks.c.id).where(tables.tasks.c.queue == USER_FEEDBACK)
        return list(tx.execute(query).scalars())


def _record_picture(tx: sa.Connection, project: str, image_id: str, phash: str = "0" * 16) -> None:
    row = {"project_id": project, "id": image_id, "key": f"production/{project}/class_00/{image_id}.jpg"}
    shape = {"width": 1, "height": 1, "bytes": 1, "source": "import", "arrived_at": START}
    pictures.add_image(tx, {**row, **shape, "sha256": image_id * 2, "phash": phash})
