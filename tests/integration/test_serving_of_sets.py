"""What inference serves of a selection project: two heads that follow their own releases and never hinder each other."""

import hashlib
import io
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from inference_api import watching
from PIL import Image
from safetensors.numpy import load, save

from closedloop import project as projects
from closedloop import releases
from closedloop.errors import PictureOfSet, UnknownProject, WrongKind
from closedloop.models import artefact, cropper, ranker, saliency
from closedloop.models import encoder as encoders
from closedloop.project import CROPPER, RANKER, Project
from closedloop.storage import Stores, answers, registry
from closedloop.storage.database import Database
from closedloop.storage.objects import Objects
from tests.conftest import START, Clock
from tests.integration.serving import Answering, Starter, jpeg, ready
from tests.waiting import wait_for

SCENES = "{id: scenes, title: 'Which is best?', kind: selection}"
Files = dict[str, bytes]


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "LOOK_EVERY", 0.1)


@pytest.fixture
def serve(tmp_path):
    start = Starter(tmp_path / "inference")
    yield start
    start.stop()


@pytest.fixture(scope="module")
def tower() -> encoders.Encoder:
    return encoders.load("embedded")


@pytest.fixture(scope="module")
def fitted(tower: encoders.Encoder) -> dict[str, Any]:
    """Both heads as they fit themselves on little: of three pictures the one whose first number is highest is best."""
    chance = np.random.default_rng(0)
    inputs = chance.normal(size=(36, tower.inputs[RANKER])).astype(np.float32)
    sets = list(np.arange(36).reshape(12, 3))
    chosen = np.array([int(inputs[members, 0].argmax()) for members in sets])
    side = tower.grid_side
    grids = chance.normal(size=(12, side, side, tower.inputs[CROPPER])).astype(np.float32)
    boxes = np.tile([0.25, 0.25, 0.75, 0.75], (12, 1)) + chance.uniform(-0.1, 0.1, (12, 4))
    seen = (grids, chance.uniform(0.5, 2, 12), chance.uniform(size=(12, side, side)).astype(np.float32))
    return {
        RANKER: ranker.fit(inputs, sets, chosen, np.arange(12)),
        CROPPER: cropper.fit(*seen, boxes, np.arange(12)),
    }


@pytest.fixture
def scenes(stores: Stores) -> Project:
    made = projects.parse_manifest(SCENES)
    projects.add(stores, made, START)
    return made


def plain(files: Files) -> Files:
    return files


@pytest.fixture
def release(stores: Stores, scenes: Project, fitted: dict[str, Any], tower: encoders.Encoder, clock: Clock):
    """`release(head, spoil)`: one more release of a head goes live, its files as `spoil` leaves them."""
    count = 0

    def make(head: str, spoil: Callable[[Files], Files] = plain, card: dict[str, Any] | None = None) -> str:
        nonlocal count
        count += 1
        name = f"r{count:04d}-{head}"
        of = fitted[head]
        said = {
            "release": name,
            "project": "scenes",
            "head": head,
            "encoder": {"digest": tower.digest},
            "recipe": of.recipe.as_json(),
            "temperature": getattr(of, "temperature", 1.0),
        }
        files = spoil(artefact.pack(artefact.weights_bytes(of.head), {**said, **(card or {})}))
        for file, data in files.items():
            stores.objects.put(f"{artefact.place('scenes', head, name)}/{file}", data)
        made = {"project_id": "scenes", "head": head, "created_at": clock()}
        row = {"id": name, "number": count, "dataset_id": name, "encoder": tower.digest, "state": "candidate"}
        with stores.db.write() as tx:
            answers.add_dataset(tx, {**made, "id": name, "digest": f"{count:064x}", "items": 0}, [])
            registry.add_release(tx, {**made, **row, "reason": "", "card": said})
            registry.go_live(tx, "scenes", head, name, clock(), "")
        return name

    return make


def ranked_by(one: Answering) -> str | None:
    return one.rank("scenes", [jpeg(1), jpeg(2)])["release"]


def cropped_by(one: Answering) -> str | None:
    return one.crop("scenes", jpeg(1))["release"]


@pytest.fixture
def one(stores: Stores, scenes: Project, serve: Starter) -> Answering:
    """What is served, from the moment that it knows the project."""
    started = serve(stores)
    wait_for(lambda: ready(started, "scenes"), 30, "readiness")
    return started


def test_without_releases_nobody_has_an_opinion(one: Answering) -> None:
    said = one.rank("scenes", [jpeg(1), jpeg(2), jpeg(3)])
    digest = one.snapshot().chosen.digest
    assert said == {
        "ok": True, "scores": [0.0, 0.0, 0.0], "best": None, "confidence": 1 / 3, "release": None, "encoder": digest
    }  # fmt: skip
    assert one.crop("scenes", jpeg(1)) == {
        "ok": True,
        "box": {"x1": 0.0, "y1": 0.0, "x2": 1.0, "y2": 1.0},
        "confidence": None,
        "release": None,
        "encoder": digest,
    }


