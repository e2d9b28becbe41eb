"""The real pages and the real inference service, each a process of its own, over a real S3 server and SQLite."""

import http.client
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from closedloop import first_start
from closedloop import project as projects
from closedloop.settings import Settings
from closedloop.storage import Stores, open_stores, tables
from demo.installation import free_ports
from tests.conftest import KEY, SECRET, START, start_s3
from tests.waiting import wait_for

OWNER_PASSWORD = "a long test password"
PETS = "{id: pets, title: 'Cat or dog?', kind: classification, classes: [cat, dog, owl]}"
BIRDS = "{id: birds, title: 'Which bird?', kind: classification, classes: [wren, robin]}"


@dataclass(frozen=True)
class Answer:
    """What came back over a socket."""

    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def says(self, status: int, code: str | None = None) -> bool:
        """Whether this is an error in the one shape; asserts, so that a failure shows what came instead."""
        assert self.status == status, (self.status, self.body[:300])
        assert self.headers["content-type"].startswith("application/json"), self.headers
        said = self.json()
        assert set(said) == {"ok", "error", "code"}, said
        assert said["ok"] is False
        assert isinstance(said["error"], str)
        assert len(said["error"]) > 10
        assert said["code"].replace("_", "").isalpha(), said
        if code is not None:
            assert said["code"] == code, said
        return True


@dataclass(frozen=True)
class Service:
    """A running process and how to talk to it, politely or not."""

    port: int
    log: Path
    settings: Settings
    client: httpx.Client = field(repr=False)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def raw(self, data: bytes, *, end: bool = False) -> Answer:
        """Send exactly these bytes (`end`: and say that no more come); the answer."""
        with self.connect() as connection:
            connection.sendall(data)
            if end:
                connection.shutdown(socket.SHUT_WR)
            return read(connection)

    def raw_request(self, method: str, path: str, body: bytes = b"", **headers: object) -> Answer:
        """A request with these headers and no others but Host."""
        return self.raw(request_bytes(method, path, body, **headers))

    def send(self, method: str, path: str, **options: Any) -> Answer:
        """A well-formed request."""
        answer = self.client.request(method, path, **options)
        return Answer(answer.status_code, {k.lower(): v for k, v in answer.headers.items()}, answer.content)

    def failures(self) -> list[str]:
        """The lines of its log that tell of a failure."""
        lines = self.log.read_text().splitlines()
        return [line for line in lines if '"level": "error"' in line or "Traceback" in line]

    def upload(self, data: bytes, path: str = "/predict", name: str = "a.jpg", **headers: str) -> Answer:
        """A picture as a program sends it."""
        return self.send("POST", path, files={"file": (name, data)}, headers={"Accept": "application/json", **headers})


def read(connection: socket.socket) -> Answer:
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())


