"""A release is believed only after everything about it was checked."""

import hashlib
import json
import pickle

import numpy as np
import pytest
from safetensors.numpy import save

from closedloop.errors import BadArtefact
from closedloop.models import artefact, crop_head
from closedloop.models.heads import Classifier, Ranker, ranker_shapes
from closedloop.project import Project

CLASSES, D = ["cat", "dog", "owl"], 4
PETS = Project(id="pets", title="Pets", kind="classification", classes=(*CLASSES, "newt"))
ALBUM = Project(id="album", title="Album", kind="selection")


def card(**changes) -> dict:
    whole = {
        "release": "r0001-abc",
        "project": "pets",
        "head": "classifier",
        "classes": CLASSES,
        "encoder": {"digest": "e1"},
        "recipe": {"kind": "linear", "hidden": None},
        "temperature": 1.5,
    }
    return {**whole, **changes}


def tensors(**changes) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    whole = {"weight": random.standard_normal((3, D)).astype(np.float32), "bias": np.zeros(3, np.float32)}
    return {**whole, **changes}


def files(card_: dict | None = None, weights: bytes | None = None) -> dict[str, bytes]:
    return artefact.pack(save(tensors()) if weights is None else weights, card_ or card())


def unpack(given: dict[str, bytes]) -> artefact.Artefact:
    return artefact.unpack(given, PETS, "classifier", "r0001-abc", "e1", D)


def test_what_was_packed_comes_back_and_answers_the_same():
    ready = unpack(files())
    vectors = np.eye(D, dtype=np.float32)
    original = Classifier("linear", tensors(), 1.5)
    assert ready.classes == tuple(CLASSES)
    assert (ready.head.probabilities(vectors) == original.probabilities(vectors)).all()


def test_the_manifest_is_written_last():
    assert list(files())[-1] == artefact.MANIFEST


@pytest.mark.parametrize("name", [artefact.WEIGHTS, artefact.CARD, artefact.MANIFEST])
def test_a_file_that_is_missing_cut_off_or_changed_is_found(name):
    whole = files()
    for harm in (whole[name][:-3], whole[name].replace(b"a", b"b", 1) or b"x", b"", b"\x00" * 50):
        with pytest.raises(BadArtefact):
            unpack({**whole, name: harm})
    with pytest.raises(BadArtefact):
        unpack({key: value for key, value in whole.items() if key != name})


def test_weights_that_are_sound_but_not_the_manifests_are_refused():
    others = save(tensors(weight=np.ones((3, D), np.float32)))
    with pytest.raises(BadArtefact, match="not what the manifest says"):
        unpack({**files(), artefact.WEIGHTS: others})


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        (save(tensors(weight=np.full((3, D), np.nan, np.float32))), "finite"),
        (save(tensors(weight=np.full((3, D), np.inf, np.float32))), "finite"),
        (save(tensors(weight=np.full((3, D), 1e38, np.float32))), "huge"),
        (save(tensors(weight=np.zeros((D, 3), np.float32))), "shapes"),
        (save(tensors(weight=np.zeros((3, D + 1), np.float32))), "shapes"),
        (save(tensors(extra=np.zeros(1, np.float32))), "names"),
        (save({"weight": tensors()["weight"]}), "names"),
        (save(tensors(bias=np.zeros(3, np.float64))), "float32"),
        (pickle.dumps(tensors()), "too large"),
        (b"", "read"),
        ((1 << 40).to_bytes(8, "little") + b"{}", "too large"),
        (save(tensors(), {"padding": "x" * 2**20}), "too large"),
    ],
)
def test_hostile_weights_are_refused_with_the_reason(weights, reason):
    with pytest.raises(BadArtefact, match=reason):
        unpack(files(weights=weights))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"encoder": {"digest": "e2"}}, "another encoder"),
        ({"project": "birds"}, "another release"),
        ({"release": "r0002-abc"}, "another release"),
        ({"classes": ["cat", "dog"]}, "shapes"),
        ({"classes": ["cat", "dog", "dog"]}, "in their order"),
        ({"classes": ["dog", "cat", "owl"]}, "in their order"),
        ({"classes": ["dog", "owl", "newt"]}, "in their order"),
        ({"classes": []}, "in their order"),
        ({"temperature": 0}, "temperature"),
        ({"temperature": 1e-320}, "temperature"),
        ({"temperature": 1e30}, "temperature"),
        ({"temperature": "hot"}, "read"),
        ({"recipe": {"kind": "pickle"}}, "read"),
        ({"recipe": {"kind": "mlp", "hidden": 8}}, "names"),
    ],
)
def test_a_card_of_something_else_is_refused_with_the_reason(change, reason):
    with pytest.raises(BadArtefact, match=reason):
        unpack(files(card(**change)))