def test_a_set_is_ranked_as_its_ranker_ranks_what_the_encoder_sees(one, release, fitted, tower) -> None:
    name = release(RANKER)
    wait_for(lambda: ranked_by(one) == name, 60, "the release")
    shots = [jpeg(seed, (200, 150)) for seed in range(12)]
    images = [Image.open(io.BytesIO(shot)).convert("RGB") for shot in shots]
    head = replace(fitted[RANKER].head)
    inputs = np.concatenate(tower.embed_with_texture(images), axis=1)
    said = one.rank("scenes", shots)
    assert said["scores"] == pytest.approx(list(head.scores(inputs)), abs=1e-4)
    assert said["best"] == int(head.scores(inputs).argmax())
    assert said["confidence"] == pytest.approx(head.chances(inputs).max(), abs=1e-4)
    assert one.rank("scenes", shots[::-1])["best"] == 11 - said["best"]
    twice = one.rank("scenes", [shots[0], shots[1], shots[0]])["scores"]
    assert twice[0] == pytest.approx(twice[2], abs=1e-4)
    assert twice[0] != pytest.approx(twice[1], abs=1e-3)


def test_a_crop_is_the_box_that_its_cropper_proposes(one, release, fitted, tower) -> None:
    name = release(CROPPER)
    wait_for(lambda: cropped_by(one) == name, 60, "the release")
    shot = jpeg(3, (300, 120))
    image = Image.open(io.BytesIO(shot)).convert("RGB")
    salient = saliency.saliency(image, tower.grid_side)[None]
    boxes, expected = fitted[CROPPER].head.propose(tower.grid([image]), np.array([300 / 120]), salient)
    said = one.crop("scenes", shot)
    assert list(said["box"].values()) == pytest.approx(list(boxes[0]), abs=1e-4)
    assert said["confidence"] == pytest.approx(expected[0], abs=1e-4)
    assert said["box"]["x1"] < said["box"]["x2"]
    assert said["box"]["y1"] < said["box"]["y2"]


def test_each_head_follows_its_own_releases_and_rolls_back_alone(one, stores, release, clock) -> None:
    first = release(RANKER)
    box = release(CROPPER)
    wait_for(lambda: (ranked_by(one), cropped_by(one)) == (first, box), 60, "both releases")
    second = release(RANKER)
    wait_for(lambda: ranked_by(one) == second, 60, "the release")
    assert cropped_by(one) == box
    releases.rollback(stores, "scenes", RANKER, clock())
    wait_for(lambda: ranked_by(one) == first, 60, "the former one")
    assert cropped_by(one) == box
    assert {(entry["head"], entry["release"], entry["problem"]) for entry in one.describe()["releases"]} == {
        (RANKER, first, None),
        (CROPPER, box, None),
    }
    assert one.snapshot().releases == {("scenes", RANKER): first, ("scenes", CROPPER): box}


def tensors_of(files: Files) -> dict[str, np.ndarray]:
    return load(files[artefact.WEIGHTS])


def weighing(files: Files, weights: bytes) -> Files:
    """The release with other weights, its manifest agreeing with them."""
    manifest = json.loads(files[artefact.MANIFEST])
    manifest["sha256"][artefact.WEIGHTS] = hashlib.sha256(weights).hexdigest()
    return {**files, artefact.WEIGHTS: weights, artefact.MANIFEST: json.dumps(manifest).encode()}


def with_nan(files: Files) -> Files:
    tensors = {name: np.full_like(tensor, np.nan) for name, tensor in tensors_of(files).items()}
    return weighing(files, save(tensors))


def with_one_more(files: Files) -> Files:
    return weighing(files, save({**tensors_of(files), "more": np.zeros(3, np.float32)}))


def narrower(files: Files) -> Files:
    return weighing(files, save({n: np.ascontiguousarray(t[..., :-1]) for n, t in tensors_of(files).items()}))


def pickled(files: Files) -> Files:
    return weighing(files, pickle.dumps(tensors_of(files)))


def truncated(files: Files) -> Files:
    return weighing(files, files[artefact.WEIGHTS][:-4])


def with_a_large_header(files: Files) -> Files:
    return weighing(files, save(tensors_of(files), metadata={"x": "y" * 2**20}))


def without_manifest(files: Files) -> Files:
    return {name: data for name, data in files.items() if name != artefact.MANIFEST}


def tampered(files: Files) -> Files:
    return {**files, artefact.WEIGHTS: files[artefact.WEIGHTS][:-1] + b"\x7f"}


HOSTILE = {
    with_nan: "not all finite",
    with_one_more: "other names or shapes",
    narrower: "other names or shapes",
    pickled: "header of its weights is too large",
    truncated: "cannot be read",
    with_a_large_header: "header of its weights is too large",
    without_manifest: "MANIFEST.json is missing",
    tampered: "not what the manifest says",
}


