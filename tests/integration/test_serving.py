"""What inference serves: it follows the releases, never a bad one, and goes on with records and store away."""

import json
import shutil
import threading

import numpy as np
import pytest
from inference_api import watching
from PIL import Image

from closedloop import installations, releases, training
from closedloop.errors import EncoderUnavailable, UnknownProject
from closedloop.models import artefact
from closedloop.models import encoder as encoders
from closedloop.project import CLASSIFIER
from closedloop.storage import Stores, answers, pictures
from closedloop.storage.database import Database
from closedloop.storage.objects import Objects
from tests.conftest import START
from tests.integration.answered import lenient, seen
from tests.integration.serving import Answering, Starter, jpeg, ready
from tests.waiting import wait_for


@pytest.fixture(autouse=True)
def often(monkeypatch):
    monkeypatch.setattr(watching, "LOOK_EVERY", 0.1)


@pytest.fixture
def serve(tmp_path):
    start = Starter(tmp_path / "inference")
    yield start
    start.stop()


@pytest.fixture(scope="module")
def tower() -> encoders.Encoder:
    return encoders.load("embedded")


@pytest.fixture
def train(stores, project, clock, tower):
    """`train()`: ten more answered pictures of each class, then a release."""
    seeds = iter(range(10_000))

    def run() -> str:
        vectors = {}
        with stores.db.write() as tx:
            for _ in range(30):
                seed = next(seeds)
                image_id = f"{seed:032x}"
                colour = [(220, 30, 30), (30, 220, 30), (30, 30, 220)][seed % 3]
                shade = np.random.default_rng(seed).integers(-30, 30, 3)
                flat = Image.new("RGB", (32, 32), tuple(int(v) for v in np.clip(colour + shade, 0, 255)))
                vectors[image_id] = tower.embed([flat])[0]
                row = {
                    "project_id": project.id,
                    "id": image_id,
                    "key": f"production/pets/class_00/{image_id}.jpg",
                    "sha256": image_id * 2,
                    "phash": f"{int(np.random.default_rng(seed).integers(0, 2**63)):016x}",
                    "width": 1,
                    "height": 1,
                    "bytes": 1,
                    "source": "import",
                    "arrived_at": START,
                }
                pictures.add_image(tx, row)
                of = {"project_id": project.id, "image_id": image_id}
                answers.add_import(tx, {**of, "label": project.classes[seed % 3], "at": START})
        seen(stores, project.id, tower.digest, vectors, clock)
        made = training.train(stores, lenient(project), clock)
        assert made.passed, made.reason
        return made.release

    return run


def served(one: Answering) -> str | None:
    return one.predict("pets", jpeg(1))["release"]


def test_the_first_start_chooses_an_encoder_and_records_it(stores, project, serve):
    one = serve(stores)
    wait_for(lambda: ready(one), 60, "readiness")
    chosen = installations.chosen_encoder(stores)
    assert (chosen.name, chosen.digest) == ("embedded", one.snapshot().encoder.digest)
    said = one.predict("pets", jpeg(1))
    assert (said["label"], said["release"]) == (None, None)
    assert set(said["probabilities"].values()) == {1 / 3}
    with pytest.raises(UnknownProject):
        one.predict("nobody", jpeg(1))


def test_a_new_release_and_a_rollback_are_followed_without_dropping_a_request(stores, project, serve, train, clock):
    one = serve(stores)
    wait_for(lambda: ready(one), 60, "readiness")
    faults: list[Exception] = []
    said: set[str | None] = set()
    over = threading.Event()

    def ask() -> None:
        while not over.wait(0.01):
            try:
                said.add(served(one))
            except Exception as error:
                faults.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        first = train()
        wait_for(lambda: served(one) == first, 60, "the release")
        second = train()
        wait_for(lambda: served(one) == second, 60, "the release")
        releases.rollback(stores, "pets", CLASSIFIER, clock())
        wait_for(lambda: served(one) == first, 60, "the release")
    finally:
        over.set()
        asking.join()
    assert not faults
    assert said == {None, first, second}
    assert one.predict("pets", jpeg(1))["label"] in project.classes


def test_a_release_that_was_tampered_with_never_serves_and_the_former_goes_on(
    stores, project, serve, train, monkeypatch
):
    one = serve(stores)
    wait_for(lambda: ready(one), 60, "readiness")
    first = train()
    wait_for(lambda: ready(one) and served(one) == first, 60, "the release")
    put = stores.objects.put

    def spoil(key: str, data: bytes) -> None:
        put(key, data[:-1] + b"\x7f" if key.endswith(artefact.WEIGHTS) else data)

    monkeypatch.setattr(stores.objects, "put", spoil)
    train()
    wait_for(lambda: one.snapshot().problems, 60, "a problem")
    assert "not what the manifest says" in one.snapshot().problems["pets", "classifier"]
    assert served(one) == first
    assert one.describe()["releases"][0]["problem"]


