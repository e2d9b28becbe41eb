"""The pages of selections alone: the real application over real HTTP, an S3 server and SQLite; a stand-in chooses."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flask_app import context, create_app
from flask_app.__main__ import create_server, serve

from closedloop import first_start
from closedloop import project as projects
from closedloop.errors import InferenceAway
from closedloop.inference import Proposed, Ranked
from closedloop.settings import Settings
from closedloop.storage import Stores, open_stores
from demo.installation import free_ports
from tests.conftest import KEY, SECRET, START, start_s3

OWNER, OWNER_PASSWORD = "owner@closedloop.local", "a long test password"
COVERS = "{id: covers, title: 'Which cover?', kind: selection}"
ENCODER = "e" * 64


@dataclass
class Chooser:
    """Stands in for the inference service: the picture with the most bytes is best, its middle is to be kept."""

    away: bool = False
    ranks: bool = True
    crops: bool = True
    seconds: float = 0.0  # that it takes to choose
    asked: list[int] = field(default_factory=list)  # how many pictures each set had

    def rank(self, _project_id: str, jpegs: Sequence[bytes]) -> Ranked:
        self._check()
        self.asked.append(len(jpegs))
        time.sleep(self.seconds)
        if not self.ranks:
            return Ranked((0.0,) * len(jpegs), None, 1 / len(jpegs), None, ENCODER)
        scores = tuple(len(jpeg) / 1000 for jpeg in jpegs)
        return Ranked(scores, scores.index(max(scores)), 0.71, "r0001-0a1b2c3d", ENCODER)

    def crop(self, _project_id: str, _jpeg: bytes) -> Proposed | None:
        self._check()
        return Proposed((0.2, 0.1, 0.75, 0.9), 0.64, "r0002-4e5f6a7b", ENCODER) if self.crops else None

    def releases(self) -> dict[str, Any]:
        self._check()
        entry = {"project": "covers", "head": "ranker", "release": "r0001-0a1b2c3d" if self.ranks else None}
        return {"encoder": {"knows_words": False}, "notices": [], "releases": [entry]}

    def _check(self) -> None:
        if self.away:
            raise InferenceAway(reason="the test says so")


@dataclass(frozen=True)
class Site:
    """The pages that run, and what they stand on."""

    pages: str  # base URL
    port: int
    stores: Stores
    inference: Chooser
    app: Any


@contextmanager
def site(home: Path, **changes: Any) -> Iterator[Site]:
    """Serve the pages of an installation of its own, with one selection project, until the block ends."""
    objects, port = home / "objects", free_ports(1)[0]
    objects.mkdir()
    process = start_s3(objects, port)
    settings = Settings(
        closedloop_home=home,
        closedloop_default_project="covers",
        closedloop_encoder="embedded",
        s3_endpoint_url=f"http://127.0.0.1:{port}",
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,  # type: ignore[arg-type]
        closedloop_session_key="a key for tests alone",  # type: ignore[arg-type]
        closedloop_owner_password=OWNER_PASSWORD,  # type: ignore[arg-type]
        **{"closedloop_uploads_per_minute": 0, **changes},
    )
    stores = open_stores(settings)
    stores.objects.make_buckets()
    first_start.prepare(stores, settings, START)
    projects.add(stores, projects.parse_manifest(COVERS), START)
    app, chooser = create_app(settings), Chooser()
    app.extensions[context.EXTENSION]["inference"] = chooser
    sockets: dict[int, Any] = {}
    stopping = threading.Event()
    server = create_server(app, "127.0.0.1", 0, sockets)
    serving = threading.Thread(target=serve, args=(sockets, stopping))
    serving.start()
    try:
        yield Site(f"http://127.0.0.1:{server.effective_port}", server.effective_port, stores, chooser, app)
    finally:
        stopping.set()
        serving.join()
        server.task_dispatcher.shutdown()
        stores.db.close()
        process.kill()
        process.wait()
