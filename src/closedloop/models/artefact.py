"""A release on disk and in S3: `model.safetensors`, `card.json`, and `MANIFEST.json` last.

The manifest names every file's sha256; without it the release does not exist. Nothing in an artefact executes, and
nothing in it is believed before digests, names, shapes, types and finiteness were checked.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from closedloop.errors import BadArtefact
from closedloop.models.heads import Head, shapes
from closedloop.project import Project
from closedloop.storage.objects import MODELS

WEIGHTS, CARD, MANIFEST = "model.safetensors", "card.json", "MANIFEST.json"
LARGEST = 200 * 2**20  # bytes
LARGEST_HEADER = 2**16  # bytes of a safetensors file that name its tensors: ours have a few hundred
_UNREADABLE = (ArithmeticError, LookupError, TypeError, ValueError, AttributeError, RecursionError, SafetensorError)


@dataclass(frozen=True)
class Artefact:
    """A checked release, ready to answer."""

    project: str
    head_name: str
    release: str
    classes: tuple[str, ...]
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
    files: dict[str, bytes], project: Project, head_name: str, release: str, encoder: str, dimension: int
) -> Artefact:
    """Check the files of a release and make it ready; raises BadArtefact with the reason.

    `encoder` (digest) and `dimension` are those of the encoder that is loaded.
    """

    def require(condition: bool, reason: str) -> None:
        if not condition:
            raise BadArtefact(release=f"{project.id}/{head_name}/{release}", reason=reason)

    try:
        manifest = json.loads(files[MANIFEST])
        digests = {str(name): str(digest) for name, digest in manifest["sha256"].items()}
        require(set(digests) == {WEIGHTS, CARD}, "its manifest names other files")
        for name, digest in digests.items():
            require(len(files[name]) <= LARGEST, f"{name} is too large")
            require(hashlib.sha256(files[name]).hexdigest() == digest, f"{name} is not what the manifest says")
        card = json.loads(files[CARD])
        classes = tuple(str(name) for name in card["classes"])
        kind, hidden = card["recipe"]["kind"], card["recipe"].get("hidden")
        temperature = float(card["temperature"])
        named = (card["project"], card["head"], card["release"], manifest["release"])
        require(named == (project.id, head_name, release, release), "its card is of another release")
        require(card["encoder"]["digest"] == encoder, "it was trained on another encoder's embeddings")
        # Classes are only ever appended to a project; in another order every answer would be another class.
        in_order = classes == project.classes[: len(classes)] and len(classes) >= 2
        require(in_order, "its classes are not the project's in their order")
        require(np.isfinite(temperature) and temperature > 0, "its temperature is not a positive number")
        header = int.from_bytes(files[WEIGHTS][:8], "little")
        require(header <= LARGEST_HEADER, "the header of its weights is too large")
        tensors = load(files[WEIGHTS])
        expected = shapes(kind, dimension, len(classes), hidden)
    except _UNREADABLE as error:
        raise BadArtefact(
            release=f"{project.id}/{head_name}/{release}", reason=f"it cannot be read ({type(error).__name__}: {error})"
        ) from None
    require(
        {name: tensor.shape for name, tensor in tensors.items()} == expected, "its tensors have other names or shapes"
    )
    require(all(tensor.dtype == np.float32 for tensor in tensors.values()), "its tensors are not float32")
    require(all(bool(np.isfinite(tensor).all()) for tensor in tensors.values()), "its weights are not all finite")
    return Artefact(project.id, head_name, release, classes, encoder, Head(kind, tensors, temperature), card)
