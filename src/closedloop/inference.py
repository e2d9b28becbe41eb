"""The client of the inference service."""

import base64
from dataclasses import dataclass
from typing import Any

import httpx

from closedloop.errors import InferenceAway, InferenceRefused
from closedloop.logs import REQUEST_ID_HEADER, current_request_id


@dataclass(frozen=True)
class Answer:
    """What one release (or the encoder's own words) said about one picture."""

    label: str | None  # None: no model could answer
    confidence: float  # 0-1; of equal probabilities where label is None
    probabilities: dict[str, float]
    release: str | None
    encoder: str  # digest of its weights
    vector: bytes  # float32, unit length


class Inference:
    """Asks the inference service, within a budget of seconds for connecting, sending and waiting."""

    def __init__(self, url: str, budget: float = 3.0) -> None:
        self.url = url
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

    def releases(self) -> dict[str, Any]:
        """What is loaded: `encoder`, `notices`, `releases`. Raises InferenceAway."""
        return self._call("GET", "/v1/releases")

    def ready(self) -> None:
        """Raise InferenceAway unless the service says that it is ready."""
        self._call("GET", "/readyz")

    def _call(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        headers = {REQUEST_ID_HEADER: request_id} if (request_id := current_request_id()) else {}
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
