"""`closedloop embed`: every picture gets its vector, once, however often it is stopped, on one machine and on a cluster."""

import datetime as dt
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from closedloop import backfill, cluster, installations
from closedloop.backfill import Picture, Seen
from closedloop.errors import ClusterAway, StoreAway
from closedloop.installations import ChosenEncoder
from closedloop.models import backends
from closedloop.models.backends import most
from closedloop.models.converted import Converted
from closedloop.models.encoder import Encoder
from closedloop.settings import Settings
from closedloop.storage import Stores, pictures, tombstones, vectors
from demo.installation import free_ports
from tests.conftest import CACHE, KEY, SECRET, START
from tests.integration.serving import jpeg


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    digest = Converted(CACHE, backends.FP32).choose("embedded")[0].digest
    return Converted(CACHE, backends.FP32).open("embedded", digest)[0]


class Desk:
    """A project whose pictures are in the store, and have no vectors."""

    def __init__(self, stores: Stores, encoder: Encoder) -> None:
        self.stores, self.encoder = stores, encoder
        self.told: list[tuple[int, int]] = []

    def keep(self, seed: int, data: bytes | None = None, project_id: str = "pets") -> str:
        image_id = f"{seed:032x}"
        key = f"production/{project_id}/unclassified/{image_id}.jpg"
        if data != b"":
            self.stores.objects.put(key, data or jpeg(seed))
        row: dict[str, Any] = {
            "project_id": project_id,
            "id": image_id,
            "key": key,
            "sha256": image_id * 2,
            "phash": image_id[:16],
            "width": 1,
            "height": 1,
            "bytes": 1,
            "source": "import",
            "arrived_at": START,
        }
        with self.stores.db.write() as tx:
            pictures.add_image(tx, row)
        return image_id

    def look(self, some: Iterable[Picture]) -> Iterator[Seen]:
        return backfill.looked_at(self.stores.objects, self.encoder, some)

    def run(self, look: Any = None) -> backfill.Embedded:
        def clock() -> dt.datetime:
            return dt.datetime.now(dt.UTC)

        def progress(done: int, total: int) -> None:
            self.told.append((done, total))

        return backfill.run(self.stores, "pets", self.encoder.digest, look or self.look, clock, progress)

    def known(self) -> dict[str, np.ndarray]:
        with self.stores.db.read() as tx:
            ids = vectors.image_ids(tx, "pets", self.encoder.digest)
            return {
                one.image_id: np.frombuffer(one.vector, "<f4")
                for one in vectors.of(tx, "pets", self.encoder.digest, ids)
            }


@pytest.fixture
def desk(stores: Stores, project: Any, encoder: Encoder) -> Desk:
    return Desk(stores, encoder)


def seen_alone(encoder: Encoder, seed: int) -> np.ndarray:
    from closedloop.image import decode

    return encoder.embed([decode(jpeg(seed), encoder.size)])[0]


def test_every_picture_gets_its_own_vector(desk: Desk) -> None:
    ids = [desk.keep(seed) for seed in range(21)]
    done = desk.run()
    assert (done.embedded, done.faults) == (21, {})
    assert (desk.told[0], desk.told[-1]) == ((0, 21), (21, 21))
    known = desk.known()
    assert set(known) == set(ids)
    for seed, image_id in enumerate(ids):
        assert float(known[image_id] @ seen_alone(desk.encoder, seed)) > 0.9999
        assert np.linalg.norm(known[image_id]) == pytest.approx(1, abs=1e-4)
    assert desk.run().embedded == 0


def test_what_cannot_be_read_is_named_and_stops_nothing(desk: Desk) -> None:
    whole = [desk.keep(seed) for seed in range(10)]
    lost, broken = desk.keep(50, data=b""), desk.keep(51, data=jpeg(51)[:300])
    done = desk.run()
    assert done.embedded == 10
    assert done.faults[lost] == backfill.MISSING
    assert set(done.faults) == {lost, broken}
    assert set(desk.known()) == set(whole)


def test_a_picture_that_is_removed_meanwhile_gets_none(desk: Desk) -> None:
    stays, gone = desk.keep(1), desk.keep(2)

    def look(some: Sequence[Picture]) -> Iterator[Seen]:
        seen = list(desk.look(some))
        with desk.stores.db.write() as tx:
            tombstones.bury(tx, "pets", gone, "visitor", START)
        return iter(seen)

    assert desk.run(look).embedded == 1
    assert set(desk.known()) == {stays}
    assert desk.run().embedded == 0


def test_stopped_it_goes_on_where_it_was(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backfill, "PART", 4)
    ids = [desk.keep(seed) for seed in range(11)]
    looked: list[str] = []

    def look(some: Sequence[Picture]) -> Iterator[Seen]:
        for number, seen in enumerate(desk.look(some)):
            if number == 6:
                raise KeyboardInterrupt
            looked.append(seen.image_id)
            yield seen

    with pytest.raises(KeyboardInterrupt):
        desk.run(look)
    assert len(desk.known()) == 4
    assert desk.run().embedded == 7
    assert set(desk.known()) == set(ids)


