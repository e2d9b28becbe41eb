"""The people of the demo: visitors at the page, annotators in Label Studio. Seeded, and fallible on purpose."""

import io
import random
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
import numpy as np
from PIL import Image

T = TypeVar("T")
MISTAKES = 0.05  # the share of an annotator's answers that are wrong
FLAGS, RELABELS = 0.25, 0.25  # the shares of wrong answers that a visitor flags, relabels


@dataclass(frozen=True)
class Shown:
    """A picture that a visitor sent, and the answer."""

    prediction_id: str
    image_id: str
    truth: str
    label: str | None
    release: str | None


def digits(seed: int) -> Iterator[tuple[bytes, str]]:
    """scikit-learn's 1,797 handwritten digits (UCI, 8 x 8 px) in a seeded order, as PNG pictures of 96 px."""
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    order = np.random.default_rng(seed).permutation(len(bunch.images))
    for index in order:
        grey = (255 - bunch.images[index] * (255 / 16)).astype(np.uint8)
        picture = Image.fromarray(grey).resize((96, 96), Image.Resampling.BICUBIC).convert("RGB")
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        yield buffer.getvalue(), str(bunch.target[index])


class Patient(httpx.Client):
    """A client that asks again, for so many seconds, where a service is away."""

    def __init__(self, patience: float = 0, **options: Any) -> None:
        super().__init__(timeout=60, trust_env=False, **options)
        self._patience = patience

    def request(self, *arguments: Any, **options: Any) -> httpx.Response:
        """As in httpx, for what may be repeated; raises HTTPError where the last answer is an error."""
        return self.patiently(lambda: self.once(*arguments, **options))

    def once(self, *arguments: Any, **options: Any) -> httpx.Response:
        """As `request`, without asking again."""
        return super().request(*arguments, **options).raise_for_status()

    def patiently(self, attempt: Callable[[], T]) -> T:
        """Call until it raises no HTTPError that time may heal."""
        until = time.monotonic() + self._patience
        while True:
            try:
                return attempt()
            except httpx.HTTPError as error:
                refused = isinstance(error, httpx.HTTPStatusError) and error.response.status_code < 500
                if refused or time.monotonic() > until:
                    raise
            time.sleep(0.5)


class Visitor:
    """Sends pictures to the upload page's address and says, now and then, that an answer is wrong."""

    def __init__(self, pages: str, project: str, seed: int, patience: float = 0) -> None:
        self._http = Patient(patience, base_url=pages, headers={"Accept": "application/json"})
        self._project = project
        self._random = random.Random(seed)  # noqa: S311
        self.truths: dict[str, str] = {}  # what is on each picture sent, by image id: annotators know it too

    def send(self, picture: bytes, truth: str) -> Shown:
        """Upload one picture; the answer may be that there is no model yet, or that it is kept for later."""
        body = self._http.post(
            f"/p/{self._project}/predict",
            files={"file": ("digit.png", picture, "image/png")},
            headers={"Idempotency-Key": uuid.uuid4().hex},  # sent twice, it is taken once
        ).json()
        self.truths[body["image_id"]] = truth
        return Shown(body["prediction_id"], body["image_id"], truth, body["label"], body["release"])

    def look(self, prediction_id: str) -> dict[str, Any]:
        """What the pages say of a prediction now."""
        return self._http.get(f"/predictions/{prediction_id}").json()

    def react(self, shown: Shown) -> str | None:
        """Flag or relabel a wrong answer, sometimes; returns what was done."""
        if shown.label is None or shown.label == shown.truth:
            return None
        chance = self._random.random()
        if chance < FLAGS:
            self._http.post("/feedback", json={"prediction_id": shown.prediction_id})
            return "flagged"
        if chance < FLAGS + RELABELS:
            said = {"prediction_id": shown.prediction_id, "label": shown.truth}
            self._http.post("/label", json=said)
            return "relabelled"
        return None


