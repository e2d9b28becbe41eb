"""The second half of the demo: sets of pictures, of which people choose the best and crop it.

A scene is a flower before a city, from the two photos that scikit-learn brings, taken two to four times: the shots
differ in how sharp they are and where the flower stands. People want the sharpest shot, and of it the flower with a
little room around it; who is asked does not always see which is sharper.
"""

import io
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from rich.console import Console

from demo.installation import CHECKOUT, Installation
from demo.people import Patient, label_studio_projects, logged_in

PROJECT = "scenes"
SIZE = (320, 240)  # px
FLOWER = (212, 84, 468, 340)  # in scikit-learn's flower.jpg
BLUR = (0.0, 2.5)  # px: from a sharp shot to one that nobody would keep
UNSURE = 0.35  # px of blur: the standard deviation of what an annotator sees
ROOM = 0.08  # of the flower's size, around it in a crop
HAND = 0.015  # of the picture's side: how exactly an annotator draws
SENT, NEW = 60, 20  # sets before the first release, and after it
PATIENCE = 120  # s for the services to do their part


@dataclass(frozen=True)
class Shot:
    """One picture of a scene: its bytes, how blurred it is, and where the flower stands (x1, y1, x2, y2, 0-1)."""

    data: bytes
    blur: float
    box: tuple[float, float, float, float]


@cache
def _photos() -> tuple[Image.Image, Image.Image]:
    from sklearn.datasets import load_sample_image

    return Image.fromarray(load_sample_image("china.jpg")), Image.fromarray(load_sample_image("flower.jpg"))


def scenes(seed: int) -> Iterator[list[Shot]]:
    """Scenes without end, two to four shots each."""
    chance = np.random.default_rng(seed)
    while True:
        place = chance.random(2)
        wide = int(chance.integers(70, 150))
        yield [_shot(chance, place, wide) for _ in range(int(chance.integers(2, 5)))]


def _shot(chance: np.random.Generator, place: np.ndarray, wide: int) -> Shot:
    city, flower = _photos()
    left, upper = (place * (np.array(city.size) - SIZE)).astype(int) + chance.integers(0, 8, 2)
    left, upper = min(left, city.width - SIZE[0]), min(upper, city.height - SIZE[1])
    picture = city.crop((left, upper, left + SIZE[0], upper + SIZE[1]))
    cut = flower.crop(FLOWER).resize((wide, wide))
    mask = Image.new("L", (wide, wide))
    ImageDraw.Draw(mask).ellipse((0, 0, wide - 1, wide - 1), fill=255)
    x, y = int(chance.integers(0, SIZE[0] - wide)), int(chance.integers(0, SIZE[1] - wide))
    picture.paste(cut, (x, y), mask)
    blur = float(chance.uniform(*BLUR))
    buffer = io.BytesIO()
    picture.filter(ImageFilter.GaussianBlur(blur)).save(buffer, "PNG")
    room = ROOM * wide
    box = (x - room, y - room, x + wide + room, y + wide + room)
    sides = (*SIZE, *SIZE)
    edges = tuple(float(np.clip(edge / side, 0, 1)) for edge, side in zip(box, sides, strict=True))
    return Shot(buffer.getvalue(), blur, edges)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Sent:
    """What the pages said of a set: the suggested shot and crop, and how good they are."""

    right: bool | None  # None: nobody suggested anything
    overlap: float | None  # of the crop with what people would keep


class Photographer:
    """Sends sets of shots to the pages."""

    def __init__(self, pages: str, seed: int) -> None:
        self._http = Patient(base_url=pages, headers={"Accept": "application/json"})
        self._scenes = scenes(seed)
        self.shots: dict[str, Shot] = {}  # by image id: annotators see them too

    def send(self) -> Sent:
        """Send the next scene."""
        shots = next(self._scenes)
        files = [("file", (f"{number}.png", shot.data, "image/png")) for number, shot in enumerate(shots)]
        body = self._http.post(f"/p/{PROJECT}/sets", files=files).json()
        self.shots |= dict(zip(body["image_ids"], shots, strict=True))
        if body["best"] is None:
            return Sent(None, None)
        best = self.shots[body["best"]]
        crop = body["crop"] and tuple(body["crop"]["box"][edge] for edge in ("x1", "y1", "x2", "y2"))
        return Sent(best.blur == min(shot.blur for shot in shots), _overlap(crop, best.box) if crop else None)


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    common = max(0.0, wide) * max(0.0, high)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return common / (sum(areas) - common)