def test_a_store_that_is_away_ends_it_and_keeps_what_was_done(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backfill, "PART", 4)
    for seed in range(40):
        desk.keep(seed)
    read, count = desk.stores.objects.get, 0

    def get(key: str) -> bytes:
        nonlocal count
        count += 1
        if count > 36:
            raise StoreAway
        return read(key)

    monkeypatch.setattr(desk.stores.objects, "get", get)
    with pytest.raises(StoreAway):
        desk.run()
    assert 0 < len(desk.known()) < 40
    monkeypatch.undo()
    desk.run()
    assert len(desk.known()) == 40


def test_reading_goes_ahead_of_the_tower_and_not_too_far(desk: Desk) -> None:
    for seed in range(100):
        desk.keep(seed)
    read: list[str] = []
    get = desk.stores.objects.get

    class Counting:
        def get(self, key: str) -> bytes:
            read.append(key)
            return get(key)

    with desk.stores.db.read() as tx:
        rows = [Picture(*row) for row in vectors.lacking(tx, "pets", desk.encoder.digest)]
    seen = backfill.looked_at(Counting(), desk.encoder, rows)  # type: ignore[arg-type]
    next(seen)
    batch = most(desk.encoder.tower)
    assert batch < len(read) <= (backfill.AHEAD + 1) * batch
    assert len(list(seen)) == 99
    assert len(read) == 100


class TestOnACluster:
    """A Ray of two machines, as far as Ray can tell: two nodes with a core each."""

    @pytest.fixture(scope="class")
    def address(self) -> Iterator[str]:
        ray = Path(sys.executable).with_name("ray")
        (port,) = free_ports(1)
        environment = {**os.environ, "CLOSEDLOOP_CACHE": str(CACHE), "RAY_USAGE_STATS_ENABLED": "0"}
        common = ["--num-cpus=1", "--num-gpus=0", "--disable-usage-stats"]

        def start(*how: str) -> None:
            command = [str(ray), "start", *how, *common]
            subprocess.run(command, env=environment, check=True, capture_output=True, timeout=120)

        start("--head", f"--port={port}", "--include-dashboard=false", "--object-store-memory=80000000")
        start(f"--address=127.0.0.1:{port}", "--object-store-memory=80000000")
        yield f"127.0.0.1:{port}"
        subprocess.run([str(ray), "stop", "--force"], capture_output=True, timeout=120, check=False)

    @pytest.fixture
    def settings(self, stores: Stores, tmp_path: Path) -> Settings:
        own: dict[str, Any] = {
            "closedloop_home": tmp_path,
            "closedloop_backend": backends.FP32,
            "s3_endpoint_url": stores.objects.endpoint_url,
            "aws_access_key_id": KEY,
            "aws_secret_access_key": SECRET,
        }
        return Settings(**own)

    @pytest.fixture
    def chosen(self, stores: Stores, encoder: Encoder) -> ChosenEncoder:
        made = ChosenEncoder("embedded", encoder.digest, encoder.dimension, False, "for a test", START.isoformat())
        with stores.db.write() as tx:
            installations.choose_encoder(tx, made, START)
        return made

    def test_two_workers_share_the_pictures(
        self, desk: Desk, settings: Settings, chosen: ChosenEncoder, address: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cluster, "BLOCK", 8)
        ids = [desk.keep(seed) for seed in range(40)]
        lost = desk.keep(50, data=b"")
        with cluster.Cluster(address, settings, chosen) as workers:
            assert workers._workers() == (2, {"num_cpus": 1})
            done = desk.run(workers.looked_at)
        assert (done.embedded, done.faults) == (40, {lost: backfill.MISSING})
        known = desk.known()
        assert set(known) == set(ids)
        for seed in (0, 17, 39):
            assert float(known[ids[seed]] @ seen_alone(desk.encoder, seed)) > 0.9999

    def test_a_worker_that_cannot_work_says_why(
        self, desk: Desk, settings: Settings, chosen: ChosenEncoder, address: str
    ) -> None:
        from dataclasses import replace

        desk.keep(1)
        with (
            cluster.Cluster(address, settings, replace(chosen, digest="0" * 64)) as workers,
            pytest.raises(ClusterAway, match="weights"),
        ):
            desk.run(workers.looked_at)

    def test_nobody_at_the_address(self, settings: Settings, chosen: ChosenEncoder) -> None:
        (port,) = free_ports(1)
        with pytest.raises(ClusterAway, match=str(port)):
            cluster.Cluster(f"127.0.0.1:{port}", settings, chosen)