def logged_in(url: str, token: str, patience: float = 0) -> Patient:
    """A client of Label Studio that acts as the user of this token."""
    return Patient(patience, base_url=url, headers={"Authorization": f"Token {token}"})


def label_studio_projects(http: Any) -> Iterator[dict[str, Any]]:
    """Every project of a Label Studio that `http` is logged in to, which gives a hundred at once at most."""
    page: int | None = 1
    while page:
        said = http.get("/api/projects", params={"page_size": 100, "page": page}).json()
        yield from said["results"]
        page = page + 1 if said["next"] else None


class Annotators:
    """Answer Label Studio's open tasks through its own API, the oldest first, with some mistakes."""

    def __init__(self, http: Patient, project: str, truths: dict[str, str], seed: int) -> None:
        self._http = http  # logged in to Label Studio
        self._project = project
        self._truths = truths
        self._classes = sorted(set(truths.values())) or [str(n) for n in range(10)]
        self._random = random.Random(seed)  # noqa: S311
        self._queues: dict[str, int] = {}

    def queues(self) -> dict[str, int]:
        """Label Studio's project numbers by queue, once all four are there."""
        while len(self._queues) < 4:
            self._queues = {
                p["title"].split(" / ")[1]: p["id"]
                for p in label_studio_projects(self._http)
                if p["title"].startswith(f"{self._project} / ")
            }
            time.sleep(0.5)
        return self._queues

    def sizes(self) -> dict[str, tuple[int, int]]:
        """(tasks, answered tasks) of each queue, as Label Studio counts them."""
        sizes = {}
        for queue, number in self.queues().items():
            p = self._http.get(f"/api/projects/{number}").json()
            sizes[queue] = (p["task_number"], p["num_tasks_with_annotations"])
        return sizes

    def answer(self, at_most: int) -> int:
        """Answer open tasks, the queues in turn; returns how many."""
        open_tasks = [self._open(number) for number in self.queues().values()]
        in_turn = [task for tasks in _in_turn(open_tasks) for task in tasks][:at_most]
        for task in in_turn:
            truth = self._truths[task["data"]["image_id"]]
            others = [name for name in self._classes if name != truth]
            label = self._random.choice(others) if self._random.random() < MISTAKES else truth
            result = [{"from_name": "choice", "to_name": "image", "type": "choices", "value": {"choices": [label]}}]
            self._annotate(task["id"], {"result": result, "lead_time": 2.0})
        return len(in_turn)

    def _annotate(self, task: int, answer: dict[str, Any]) -> None:
        """Answer a task once: where the line broke, it may have been taken, and Label Studio would take it twice."""
        tried = False

        def attempt() -> None:
            nonlocal tried
            if tried and self._has_answered(task):
                return
            tried = True
            self._http.once("POST", f"/api/tasks/{task}/annotations/", json=answer)

        self._http.patiently(attempt)

    def _has_answered(self, task: int) -> bool:
        me = self._http.once("GET", "/api/current-user/whoami").json()["id"]
        answers = self._http.once("GET", f"/api/tasks/{task}/annotations/").json()
        return any(author(one) == me for one in answers)

    def _open(self, number: int) -> list[dict[str, Any]]:
        query = {"project": number, "fields": "all", "page_size": 500, "only_annotated": "false"}
        return [task for task in self._http.get("/api/tasks", params=query).json()["tasks"] if not task["is_labeled"]]


def author(annotation: dict[str, Any]) -> int:
    """Who made an annotation: Label Studio writes a number, or a person with a number."""
    who = annotation["completed_by"]
    return who["id"] if isinstance(who, dict) else who


def _in_turn(lists: list[list[dict[str, Any]]]) -> Iterator[list[dict[str, Any]]]:
    longest = max((len(entries) for entries in lists), default=0)
    return ([entries[i] for entries in lists if i < len(entries)] for i in range(longest))
