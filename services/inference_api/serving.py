"""What answers at this moment.

All of it is one immutable snapshot that is swapped whole, so that no request sees half of two releases.
"""

import base64
import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from closedloop.errors import EncoderUnavailable, UnknownProject
from closedloop.image import decode
from closedloop.installations import ASKED_FOR, ChosenEncoder
from closedloop.models.encoder import Encoder
from closedloop.models.heads import Classifier
from closedloop.project import CLASSIFIER, Project


@dataclass(frozen=True)
class Served:
    """Who answers for a project: a release, the encoder's words, or nobody (`head` None)."""

    project: Project
    release: str | None = None
    classes: tuple[str, ...] = ()
    head: Classifier | None = None


@dataclass(frozen=True)
class Snapshot:
    """Everything that answers rest on."""

    encoder: Encoder
    chosen: ChosenEncoder
    projects: dict[str, Served]
    problems: dict[str, str] = field(default_factory=dict)  # by project: why its live release is not served


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
        if project_id not in self.snapshot().projects:
            raise UnknownProject(project=project_id[:40])
        vector, now = self.embed(data)
        served = now.projects[project_id]
        if served.head is None:
            classes = served.project.classes
            label, probabilities = None, np.full(len(classes), 1 / len(classes))
        else:
            classes, probabilities = served.classes, served.head.probabilities(vector[None])[0]
            label = classes[int(probabilities.argmax())]
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
                "head": CLASSIFIER,
                "release": served.release,
                "classes": list(served.classes or served.project.classes),
                "problem": now.problems.get(id_),
            }
            for id_, served in now.projects.items()
        ]
        return {"ok": True, "encoder": now.chosen.as_json(), "notices": notices, "releases": releases}
