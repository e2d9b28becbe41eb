"""`closedloop doctor` on parts that are there, but not well."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from pydantic import SecretStr

from closedloop import project as projects
from closedloop.doctor import Finding, examine
from closedloop.settings import Settings
from closedloop.storage import open_stores
from closedloop.storage.objects import BUCKETS, Objects
from demo.installation import free_ports
from tests.conftest import KEY, SECRET, START, start_s3


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (port,) = free_ports(1)
    return Settings(
        closedloop_home=tmp_path / "home",
        s3_endpoint_url=f"http://127.0.0.1:{port}",
        aws_access_key_id=KEY,
        aws_secret_access_key=SecretStr(SECRET),
        closedloop_s3_port=port,
    )


def look(settings: Settings, part: str) -> Finding:
    (finding,) = [one for one in examine(settings, START) if one.part == part]
    return finding


def test_a_store_that_reads_well_and_takes_nothing_is_not_well(settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "objects"
    folder.mkdir()
    server = start_s3(folder, settings.closedloop_s3_port)
    objects = Objects.from_settings(settings)
    objects.make_buckets()
    assert look(settings, "store").ok
    assert objects.list("tracking") == []  # the look leaves nothing behind
    server.kill()
    server.wait()
    server = start_s3(folder, settings.closedloop_s3_port, "--read-only")
    objects.check(*BUCKETS)
    found = look(settings, "store")
    server.kill()
    server.wait()
    assert not found.ok
    assert "away or full" in found.seen


def test_a_default_project_that_is_not_there_is_named(settings: Settings) -> None:
    stores = open_stores(settings)
    stores.db.migrate()
    assert "CLOSEDLOOP_DEFAULT_PROJECT" in look(settings, "project").seen
    projects.make_first(stores, settings.closedloop_default_project, START)
    assert look(settings, "project").ok


def test_a_door_with_nobody_behind_it_is_not_well(settings: Settings) -> None:
    class Door(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(502)
            self.end_headers()

    with HTTPServer(("127.0.0.1", 0), Door) as door:
        threading.Thread(target=door.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{door.server_port}"
        found = look(settings.model_copy(update={"closedloop_web_url": address}), "pages")
        door.shutdown()
    assert not found.ok
    assert "what is behind it does not answer" in found.seen
