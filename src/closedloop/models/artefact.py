"""A release on disk and in S3: `model.safetensors`, `card.json`, and `MANIFEST.json` last.

The manifest names every file's sha256; without it the release does not exist. Nothing in an artefact executes, and
nothing in it is believed before digests, names, shapes, types and finiteness were checked.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from closedloop.errors import BadArtefact
from closedloop.models import crop_head
from closedloop.models.calibration import TEMPERATURES
from closedloop.models.crop_head import Cropper
from closedloop.models.heads import Classifier, Ranker, Shapes, classifier_shapes, ranker_shapes
from closedloop.project import CLASSIFIER, CROPPER, RANKER, Project
from closedloop.storage.objects import MODELS

WEIGHTS, CARD, MANIFEST = "model.safetensors", "card.json", "MANIFEST.json"
LARGEST = 200 * 2**20  # bytes
LARGEST_WEIGHT = 1e6
LARGEST_HEADER = 2**16  # bytes of a safetensors file that name its tensors: ours have a few hundred
Head = Classifier | Ranker | Cropper
_Reader = tuple[Shapes, Callable[[dict[str, np.ndarray]], Head]]  # what tensors a card promises, and a head of them
_UNREADABLE = (ArithmeticError, LookupError, TypeError, ValueError, AttributeError, RecursionError, SafetensorError)


@dataclass(frozen=True)
class Artefact:
    """A checked release, ready to answer."""

    project: str
    head_name: str
    release: str
    classes: tuple[str, ...]  # of a classifier, else none
    encoder: str  # digest
    head: Head
    card: dict[str, Any]


def place(project: str, head: str, release: str) -> str:
    """The folder of a release, bucket first."""
    return f"{MODELS}/{project}/{head}/{release}"


def weights_bytes(head: Head) -> bytes:
    """The head's tensors as safetensors, the same bytes for the same values."""
    return save({name: np.ascontiguousarray(head.tensors[name]) for name in sorted(head.tensors)})


def pack(weights: bytes, card: dict[str, Any]) -> dict[str, bytes]:
    """The files of a release in the order in which they must be written."""
    text = json.dumps(card, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    digests = {WEIGHTS: hashlib.sha256(weights).hexdigest(), CARD: hashlib.sha256(text).hexdigest()}
    manifest = json.dumps({"release": card["release"], "sha256": digests}, indent=2).encode() + b"\n"
    return {WEIGHTS: weights, CARD: text, MANIFEST: manifest}


def unpack(
    files: dict[str, bytes], project: Project, head_name: str, release: str, encoder: str, width: int
) -> Artefact:
    """Check the files of a release and make it ready; raises BadArtefact with the reason.

    `encoder` is the digest of the encoder that is loaded, `width` that of the features which it gives this head.
    """

    def require(condition: bool, reason: str) -> None:
        if not condition:
            raise BadArtefact(release=f"{project.id}/{head_name}/{release}", reason=reason)

    for name in (MANIFEST, CARD, WEIGHTS):
        require(name in files, f"{name} is missing")
    try:
        manifest = json.loads(files[MANIFEST])
        digests = {str(name): str(digest) for name, digest in manifest["sha256"].items()}
        require(set(digests) == {WEIGHTS, CARD}, "its manifest names other files")
        for name, digest in digests.items():
            require(len(files[name]) <= LARGEST, f"{name} is too large")
            require(hashlib.sha256(files[name]).hexdigest() == digest, f"{name} is not what the manifest says")
        card = json.loads(files[CARD])
        named = (card["project"], card["head"], card["release"], manifest["release"])
        require(named == (project.id, head_name, release, release), "its card is of another release")
        require(card["encoder"]["digest"] == encoder, "it was trained on another encoder's embeddings")
        require(head_name in _READERS and head_name in project.heads, "the project has no such head")
        classes = tuple(str(name) for name in card["classes"]) if head_name == CLASSIFIER else ()
        # Classes are only ever appended to a project; in another order every answer would be another class.
        in_order = classes == project.classes[: len(classes)] and len(classes) >= 2
        require(head_name != CLASSIFIER or in_order, "its classes are not the project's in their order")
        if head_name != CROPPER:
            temperature, (coldest, hottest) = float(card["temperature"]), TEMPERATURES
            require(coldest <= temperature <= hottest, f"its temperature is not from {coldest} to {hottest}")
        header = int.from_bytes(files[WEIGHTS][:8], "little")
        require(header <= LARGEST_HEADER, "the header of its weights is too large")
        tensors = load(files[WEIGHTS])
        expected, make = _READERS[head_name](card, width)
    except _UNREADABLE as error:
        raise BadArtefact(
            release=f"{project.id}/{head_name}/{release}", reason=f"it cannot be read ({type(error).__name__}: {error})"
        ) from None
    require(
        {name: tensor.shape for name, tensor in tensors.items()} == expected, "its tensors have other names or shapes"
    )
    require(all(tensor.dtype == np.float32 for tensor in tensors.values()), "its tensors are not float32")
    require(all(bool(np.isfinite(tensor).all()) for tensor in tensors.values()), "its weights are not all finite")
    # A fit of ours has weights far below this; larger ones would overflow on the way to an answer.
    require(all(np.abs(tensor).max(initial=0) <= LARGEST_WEIGHT for tensor in tensors.values()), "its weights are huge")
    return Artefact(project.id, head_name, release, classes, encoder, make(tensors), card)


def _classifier(card: dict[str, Any], width: int) -> _Reader:
    kind, temperature = card["recipe"]["kind"], float(card["temperature"])
    expected = classifier_shapes(kind, width, len(card["classes"]), card["recipe"].get("hidden"))
    return expected, lambda tensors: Classifier(kind, tensors, temperature)


def _ranker(card: dict[str, Any], width: int) -> _Reader:
    kind, temperature = card["recipe"]["kind"], float(card["temperature"])
    return ranker_shapes(kind, width), lambda tensors: Ranker(kind, tensors, temperature)


def _cropper(_card: dict[str, Any], width: int) -> _Reader:
    return crop_head.shapes(width), Cropper


_READERS: dict[str, Callable[[dict[str, Any], int], _Reader]] = {
    CLASSIFIER: _classifier,
    RANKER: _ranker,
    CROPPER: _cropper,
}