def request_bytes(method: str, path: str, body: bytes = b"", **headers: object) -> bytes:
    lines = [f"{method} {path} HTTP/1.1"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in {"Host": "localhost", **headers}.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def multipart(content: bytes, name: str = "file", filename: str = "a.jpg", boundary: str = "b0undary") -> bytes:
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{filename}"\r\n\r\n'
    return head.encode() + content + f"\r\n--{boundary}--\r\n".encode()


FORM = "multipart/form-data; boundary=b0undary"


@dataclass(frozen=True)
class Backend:
    """What the services stand on, and what is in it."""

    settings: Settings
    folder: Path  # of the S3 server
    home: Path
    temporary: Path
    stores: Stores

    def contents(self) -> dict[str, Any]:
        """How many rows and which files there are."""
        with self.stores.db.read() as tx:
            rows = {
                table.name: tx.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
                for table in tables.metadata.sorted_tables
            }
        files = sorted(str(path) for path in self.folder.rglob("*") if path.is_file())
        return {"rows": rows, "files": files, "temporary": sorted(os.listdir(self.temporary))}


@pytest.fixture(scope="session")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """Buckets and migrated tables with two projects."""
    folder, home = tmp_path_factory.mktemp("contract-objects"), tmp_path_factory.mktemp("contract-home")
    temporary = tmp_path_factory.mktemp("contract-temporary")
    s3, inference = free_ports(2)
    process = start_s3(folder, s3)
    settings = Settings(
        closedloop_home=home,
        closedloop_default_project="pets",
        closedloop_encoder="embedded",
        closedloop_inference_port=inference,
        s3_endpoint_url=f"http://127.0.0.1:{s3}",
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,  # type: ignore[arg-type]
        closedloop_uploads_per_minute=0,
        closedloop_session_key="a key for tests alone",  # type: ignore[arg-type]
        closedloop_owner_password=OWNER_PASSWORD,  # type: ignore[arg-type]
    )
    stores = open_stores(settings)
    stores.objects.make_buckets()
    first_start.prepare(stores, settings, START)
    for manifest in (PETS, BIRDS):
        projects.add(stores, projects.parse_manifest(manifest), START)
    yield Backend(settings, folder, home, temporary, stores)
    stores.db.close()
    process.kill()
    process.wait()


@contextmanager
def running(backend: Backend, module: str, port_setting: str, ready: str, **changes: Any) -> Iterator[Service]:
    """A service as a process of its own, its settings changed, from `ready` answering until the block ends."""
    port = changes.setdefault(port_setting, free_ports(1)[0])
    settings = backend.settings.model_copy(update=changes)
    env = {name.upper(): _text(value) for name, value in settings.model_dump().items()}
    log = backend.home / f"{module}-{port}.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", module],
            cwd=backend.home,
            env={**os.environ, **env, "TMPDIR": str(backend.temporary)},
            stdout=file,
            stderr=file,
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20, trust_env=False) as client:
            wait_for(lambda: process.poll() is not None or _answers(client, ready), 60, lambda: log.read_text())
            assert process.poll() is None, log.read_text()
            yield Service(port, log, settings, client)
        assert process.poll() is None, f"{module} ended by itself:\n{log.read_text()}"
    finally:
        process.terminate()
        process.wait(timeout=20)


def _answers(client: httpx.Client, path: str) -> bool:
    try:
        return client.get(path).status_code == 200
    except httpx.TransportError:
        return False


def _text(value: Any) -> str:
    return value.get_secret_value() if hasattr(value, "get_secret_value") else str(value)


@pytest.fixture(scope="session")
def inference(backend: Backend) -> Iterator[Service]:
    """The inference service with the embedded encoder and no release."""
    port = backend.settings.closedloop_inference_port
    with running(
        backend, "inference_api", "closedloop_inference_port", "/readyz", closedloop_inference_port=port
    ) as it:
        wait_for(lambda: len(it.send("GET", "/v1/releases").json()["releases"]) == 2, 60, "two releases")
        yield it


@pytest.fixture(scope="session")
def web(backend: Backend, inference: Service) -> Iterator[Service]:
    """The pages with everything that they need."""
    with running(backend, "flask_app", "closedloop_web_port", "/readyz", closedloop_inference_budget=15.0) as it:
        yield it


@pytest.fixture(scope="session")
def web_without_inference(backend: Backend) -> Iterator[Service]:
    """The pages while nobody answers about pictures."""
    dead = f"http://127.0.0.1:{free_ports(1)[0]}"
    with running(backend, "flask_app", "closedloop_web_port", "/readyz", closedloop_inference_url=dead) as it:
        yield it


@pytest.fixture(scope="session")
def web_without_store(backend: Backend, inference: Service) -> Iterator[Service]:
    """The pages while there is no S3 server."""
    dead = f"http://127.0.0.1:{free_ports(1)[0]}"
    with running(backend, "flask_app", "closedloop_web_port", "/healthz", s3_endpoint_url=dead) as it:
        yield it


@pytest.fixture(scope="session")
def jpeg(picture: Callable[..., bytes]) -> bytes:
    """One good picture."""
    return picture(1, format="JPEG")


@pytest.fixture(scope="session")
def prediction_id(web: Service, jpeg: bytes) -> str:
    """A prediction of the project `pets` on which nobody has said anything."""
    return web.upload(jpeg).json()["prediction_id"]


@pytest.fixture
def nothing_kept(backend: Backend, prediction_id: str) -> Iterator[None]:
    """After the test, records, objects and temporary files are what they were (`prediction_id` was there before)."""
    before = backend.contents()
    yield
    assert backend.contents() == before
