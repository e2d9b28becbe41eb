"""What answers at this moment.

All of it is one immutable snapshot that is swapped whole, so that no request sees half of two releases.
"""

import base64
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from closedloop.errors import ClosedloopError, EncoderUnavailable, PictureOfSet, UnknownProject
from closedloop.image import decode
from closedloop.installations import ASKED_FOR, ChosenEncoder
from closedloop.models import saliency
from closedloop.models.encoder import BATCH, Encoder
from closedloop.project import CLASSIFICATION, CLASSIFIER, CROPPER, RANKER, SELECTION, Project

DECODING = 2  # pictures of a set at once


@dataclass(frozen=True)
class Ready:
    """Who answers as a project's head: a release, the encoder's words, or nobody (`head` None)."""

    release: str | None = None
    head: Any = None  # a Classifier, Ranker or Cropper
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Served:
    """Who answers for a project, by head."""

    project: Project
    heads: dict[str, Ready] = field(default_factory=dict)

    def ready(self, head: str) -> Ready:
        """Who answers as this head."""
        return self.heads.get(head, Ready())


@dataclass(frozen=True)
class Snapshot:
    """Everything that answers rest on."""

    encoder: Encoder
    chosen: ChosenEncoder
    projects: dict[str, Served]
    problems: dict[tuple[str, str], str] = field(default_factory=dict)  # by (project, head): why not served

    def of(self, project_id: str, kind: str) -> Served:
        """Who answers for a project of this kind; raises UnknownProject, WrongKind."""
        if project_id not in self.projects:
            raise UnknownProject(project=project_id[:40])
        served = self.projects[project_id]
        served.project.check_kind(kind)
        return served


class Serving:
    """Answers from the current snapshot; `following.Follower` swaps it."""

    def __init__(self, setting: str) -> None:
        self.setting = setting  # CLOSEDLOOP_ENCODER
        self.current: Snapshot | None = None
        self.away: str | None = None  # why the records cannot be read
        self._embedding = threading.Lock()

    def snapshot(self) -> Snapshot:
        """What is served now; raises EncoderUnavailable while nothing is loaded yet."""
        if self.current is None:
            raise EncoderUnavailable(name=self.setting, reason=self.away or "it is still being loaded; try again.")
        return self.current

    def embed(self, data: bytes) -> tuple[np.ndarray, Snapshot]:
        """The vector (d,) of a picture and the snapshot whose encoder made it. Raises the errors of `decode`."""
        now = self.snapshot()
        picture = decode(data, now.encoder.size)
        with self._embedding:  # one at a time: torch uses every core for each
            return now.encoder.embed([picture])[0], now

    def predict(self, project_id: str, data: bytes) -> dict[str, Any]:
        """The answer about a picture: label, confidence, probabilities, release, encoder, vector (base64)."""
        self.snapshot().of(project_id, CLASSIFICATION)
        vector, now = self.embed(data)
        served = now.of(project_id, CLASSIFICATION)
        ready = served.ready(CLASSIFIER)
        if ready.head is None:
            classes = served.project.classes
            label, probabilities = None, np.full(len(classes), 1 / len(classes))
        else:
            classes, probabilities = ready.classes, ready.head.probabilities(vector[None])[0]
            label = classes[int(probabilities.argmax())]
        return {
            "ok": True,
            "project": project_id,
            "label": label,
            "confidence": float(probabilities.max()),
            "probabilities": {name: float(p) for name, p in zip(classes, probabilities, strict=True)},
            "release": ready.release,
            "encoder": now.chosen.digest,
            "vector": base64.b64encode(vector.astype("<f4").tobytes()).decode(),
        }

    def rank(self, project_id: str, files: Sequence[bytes]) -> dict[str, Any]:
        """Which picture of a set is best: scores, best (its place), confidence, release, encoder.

        Raises PictureOfSet with the fault and the number of a picture that cannot be read.
        """
        now = self.snapshot()
        ready = now.of(project_id, SELECTION).ready(RANKER)
        with ThreadPoolExecutor(DECODING) as pool:
            pictures = list(pool.map(lambda at: _decoded(at + 1, files[at], now.encoder.size), range(len(files))))
        answer = {"ok": True, "project": project_id, "release": ready.release, "encoder": now.chosen.digest}
        if ready.head is None:
            nobody = {"scores": [0.0] * len(files), "best": None, "confidence": 1 / len(files)}
            return {**answer, **nobody}
        inputs = []
        for start in range(0, len(pictures), BATCH):
            with self._embedding:
                vectors, textures = now.encoder.embed_with_texture(pictures[start : start + BATCH])
            inputs.append(np.concatenate([vectors, textures], axis=1))
        seen = np.concatenate(inputs)
        scores, chances = ready.head.scores(seen), ready.head.chances(seen)
        best = int(scores.argmax())
        return {**answer, "scores": scores.tolist(), "best": best, "confidence": float(chances[best])}

    def crop(self, project_id: str, data: bytes) -> dict[str, Any]:
        """Which part of a picture to keep: box, confidence, release, encoder. The whole of it where nobody can say."""
        now = self.snapshot()
        ready = now.of(project_id, SELECTION).ready(CROPPER)
        picture = decode(data, now.encoder.grid_size)
        box, confidence = np.array([0.0, 0.0, 1.0, 1.0]), None
        if ready.head is not None:
            with self._embedding:
                grids = now.encoder.grid([picture])
            aspects = np.array([picture.width / picture.height])
            boxes, expected = ready.head.propose(
                grids, aspects, saliency.saliency(picture, now.encoder.grid_side)[None]
            )
            box, confidence = boxes[0], float(expected[0])
        return {
            "ok": True,
            "project": project_id,
            "box": {name: float(edge) for name, edge in zip(("x1", "y1", "x2", "y2"), box, strict=True)},
            "confidence": confidence,
            "release": ready.release,
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
                "release": ready.release,
                "classes": list(ready.classes or served.project.classes),
                "problem": now.problems.get((id_, head)),
            }
            for id_, served in now.projects.items()
            for head, ready in served.heads.items()
        ]
        return {"ok": True, "encoder": now.chosen.as_json(), "notices": notices, "releases": releases}


def _decoded(number: int, data: bytes, size: int) -> Any:
    try:
        return decode(data, size)
    except ClosedloopError as fault:
        raise PictureOfSet.of(number, fault) from None