def test_it_starts_from_disk_with_records_and_store_away(stores, project, serve, train):
    one = serve(stores)
    wait_for(lambda: ready(one), 60, "readiness")
    release = train()
    wait_for(lambda: ready(one) and served(one) == release, 60, "the release")
    before = one.predict("pets", jpeg(2))
    gone = Stores(Database("sqlite:////nowhere/closedloop.db"), Objects("http://127.0.0.1:9", "no", "body"))
    again = serve(gone)
    wait_for(lambda: ready(again), 60, "readiness")
    assert again.predict("pets", jpeg(2)) == before
    assert any("cannot be followed" in notice for notice in again.describe()["notices"])


def test_weights_that_are_not_the_recorded_ones_are_not_used(stores, project, serve):
    with stores.db.write() as tx:
        wrong = installations.ChosenEncoder("embedded", "f" * 64, 1280, False, "", "")
        installations.choose_encoder(tx, wrong, START)
    one = serve(stores)
    wait_for(lambda: one.away is not None, 60, "a store that is away")
    with pytest.raises(EncoderUnavailable, match="not those that this installation was made with"):
        one.snapshot()


def test_with_the_store_away_a_restart_still_serves_what_it_served(stores, project, serve, train, clock, tmp_path):
    one = serve(stores)
    wait_for(lambda: ready(one), 60, "readiness")
    first = train()
    wait_for(lambda: served(one) == first, 60, "the release")
    serve.stop_following()
    second = train()
    half = Stores(stores.db, Objects("http://127.0.0.1:9", "no", "body"))
    again = serve(half)
    wait_for(lambda: ready(again), 60, "readiness")
    assert again.snapshot().problems["pets", "classifier"]
    assert served(again) == first
    last = serve(stores)
    wait_for(lambda: ready(last) and served(last) == second, 60, "the release")


def test_a_torn_file_on_disk_is_fetched_again(stores, project, serve, train, tmp_path):
    one = serve(stores)
    wait_for(lambda: ready(one), 60, "readiness")
    release = train()
    wait_for(lambda: served(one) == release, 60, "the release")
    (tmp_path / "inference" / "releases" / "pets" / "classifier" / release / artefact.WEIGHTS).write_bytes(b"torn")
    again = serve(stores)
    wait_for(lambda: ready(again), 60, "readiness")
    assert served(again) == release


def test_what_a_former_version_kept_on_disk_still_serves(stores, project, serve, train, tmp_path):
    """It knew classifiers alone: one release a project, noted and kept without its head."""
    one = serve(stores)
    wait_for(lambda: ready(one), 60, "readiness")
    release = train()
    wait_for(lambda: served(one) == release, 60, "the release")
    before = one.predict("pets", jpeg(2))
    serve.stop_following()
    kept = tmp_path / "inference" / "releases" / "pets"
    shutil.move(kept / "classifier" / release, kept / release)
    (kept / "classifier").rmdir()
    state = json.loads((tmp_path / "inference" / "state.json").read_text())
    for entry in state["projects"].values():
        entry["release"] = entry.pop("releases")["classifier"]
    (tmp_path / "inference" / "state.json").write_text(json.dumps(state))
    gone = Stores(Database("sqlite:////nowhere/closedloop.db"), Objects("http://127.0.0.1:9", "no", "body"))
    again = serve(gone)
    wait_for(lambda: ready(again), 60, "readiness")
    assert again.predict("pets", jpeg(2)) == before


@pytest.mark.parametrize("state", ["", "[]", '{"encoder": null, "projects": {"pets": 7}}', "{}"])
def test_a_torn_note_of_what_was_served_is_no_hindrance(stores, project, serve, train, tmp_path, state):
    """It is asked for where the live release cannot be had."""
    one = serve(stores)
    wait_for(lambda: ready(one), 60, "readiness")
    serve.stop_following()
    release = train()
    (tmp_path / "inference" / "state.json").write_text(state)
    again = serve(Stores(stores.db, Objects("http://127.0.0.1:9", "no", "body")))
    wait_for(lambda: ready(again), 60, "readiness")
    assert again.snapshot().problems["pets", "classifier"]
    assert served(again) is None
    last = serve(stores)
    wait_for(lambda: ready(last) and served(last) == release, 60, "the release")