def test_a_manifest_that_names_other_files_is_refused():
    whole = files()
    manifest = json.loads(whole[artefact.MANIFEST])
    manifest["sha256"]["../../etc/passwd"] = hashlib.sha256(b"").hexdigest()
    with pytest.raises(BadArtefact, match="other files"):
        unpack({**whole, artefact.MANIFEST: json.dumps(manifest).encode()})


def of_album(of: str, **changes) -> dict:
    whole = card(project="album", head=of, recipe={"kind": "linear"})
    del whole["classes"]
    if of == "cropper":
        del whole["temperature"]
    return {**whole, **changes}


def sound(head: str, **changes) -> dict[str, np.ndarray]:
    """The tensors of a ranker or of a cropper."""
    shapes = {"ranker": ranker_shapes("linear", D), "cropper": crop_head.shapes(D)}[head]
    random = np.random.default_rng(0)
    return {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()} | changes


def unpack_of_album(head: str, given: dict[str, bytes], project: Project = ALBUM) -> artefact.Artefact:
    return artefact.unpack(given, project, head, "r0001-abc", "e1", D)


@pytest.fixture(params=["ranker", "cropper"])
def head(request) -> str:
    return request.param


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_a_ranker_comes_back_and_scores_the_same(kind):
    random = np.random.default_rng(0)
    weights = {n: random.standard_normal(s).astype(np.float32) for n, s in ranker_shapes(kind, D).items()}
    ready = unpack_of_album("ranker", artefact.pack(save(weights), of_album("ranker", recipe={"kind": kind})))
    inputs = random.standard_normal((3, D)).astype(np.float32)
    assert (ready.head.chances(inputs) == Ranker(kind, weights, 1.5).chances(inputs)).all()
    assert ready.classes == ()


def test_a_cropper_comes_back_and_proposes_the_same():
    random = np.random.default_rng(0)
    ready = unpack_of_album("cropper", artefact.pack(save(sound("cropper")), of_album("cropper")))
    seen = random.standard_normal((2, 3, 3, D)).astype(np.float32), np.ones(2), random.random((2, 3, 3))
    for one, other in zip(ready.head.propose(*seen), crop_head.Cropper(sound("cropper")).propose(*seen), strict=True):
        assert (one == other).all()


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda weights: save(weights | {"weight": np.full_like(weights["weight"], np.nan)}), "finite"),
        (lambda weights: save(weights | {"weight": np.full_like(weights["weight"], -np.inf)}), "finite"),
        (lambda weights: save(weights | {"weight": np.zeros((7, 7), np.float32)}), "shapes"),
        (lambda weights: save(weights | {"extra": np.zeros(1, np.float32)}), "names"),
        (lambda weights: save({"bias": np.zeros(1, np.float32)}), "names"),
        (lambda weights: save(weights | {"weight": weights["weight"].astype(np.float64)}), "float32"),
        (pickle.dumps, "too large"),
        (lambda weights: save(weights)[:-3], "read"),
        (lambda weights: save(weights, {"padding": "x" * 2**20}), "too large"),
    ],
)
def test_hostile_weights_of_a_ranker_or_a_cropper_are_refused_with_the_reason(head, harm, reason):
    with pytest.raises(BadArtefact, match=reason):
        unpack_of_album(head, artefact.pack(harm(sound(head)), of_album(head)))


def test_a_ranker_or_a_cropper_of_something_else_is_refused(head):
    given = artefact.pack(save(sound(head)), of_album(head))
    assert unpack_of_album(head, given).head_name == head
    for change, reason in (
        ({"encoder": {"digest": "e2"}}, "another encoder"),
        ({"project": "pets"}, "another release"),
        ({"head": "classifier"}, "another release"),
    ):
        with pytest.raises(BadArtefact, match=reason):
            unpack_of_album(head, artefact.pack(save(sound(head)), of_album(head, **change)))
    for name in given:
        with pytest.raises(BadArtefact, match=f"{name} is missing"):
            unpack_of_album(head, {key: value for key, value in given.items() if key != name})
    with pytest.raises(BadArtefact, match="no such head"):
        unpack_of_album(head, artefact.pack(save(sound(head)), of_album(head, project="pets")), PETS)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"temperature": -1}, "temperature"),
        ({"recipe": {"kind": "mlp"}}, "names"),
        ({"recipe": {"kind": "forest"}}, "read"),
        ({"recipe": {}}, "read"),
    ],
)
def test_a_ranker_whose_card_says_something_else_is_refused(change, reason):
    with pytest.raises(BadArtefact, match=reason):
        unpack_of_album("ranker", artefact.pack(save(sound("ranker")), of_album("ranker", **change)))
