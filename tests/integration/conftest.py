"""What the integration tests share."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from closedloop.project import Project
from closedloop.storage import Stores
from closedloop.storage.objects import Objects
from demo.installation import Installation, free_ports
from tests.conftest import KEY, SECRET, Clock, start_s3
from tests.integration.answered import adding
from tests.integration.stack import Loop, StandIn


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A real S3 server of the test's own: nothing of an earlier test can be in it or in what it remembers."""
    folder = tmp_path / "objects"
    folder.mkdir()
    port = free_ports(1)[0]
    process = start_s3(folder, port)
    yield f"http://127.0.0.1:{port}", folder
    process.kill()
    process.wait()


@pytest.fixture
def objects(s3: tuple[str, Path]) -> Objects:
    """The four buckets, empty."""
    store = Objects(s3[0], KEY, SECRET)
    store.make_buckets()
    return store


@pytest.fixture
def inference() -> StandIn:
    """In the place of the inference service."""
    return StandIn()


@pytest.fixture(scope="session")
def loop(installation: Installation) -> Iterator[Loop]:
    """The running stack, with hands on it."""
    made = Loop(installation)
    yield made
    made.close()


@pytest.fixture
def answered(stores: Stores, project: Project, clock: Clock) -> Callable[..., None]:
    """`answered(n, noise)`: n more imported pictures with answers, whose vectors show their class, more or less."""
    return adding(stores, project, clock)
