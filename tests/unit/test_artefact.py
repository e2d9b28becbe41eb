"""A release is believed only after everything about it was checked."""

import hashlib
import json
import pickle

import numpy as np
import pytest
from safetensors.numpy import save

from closedloop.errors import BadArtefact
from closedloop.models import artefact
from closedloop.models.heads import Classifier
from closedloop.project import Project

CLASSES, D = ["cat", "dog", "owl"], 4
PETS = Project(id="pets", title="Pets", kind="classification", classes=(*CLASSES, "newt"))


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