class Choosers:
    """Annotators who answer the queues `selection` and `crop` in Label Studio."""

    def __init__(self, http: Patient, shots: dict[str, Shot], seed: int) -> None:
        self._http, self._shots = http, shots
        self._chance = np.random.default_rng(seed)

    def answer(self) -> int:
        """Answer every open task; returns how many."""
        numbers = {
            project["title"].split(" / ")[1]: project["id"]
            for project in label_studio_projects(self._http)
            if project["title"].startswith(f"{PROJECT} / ")
        }
        count = 0
        for queue, number in numbers.items():
            query = {"project": number, "fields": "all", "page_size": 500}
            for task in self._http.get("/api/tasks", params=query).json()["tasks"]:
                if not task["is_labeled"]:
                    result = self._pick(task["data"]) if queue == "selection" else self._crop(task["data"])
                    answer = {"result": [result], "lead_time": 3.0}
                    self._http.once("POST", f"/api/tasks/{task['id']}/annotations/", json=answer)
                    count += 1
        return count

    def _pick(self, data: dict[str, Any]) -> dict[str, Any]:
        seen = [self._shots[id_].blur + self._chance.normal(0, UNSURE) for id_ in data["image_ids"]]
        value = {"choices": [str(int(np.argmin(seen)) + 1)]}
        return {"from_name": "choice", "to_name": "question", "type": "choices", "value": value}

    def _crop(self, data: dict[str, Any]) -> dict[str, Any]:
        drawn = np.clip(np.array(self._shots[data["image_id"]].box) + self._chance.normal(0, HAND, 4), 0, 1) * 100
        corner = {"x": drawn[0], "y": drawn[1], "width": drawn[2] - drawn[0], "height": drawn[3] - drawn[1]}
        value = {**corner, "rotation": 0, "rectanglelabels": ["crop"]}
        size = {"original_width": SIZE[0], "original_height": SIZE[1], "image_rotation": 0}
        return {"from_name": "box", "to_name": "image", "type": "rectanglelabels", "value": value, **size}


def turn(installation: Installation, console: Console, seed: int) -> list[dict[str, Any]]:
    """Send sets, have them answered until a ranker and a crop proposer are live, and send some more; the releases."""
    installation.command("project", "add", str(CHECKOUT / "projects" / f"{PROJECT}.yaml"))
    photographer = Photographer(installation.pages, seed)
    began = time.monotonic()
    for _ in range(SENT):
        photographer.send()
    console.print(f"  {time.monotonic() - began:.0f} s: {SENT} sets sent, nobody can suggest anything yet")
    studio = logged_in(installation.secrets["LABEL_STUDIO_URL"], installation.secrets["LABEL_STUDIO_API_KEY"])
    choosers = Choosers(studio, photographer.shots, seed)
    answered, until = 0, time.monotonic() + PATIENCE
    while time.monotonic() < until and not _both_serve(installation):
        answered += choosers.answer()
        time.sleep(1)
    console.print(f"  {time.monotonic() - began:.0f} s: {answered} tasks answered")
    new = [photographer.send() for _ in range(NEW)]
    suggested = [one for one in new if one.right is not None]
    overlaps = [one.overlap for one in new if one.overlap is not None]
    if suggested:
        right = sum(bool(one.right) for one in suggested)
        console.print(f"  of {len(suggested)} new sets the sharpest shot was suggested {right} times")
    if overlaps:
        console.print(f"  mean overlap (IoU) of {len(overlaps)} proposed crops: {np.mean(overlaps):.2f}")
    return installation.command("releases", PROJECT)["releases"]


def _both_serve(installation: Installation) -> bool:
    """Whether inference answers with a ranker and a crop proposer."""
    with Patient(base_url=installation.inference) as http:
        serving = http.get("/v1/releases").json()["releases"]
    return sum(row["project"] == PROJECT and row["release"] is not None for row in serving) == 2
