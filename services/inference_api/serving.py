"""What answers at this moment.

All of it is one immutable snapshot that is swapped whole, so that no request sees half of two releases.
"""

import asyncio
import base64
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from closedloop.errors import ClosedloopError, EncoderUnavailable, PictureOfSet, TooLate, UnknownProject
from closedloop.installations import ASKED_FOR, ChosenEncoder
from closedloop.models.artefact import Head
from closedloop.models.converted import Choice
from closedloop.models.crop_head import Cropper
from closedloop.models.encoder import Encoder
from closedloop.models.heads import Classifier, Ranker
from closedloop.project import CLASSIFICATION, CLASSIFIER, CROPPER, RANKER, SELECTION, Project
from inference_api.pipeline import UNHURRIED, Asked, Pipeline

WHOLE = (0.0, 0.0, 1.0, 1.0)  # what there is to keep of a picture while no release can say

T = TypeVar("T")


@dataclass(frozen=True)
class Served:
    """Who answers for one head of a project: a release, the encoder's words, or nobody (`head` None)."""

    project: Project
    release: str | None = None
    classes: tuple[str, ...] = ()  # of a classifier
    head: Head | None = None


@dataclass(frozen=True)
class Snapshot:
    """Everything that answers rest on."""

    encoder: Encoder
    chosen: ChosenEncoder
    backend: Choice
    projects: dict[str, dict[str, Served]]  # by project and head
    problems: dict[tuple[str, str], str] = field(default_factory=dict)  # why a head's live release is not served

    def of(self, project_id: str, kind: str, head: str) -> Served:
        """Who answers for a head; raises UnknownProject, or WrongKind unless the project is of this kind."""
        heads = self.projects.get(project_id)
        if heads is None:
            raise UnknownProject(project=project_id[:40])
        next(iter(heads.values())).project.check_kind(kind)
        return heads[head]

    @property
    def releases(self) -> dict[tuple[str, str], str | None]:
        """The release that answers for each project and head."""
        return {(id_, head): one.release for id_, heads in self.projects.items() for head, one in heads.items()}


