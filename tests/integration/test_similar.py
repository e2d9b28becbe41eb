"""Similar pictures: in step with the records, over restarts, removals and with the records away."""

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from inference_api import watching
from inference_api.similar import Similar

from closedloop import project as projects
from closedloop.errors import UnknownProject, VectorsNotRead
from closedloop.models.encoder import Encoder
from closedloop.storage import Stores, pictures, tombstones, vectors
from closedloop.storage.database import Database
from tests.conftest import START
from tests.integration.serving import Answering, Starter, jpeg, ready, waited
from tests.waiting import wait_for


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "LOOK_EVERY", 0.1)


class Desk:
    """A project with kept pictures, and inference beside it."""

    def __init__(self, stores: Stores, disk: Path) -> None:
        self.stores, self.disk = stores, disk
        self.start = Starter(disk)
        self.one: Answering = self.start(stores)
        wait_for(lambda: ready(self.one), 60, "inference serves")
        self.similar = self.follow(stores)

    def follow(self, stores: Stores) -> Similar:
        made = Similar(self.one.serving, lambda: stores, self.disk / "vectors", lambda: dt.datetime.now(dt.UTC))
        made.start()
        return made

    @property
    def encoder(self) -> Encoder:
        return self.one.snapshot().encoder

    def keep(self, seed: int, project_id: str = "pets", embedded: bool = True) -> str:
        """A kept picture, that inference has answered about."""
        image_id = f"{seed:032x}"
        row: dict[str, Any] = {
            "project_id": project_id,
            "id": image_id,
            "key": f"production/{project_id}/class_00/{image_id}.jpg",
            "sha256": image_id * 2,
            "phash": image_id[:16],
            "width": 1,
            "height": 1,
            "bytes": 1,
            "source": "upload",
            "arrived_at": START,
        }
        vector, now = self.one.embed(jpeg(seed))
        with self.stores.db.write() as tx:
            pictures.add_image(tx, row)
            if embedded:
                kept = vectors.Vector(image_id, vector.astype("<f4").tobytes())
                vectors.add(tx, project_id, now.chosen.digest, [kept], dt.datetime.now(dt.UTC))
        return image_id

    def remove(self, image_id: str) -> None:
        with self.stores.db.write() as tx:
            tombstones.bury(tx, "pets", image_id, "visitor", dt.datetime.now(dt.UTC))

    def ask(self, seed: int, count: int = 10, project_id: str = "pets") -> dict[str, Any]:
        return waited(self.similar.similar(project_id, count, jpeg(seed)))

    def found(self, seed: int, count: int = 10) -> list[str]:
        """The pictures that are found; none before the first look."""
        try:
            return [one["image_id"] for one in self.ask(seed, count)["similar"]]
        except VectorsNotRead:
            return []

    def stop(self) -> None:
        self.similar.stop()
        self.start.stop()


@pytest.fixture
def desk(stores: Stores, project: Any, tmp_path: Path) -> Any:
    made = Desk(stores, tmp_path / "inference")
    yield made
    made.stop()


def test_the_nearest_come_first_with_their_cosines(desk: Desk) -> None:
    ids = [desk.keep(seed) for seed in range(6)]
    wait_for(lambda: len(desk.found(3)) == 6, 20, "all are found")
    said = desk.ask(3, 4)
    assert said["among"] == 6
    assert said["encoder"] == desk.encoder.digest
    known = np.stack([desk.one.embed(jpeg(seed))[0] for seed in range(6)])
    cosines = known @ known[3]
    order = np.argsort(-cosines)[:4]
    assert [one["image_id"] for one in said["similar"]] == [ids[row] for row in order]
    assert [one["similarity"] for one in said["similar"]] == pytest.approx(list(cosines[order]), abs=1e-5)
    assert said["similar"][0]["similarity"] == pytest.approx(1, abs=1e-5)


def test_new_pictures_come_and_removed_ones_go(desk: Desk) -> None:
    first = desk.keep(1)
    wait_for(lambda: desk.found(1) == [first], 20, "the first is found")
    second = desk.keep(2)
    wait_for(lambda: set(desk.found(1)) == {first, second}, 20, "the second is found")
    desk.remove(first)
    wait_for(lambda: desk.found(1) == [second], 20, "the removed one is gone")


def test_what_happened_while_it_was_down_is_found_at_the_start(desk: Desk) -> None:
    gone, stays = desk.keep(1), desk.keep(2)
    wait_for(lambda: len(desk.found(1)) == 2, 20, "both are found")
    desk.similar.stop()
    desk.remove(gone)
    new = desk.keep(3)
    desk.similar = desk.follow(desk.stores)
    wait_for(lambda: set(desk.found(1)) == {stays, new}, 20, "it has caught up")


def test_two_replicas_on_one_disk_do_not_meet(desk: Desk) -> None:
    ids = {desk.keep(seed) for seed in range(3)}
    wait_for(lambda: set(desk.found(1)) == ids, 20, "the first replica has read")
    other = desk.follow(desk.stores)
    try:
        desk.similar, former = other, desk.similar
        wait_for(lambda: set(desk.found(1)) == ids, 20, "the second replica has read")
        ids.add(desk.keep(4))
        wait_for(lambda: set(desk.found(1)) == ids, 20, "the second replica follows")
        desk.similar = former
        wait_for(lambda: set(desk.found(1)) == ids, 20, "the first replica follows")
        assert len(list((desk.disk / "vectors").iterdir())) == 2
    finally:
        other.stop()


def test_with_the_records_away_what_was_known_last_is_searched(desk: Desk) -> None:
    ids = {desk.keep(seed) for seed in range(3)}
    wait_for(lambda: set(desk.found(1)) == ids, 20, "all are found")
    desk.similar.stop()
    away = Stores(Database("postgresql://nobody@127.0.0.1:9/nothing"), desk.stores.objects)
    desk.similar = desk.follow(away)
    wait_for(lambda: set(desk.found(1)) == ids, 30, "what was known last is found")


def test_projects_are_searched_apart(desk: Desk) -> None:
    mine = desk.keep(1)
    text = "{id: others, title: Others, kind: classification, classes: [a, b]}"
    projects.add(desk.stores, projects.parse_manifest(text), START)
    wait_for(lambda: ready(desk.one, "others"), 20, "the other project is served")
    theirs = desk.keep(2, "others")

    def found(project_id: str) -> list[str]:
        try:
            return [one["image_id"] for one in desk.ask(1, project_id=project_id)["similar"]]
        except VectorsNotRead:
            return []

    wait_for(lambda: (found("pets"), found("others")) == ([mine], [theirs]), 20, "each finds its own")
    with pytest.raises(UnknownProject):
        desk.ask(1, project_id="nobody")
