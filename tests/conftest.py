"""What tests stand on: a real S3 server, a migrated database (SQLite, and Postgres where one is named), a whole stack."""

import atexit
import datetime as dt
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa
from hypothesis import settings
from PIL import Image

from closedloop import project as projects
from closedloop.project import Project
from closedloop.storage import Stores
from closedloop.storage.database import Database
from closedloop.storage.objects import BUCKETS, Objects
from demo.installation import Installation, free_ports, started

# Encoders are converted once for all tests, and for those of no other session: every process of theirs reads it here.
CACHE = Path(tempfile.mkdtemp(prefix="closedloop-cache-"))
atexit.register(shutil.rmtree, CACHE, ignore_errors=True)
os.environ["CLOSEDLOOP_CACHE"] = str(CACHE)
POSTGRES = os.environ.get("CLOSEDLOOP_TEST_DATABASE_URL", "")
DATA = Path(os.environ.get("CLOSEDLOOP_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data")
KEY, SECRET = "testkey", "testsecret123"
START = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)

settings.register_profile("closedloop", deadline=None)  # on a busy machine the time of an example says nothing
settings.load_profile("closedloop")


def cannot(reason: str) -> None:
    """Skip on a user's machine, saying why; in CI everything must be there."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason} (required in CI)")
    pytest.skip(reason)


class Clock:
    """A clock that moves only when it is told to."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> dt.datetime:
        return self.now

    def forward(self, **step: float) -> dt.datetime:
        self.now += dt.timedelta(**step)
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A real S3 server: (its address, the folder that it serves)."""
    folder = tmp_path_factory.mktemp("objects")
    port = free_ports(1)[0]
    process = start_s3(folder, port)
    yield f"http://127.0.0.1:{port}", folder
    process.kill()
    process.wait()


def start_s3(folder: Path, port: int, *options: str) -> "subprocess.Popen[bytes]":
    """Start `rclone serve s3` on a folder and wait until it answers."""
    rclone = Path(sys.executable).with_name("rclone")
    env = {**os.environ, "RCLONE_AUTH_KEY": f'"{KEY},{SECRET}"', "RCLONE_CONFIG": os.devnull}
    command = [str(rclone), "serve", "s3", "--addr", f"127.0.0.1:{port}", *options, str(folder)]
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(100):
        try:
            httpx.get(f"http://127.0.0.1:{port}/", timeout=1, trust_env=False)
            break
        except httpx.HTTPError:
            time.sleep(0.05)
    return process


@pytest.fixture
def objects(s3: tuple[str, Path]) -> Objects:
    """The four buckets, empty."""
    store = Objects(s3[0], KEY, SECRET)
    store.make_buckets()
    for bucket in BUCKETS:  # through S3, since the server remembers what it served
        for listed in store.list(bucket):
            store.remove(listed.key)
    return store


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database: SQLite always, Postgres where CLOSEDLOOP_TEST_DATABASE_URL names one."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'closedloop.db'}"
    if not POSTGRES:
        cannot("CLOSEDLOOP_TEST_DATABASE_URL names no Postgres")
    database = Database(POSTGRES)
    with database.engine.begin() as connection:
        connection.execute(sa.text("DROP SCHEMA public CASCADE"))
        connection.execute(sa.text("CREATE SCHEMA public"))
    database.close()
    return POSTGRES


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A migrated database."""
    made = Database(database_url)
    made.migrate()
    yield made
    made.close()


@pytest.fixture
def stores(database: Database, objects: Objects) -> Stores:
    """Records and objects, both real and empty."""
    return Stores(database, objects)


@pytest.fixture
def pets() -> Project:
    """A small project."""
    return projects.parse_manifest("{id: pets, title: 'Cat or dog?', kind: classification, classes: [cat, dog, owl]}")


@pytest.fixture
def project(stores: Stores, pets: Project) -> Project:
    """The small project, in the records."""
    projects.add(stores, pets, START)
    return pets


@pytest.fixture(scope="session")
def picture() -> Callable[..., bytes]:
    """Makes pictures: `picture(seed)` are the bytes of a PNG that looks like no other seed's."""
    import io

    import numpy as np

    def make(seed: int = 0, size: tuple[int, int] = (64, 48), format: str = "PNG") -> bytes:
        coarse = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(buffer, format)
        return buffer.getvalue()

    return make


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """The whole stack on free ports in a temporary home, started as `make run` starts it."""
    with started(tmp_path_factory.mktemp("home")) as running:
        yield running