class Serving:
    """Answers from the current snapshot; `following.Follower` swaps it."""

    def __init__(self, setting: str, pipeline: Pipeline) -> None:
        self.setting = setting  # CLOSEDLOOP_ENCODER
        self.current: Snapshot | None = None
        self.away: str | None = None  # why the records cannot be read
        self._pipeline = pipeline

    def snapshot(self) -> Snapshot:
        """What is served now; raises EncoderUnavailable while nothing is loaded yet."""
        if self.current is None:
            raise EncoderUnavailable(name=self.setting, reason=self.away or "it is still being loaded; try again.")
        return self.current

    async def embed(self, data: bytes, asked: Asked = UNHURRIED) -> tuple[np.ndarray, Snapshot]:
        """The vector (d,) of a picture and the snapshot whose encoder made it. Raises the errors of `Pipeline.look`."""
        now = self.snapshot()
        return (await self._pipeline.look(now.encoder, data, asked))[0], now

    async def predict(self, project_id: str, data: bytes, asked: Asked = UNHURRIED) -> dict[str, Any]:
        """The answer about a picture: label, confidence, probabilities, release, encoder, vector (base64).

        Raises UnknownProject, WrongKind and the errors of `Pipeline.look`.
        """
        now = self.snapshot()
        served = now.of(project_id, CLASSIFICATION, CLASSIFIER)
        vector, _ = await self._pipeline.look(now.encoder, data, asked)
        if isinstance(served.head, Classifier):
            classes, probabilities = served.classes, served.head.probabilities(vector[None])[0]
            label = classes[int(probabilities.argmax())]
        else:
            classes = served.project.classes
            label, probabilities = None, np.full(len(classes), 1 / len(classes))
        return {
            "ok": True,
            "project": project_id,
            "label": label,
            "confidence": float(probabilities.max()),
            "probabilities": {name: float(p) for name, p in zip(classes, probabilities, strict=True)},
            "release": served.release,
            "encoder": now.chosen.digest,
            "vector": base64.b64encode(vector.astype("<f4").tobytes()).decode(),
        }

    def check(self, project_id: str) -> None:
        """Raise UnknownProject or WrongKind where `predict` would."""
        self.snapshot().of(project_id, CLASSIFICATION, CLASSIFIER)

    async def rank(self, project_id: str, pictures: Sequence[bytes], asked: Asked = UNHURRIED) -> dict[str, Any]:
        """Which picture of a set is the best: scores in their order, best, confidence, release, encoder.

        Raises UnknownProject, WrongKind, TooLate, or PictureOfSet with the fault.
        """
        now = self.snapshot()
        served = now.of(project_id, SELECTION, RANKER)
        scores, chances = np.zeros(len(pictures)), np.full(len(pictures), 1 / len(pictures))
        ranker = served.head if isinstance(served.head, Ranker) else None
        if ranker:
            looks = await _each(self._pipeline.look(now.encoder, data, asked) for data in pictures)
            inputs = np.stack([np.concatenate(look) for look in looks])
            scores, chances = ranker.scores(inputs), ranker.chances(inputs)
        else:  # broken ones are said all the same
            await _each(self._pipeline.check(now.encoder, data, asked) for data in pictures)
        return {
            "ok": True,
            "scores": [float(score) for score in scores],
            "best": int(chances.argmax()) if ranker else None,
            "confidence": float(chances.max()),
            "release": served.release,
            "encoder": now.chosen.digest,
        }

    async def crop(self, project_id: str, data: bytes, asked: Asked = UNHURRIED) -> dict[str, Any]:
        """Which part of a picture to keep: box, confidence, release, encoder; nobody knows: all of it, and null.

        Raises UnknownProject, WrongKind and the errors of `Pipeline.grid`.
        """
        now = self.snapshot()
        served = now.of(project_id, SELECTION, CROPPER)
        edges, confidence = WHOLE, None
        if isinstance(served.head, Cropper):
            laid = await self._pipeline.grid(now.encoder, data, asked)
            boxes, expected = served.head.propose(laid.cells[None], np.array([laid.aspect]), laid.saliency[None])
            edges, confidence = boxes[0], float(expected[0])
        else:
            await self._pipeline.check(now.encoder, data, asked)
        return {
            "ok": True,
            "box": {name: float(edge) for name, edge in zip(("x1", "y1", "x2", "y2"), edges, strict=True)},
            "confidence": confidence,
            "release": served.release,
            "encoder": now.chosen.digest,
        }

    def describe(self) -> dict[str, Any]:
        """What `/v1/releases` says."""
        now = self.snapshot()
        notices = [] if ASKED_FOR in now.chosen.reason else [now.chosen.reason]
        if self.setting not in ("auto", now.chosen.name):
            notices.append(
                f"CLOSEDLOOP_ENCODER is {self.setting}, but this installation uses {now.chosen.name}. "
                f"`closedloop encoder use {self.setting}` changes it."
            )
        if self.away:
            notices.append(f"The releases cannot be followed ({self.away}); the last known ones are served.")
        releases = [
            {
                "project": id_,
                "head": head,
                "release": served.release,
                "classes": list(served.classes or served.project.classes),
                "problem": now.problems.get((id_, head)),
            }
            for id_, heads in now.projects.items()
            for head, served in heads.items()
        ]
        return {
            "ok": True,
            "encoder": now.chosen.as_json(),
            "backend": now.backend.as_json(),
            "notices": notices,
            "releases": releases,
        }


async def _each(asked: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """What is said of each picture of a set; PictureOfSet with the number and the fault of the first bad one."""
    said = []
    for number, one in enumerate(await asyncio.gather(*asked, return_exceptions=True), 1):
        if isinstance(one, ClosedloopError) and not isinstance(one, TooLate):
            raise PictureOfSet.of(number, one)
        if isinstance(one, BaseException):
            raise one
        said.append(one)
    return said
