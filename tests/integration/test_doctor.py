"""`closedloop doctor` on parts that are there, but not well."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from closedloop.doctor import Finding, examine
from closedloop.settings import Settings
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


def store(settings: Settings) -> Finding:
    (finding,) = [one for one in examine(settings, START) if one.part == "store"]
    return finding


def test_a_store_that_reads_well_and_takes_nothing_is_not_well(settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "objects"
    folder.mkdir()
    server = start_s3(folder, settings.closedloop_s3_port)
    objects = Objects.from_settings(settings)
    objects.make_buckets()
    assert store(settings).ok
    assert objects.list("tracking") == []  # the look leaves nothing behind
    server.kill()
    server.wait()
    server = start_s3(folder, settings.closedloop_s3_port, "--read-only")
    objects.check(*BUCKETS)
    found = store(settings)
    server.kill()
    server.wait()
    assert not found.ok
    assert "away or full" in found.seen