@pytest.mark.parametrize("spoil", HOSTILE, ids=lambda spoil: spoil.__name__)
@pytest.mark.parametrize("head", [RANKER, CROPPER])
def test_a_hostile_release_of_one_head_is_refused_and_both_go_on_answering(one, release, head, spoil) -> None:
    good = {RANKER: release(RANKER), CROPPER: release(CROPPER)}
    wait_for(lambda: (ranked_by(one), cropped_by(one)) == (good[RANKER], good[CROPPER]), 60, "both releases")
    release(head, spoil)
    wait_for(lambda: one.snapshot().problems, 60, "a problem")
    ((of, problem),) = one.snapshot().problems.items()
    assert of == ("scenes", head)
    assert HOSTILE[spoil] in problem
    assert (ranked_by(one), cropped_by(one)) == (good[RANKER], good[CROPPER])
    assert [entry["head"] for entry in one.describe()["releases"] if entry["problem"]] == [head]
    better = release(head)
    wait_for(lambda: not one.snapshot().problems, 60, "a release that is good")
    assert (ranked_by(one), cropped_by(one)) == tuple({**good, head: better}.values())


@pytest.mark.parametrize("head", [RANKER, CROPPER])
def test_a_release_for_another_encoder_is_refused(one, release, head) -> None:
    release(head, card={"encoder": {"digest": "0" * 64}})
    wait_for(lambda: one.snapshot().problems, 60, "a problem")
    assert "another encoder" in one.snapshot().problems["scenes", head]
    assert (ranked_by(one), cropped_by(one)) == (None, None)


def test_a_release_is_of_the_head_that_it_was_made_for(one, release) -> None:
    release(CROPPER, card={"head": RANKER})
    wait_for(lambda: one.snapshot().problems, 60, "a problem")
    assert "of another release" in one.snapshot().problems["scenes", CROPPER]


def test_with_records_and_store_away_a_restart_serves_every_head(one, stores, serve, release) -> None:
    names = release(RANKER), release(CROPPER)
    wait_for(lambda: (ranked_by(one), cropped_by(one)) == names, 60, "both releases")
    shots = [jpeg(5), jpeg(6)]
    before = one.rank("scenes", shots), one.crop("scenes", shots[0])
    gone = Stores(Database("sqlite:////nowhere/closedloop.db"), Objects("http://127.0.0.1:9", "no", "body"))
    again = serve(gone)
    wait_for(lambda: ready(again, "scenes"), 60, "readiness")
    assert (again.rank("scenes", shots), again.crop("scenes", shots[0])) == before


def test_a_bad_release_is_still_not_served_after_a_restart(one, stores, serve, release) -> None:
    names = release(RANKER), release(CROPPER)
    wait_for(lambda: (ranked_by(one), cropped_by(one)) == names, 60, "both releases")
    release(CROPPER, tampered)
    wait_for(lambda: one.snapshot().problems, 60, "a problem")
    again = serve(stores)
    wait_for(lambda: ready(again, "scenes"), 60, "readiness")
    assert set(again.snapshot().problems) == {("scenes", CROPPER)}
    assert (ranked_by(again), cropped_by(again)) == names


def test_a_torn_file_of_one_head_is_no_loss_to_the_other(one, serve, release, tmp_path) -> None:
    """With the store away, too: what is whole on disk serves."""
    names = release(RANKER), release(CROPPER)
    wait_for(lambda: (ranked_by(one), cropped_by(one)) == names, 60, "both releases")
    serve.stop_following()
    kept = tmp_path / "inference" / "releases" / "scenes"
    (kept / RANKER / names[0] / artefact.WEIGHTS).write_bytes(b"torn")
    again = serve(Stores(Database("sqlite:////nowhere/closedloop.db"), Objects("http://127.0.0.1:9", "no", "body")))
    wait_for(lambda: ready(again, "scenes"), 60, "readiness")
    assert (ranked_by(again), cropped_by(again)) == (None, names[1])


def test_what_is_asked_must_fit_the_project(one, stores, pets) -> None:
    projects.add(stores, pets, START)
    wait_for(lambda: ready(one, "pets"), 60, "both projects")
    pair = [jpeg(1), jpeg(2)]
    for ask in (lambda: one.rank("pets", pair), lambda: one.crop("pets", pair[0])):
        with pytest.raises(WrongKind, match="this is for a selection"):
            ask()
    with pytest.raises(WrongKind, match="this is for a classification"):
        one.predict("scenes", pair[0])
    with pytest.raises(UnknownProject):
        one.rank("nobody", pair)


@pytest.mark.parametrize("trained", [False, True])
def test_a_broken_picture_is_named_by_its_number(one, release, trained) -> None:
    if trained:
        name = release(RANKER)
        wait_for(lambda: ranked_by(one) == name, 60, "the release")
    for number in (1, 6, 12):
        shots = [jpeg(seed) for seed in range(12)]
        shots[number - 1] = shots[number - 1][:300]
        with pytest.raises(PictureOfSet, match=f"Picture {number} of the set") as said:
            one.rank("scenes", shots)
        assert (said.value.code, said.value.status) == ("broken_picture", 422)
