"""The client of the inference service."""

import base64
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from closedloop.errors import InferenceAway, InferenceRefused
from closedloop.logs import REQUEST_ID_HEADER, current_request_id

DEADLINE_HEADER = "X-Request-Deadline"  # seconds since 1970 (UTC), with decimals: later nobody waits for the answer


@dataclass(frozen=True)
class Answer:
    """What one release (or the encoder's own words) said about one picture."""

    label: str | None  # None: no model could answer
    confidence: float  # 0-1; of equal probabilities where label is None
    probabilities: dict[str, float]
    release: str | None
    encoder: str  # digest of its weights
    vector: bytes  # float32, unit length


@dataclass(frozen=True)
class Ranked:
    """What one release said about the pictures of a set, in their order."""

    scores: tuple[float, ...]
    best: int | None  # position; None: no release could answer
    confidence: float  # probability (0-1) that the best is the one that is chosen
    release: str | None
    encoder: str


@dataclass(frozen=True)
class Proposed:
    """Which part of a picture a release would keep."""

    box: tuple[float, float, float, float]  # x1, y1, x2, y2 as fractions
    confidence: float  # expected overlap (IoU, 0-1) with what a person would keep
    release: str
    encoder: str


class Inference:
    """Asks the inference service, within a budget of seconds for connecting, sending and waiting."""

    def __init__(self, url: str, budget: float = 3.0) -> None:
        self.url = url
        self._budget = budget
        timeout = httpx.Timeout(budget, connect=min(budget, 1.0))
        self._client = httpx.Client(base_url=url, timeout=timeout, trust_env=False)

    def predict(self, project_id: str, jpeg: bytes) -> Answer:
        """The answer about a stored picture.

        Raises InferenceAway where the service gives none in time, InferenceRefused where this picture is the reason.
        """
        body = self._call("POST", "/v1/predict", params={"project": project_id, "vector": "true"}, content=jpeg)
        try:
            return Answer(
                body["label"],
                float(body["confidence"]),
                {str(name): float(p) for name, p in body["probabilities"].items()},
                body["release"],
                str(body["encoder"]),
                base64.b64decode(body["vector"], validate=True),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InferenceAway(reason=f"its answer could not be read: {error!r}") from None

    def rank(self, project_id: str, jpegs: Sequence[bytes]) -> Ranked:
        """Which of some stored pictures is best.

        Raises InferenceAway where the service gives no answer in time, InferenceRefused where they are the reason.
        """
        files = [("file", (f"{number}.jpg", jpeg, "image/jpeg")) for number, jpeg in enumerate(jpegs)]
        body = self._call("POST", "/v1/rank", params={"project": project_id}, files=files)
        try:
            scores = tuple(float(score) for score in body["scores"])
            best = None if body["best"] is None else int(body["best"])
            if len(scores) != len(jpegs) or (best is not None and not 0 <= best < len(jpegs)):
                raise ValueError("it is about another number of pictures")
            return Ranked(scores, best, float(body["confidence"]), body["release"], str(body["encoder"]))
        except (KeyError, TypeError, ValueError) as error:
            raise InferenceAway(reason=f"its answer could not be read: {error!r}") from None

    def crop(self, project_id: str, jpeg: bytes) -> Proposed | None:
        """Which part of a stored picture to keep; None where no release can say. Raises as `rank` does."""
        body = self._call("POST", "/v1/crop", params={"project": project_id}, content=jpeg)
        if body.get("release") is None:
            return None
        try:
            box, confidence = body["box"], float(body["confidence"])
            edges = (float(box["x1"]), float(box["y1"]), float(box["x2"]), float(box["y2"]))
            return Proposed(edges, confidence, str(body["release"]), str(body["encoder"]))
        except (KeyError, TypeError, ValueError) as error:
            raise InferenceAway(reason=f"its answer could not be read: {error!r}") from None

    def releases(self) -> dict[str, Any]:
        """What is loaded: `encoder`, `notices`, `releases`. Raises InferenceAway."""
        return self._call("GET", "/v1/releases")

    def served(self, project_id: str) -> dict[str, str]:
        """Head -> the release that answers for a project at this moment. Raises InferenceAway."""
        try:
            rows = [row for row in self.releases()["releases"] if row["project"] == project_id]
            return {str(row["head"]): str(row["release"]) for row in rows if row["release"] is not None}
        except (KeyError, TypeError) as error:
            raise InferenceAway(reason=f"its answer could not be read: {error!r}") from None

    def ready(self) -> None:
        """Raise InferenceAway unless the service says that it is ready."""
        self._call("GET", "/readyz")

    def _call(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        headers = {DEADLINE_HEADER: f"{time.time() + self._budget:.3f}"}
        if request_id := current_request_id():
            headers[REQUEST_ID_HEADER] = request_id
        try:
            response = self._client.request(method, path, headers=headers, **request)
            if response.status_code in (413, 415, 422):
                raise InferenceRefused(reason=response.text[:200])
            if response.status_code != 200:
                raise InferenceAway(reason=f"it said {response.status_code}: {response.text[:200]}")
            body = response.json()
        except (httpx.HTTPError, ValueError) as error:
            raise InferenceAway(reason=f"{type(error).__name__} at {self.url}") from None
        if not isinstance(body, dict):
            raise InferenceAway(reason="its answer is no JSON object")
        return body
