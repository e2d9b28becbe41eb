"""Which part of a picture to keep: boxes, what was proposed, and what annotators and earlier work say."""

import datetime as dt
import json
import math
import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import combinations
from statistics import median
from typing import Any

from closedloop import votes
from closedloop.errors import UnusableBox
from closedloop.inference import Inference, Proposed
from closedloop.project import Project
from closedloop.queues import BY_CHANCE, CROP
from closedloop.storage import Stores, pictures, sets
from closedloop.votes import IMPORT, Vote

SMALLEST = 0.01  # of a side
NOISE = 0.005  # by which a drawn box may stick out: Label Studio rounds
AGREE = 0.5  # mean overlap (IoU) of several annotators' boxes, below which their crop is not settled


@dataclass(frozen=True)
class Box:
    """A part of a picture: its edges as fractions (0-1) of width and height, x1 < x2 and y1 < y2."""

    x1: float
    y1: float
    x2: float
    y2: float

    @classmethod
    def of(cls, x1: Any, y1: Any, x2: Any, y2: Any) -> "Box":
        """A box that can be used, its edges clipped to the picture where they stick out by rounding.

        Raises UnusableBox for what is no number, lies outside, is reversed or narrower than 1 % of a side.
        """
        edges = [x1, y1, x2, y2]
        named = f"({', '.join(str(edge)[:20] for edge in edges)})"
        if any(isinstance(e, bool) or not isinstance(e, int | float) or not math.isfinite(e) for e in edges):
            raise UnusableBox(box=named, reason="its edges are not four numbers")
        if max(edges) > 1 + NOISE and min(edges) >= 0:
            raise UnusableBox(box=named, reason="its edges are fractions of width and height, from 0 to 1, not pixels")
        if min(edges) < -NOISE or max(edges) > 1 + NOISE:
            raise UnusableBox(box=named, reason="it lies outside of the picture")
        if x2 <= x1 or y2 <= y1:
            raise UnusableBox(box=named, reason="x1 must be less than x2, and y1 less than y2")
        left, upper, right, lower = (min(1.0, max(0.0, float(edge))) for edge in edges)
        if right - left < SMALLEST or lower - upper < SMALLEST:
            raise UnusableBox(box=named, reason="it is narrower than 1 % of the picture")
        return cls(*(round(edge, 6) for edge in (left, upper, right, lower)))

    @classmethod
    def from_percent(cls, x: Any, y: Any, width: Any, height: Any) -> "Box":
        """A box as Label Studio gives it: corner and size in per cent. Raises UnusableBox."""
        if any(isinstance(value, bool) or not isinstance(value, int | float) for value in (x, y, width, height)):
            raise UnusableBox(box="drawn", reason="its corner and size are not numbers")
        return cls.of(x / 100, y / 100, (x + width) / 100, (y + height) / 100)

    @classmethod
    def from_text(cls, text: str) -> "Box":
        """What `as_text` wrote."""
        return cls(*json.loads(text))

    def as_text(self) -> str:
        """Four numbers as JSON."""
        return json.dumps([self.x1, self.y1, self.x2, self.y2])

    def overlap(self, other: "Box") -> float:
        """Intersection over union with another box, 0-1."""
        wide = min(self.x2, other.x2) - max(self.x1, other.x1)
        high = min(self.y2, other.y2) - max(self.y1, other.y1)
        common = max(0.0, wide) * max(0.0, high)
        return common / (self.area + other.area - common)

    @property
    def area(self) -> float:
        """As a fraction of the picture's."""
        return (self.x2 - self.x1) * (self.y2 - self.y1)


@dataclass(frozen=True)
class Item:
    """One picture of a dataset with its settled crop."""

    image_id: str
    phash: str
    box: Box
    annotators: tuple[str, ...]
    queues: dict[str, float | None]
    votes: tuple[dict[str, Any], ...]
    by_chance: bool  # its set was drawn at random, or the crop was imported

    @property
    def is_representative(self) -> bool:
        """Whether it was not asked about because of what a model said."""
        return self.by_chance

    @property
    def is_settled(self) -> bool:
        """Whether annotators or an import said so."""
        return True

    @property
    def subject(self) -> str:
        """What the answer is about."""
        return self.image_id

    @property
    def answer(self) -> str:
        """The answer, to be compared with a former one."""
        return self.box.as_text()

    @property
    def pictures(self) -> dict[str, str]:
        """Its picture with its part in the answer."""
        return {self.image_id: self.answer}

    def as_json(self) -> dict[str, Any]:
        """A line of the dataset's file."""
        return asdict(self)

    @classmethod
    def from_json(cls, line: dict[str, Any]) -> "Item":
        """What `as_json` wrote."""
        lists = {"annotators": tuple(line["annotators"]), "votes": tuple(line["votes"])}
        return cls(**{**line, **lists, "box": Box(**line["box"])})


def settle(of_picture: Iterable[Vote]) -> tuple[Box | None, tuple[Vote, ...]]:
    """The crop of one picture and the votes that count: of several annotators' boxes the median of each edge.

    None while there is no vote, or where they overlap too little on average to mean the same part.
    """
    counting = votes.counting(of_picture)
    boxes = [Box.from_text(vote.answer) for vote in counting]
    overlaps = [one.overlap(other) for one, other in combinations(boxes, 2)]
    if not boxes or (overlaps and sum(overlaps) / len(overlaps) < AGREE):
        return None, counting
    edges = (median(getattr(box, name) for box in boxes) for name in ("x1", "y1", "x2", "y2"))
    return Box(*(round(edge, 6) for edge in edges)), counting


def votes_of(tx: Any, project_id: str, image_id: str | None = None) -> list[Vote]:
    """The votes that count about the crops of a project's pictures, or of one: annotators' and imported ones."""
    return _given(tx, project_id, image_id) + _imported(tx, project_id, None if image_id is None else [image_id])


def count_settled(tx: Any, project_id: str) -> int:
    """Of how many pictures of a project the crop is settled."""
    given = _given(tx, project_id)
    imported = _imported(tx, project_id, {vote.subject for vote in given})
    return votes.count_settled(given, imported, sets.count_logged(tx, project_id)[1] - len(imported), settle)


def _given(tx: Any, project_id: str, image_id: str | None = None) -> list[Vote]:
    return [
        Vote(
            row["image_id"],
            row["annotator"],
            row["label"],
            row["queue"],
            row["probability"],
            row["answered_at"],
            row["annotation_id"],
            row["asked_for"],
        )
        for row in votes.newest(sets.annotations_about(tx, project_id, CROP, image_id))
    ]


def _imported(tx: Any, project_id: str, image_ids: Iterable[str] | None = None) -> list[Vote]:
    return [
        Vote(
            row["image_id"],
            IMPORT,
            Box(row["x1"], row["y1"], row["x2"], row["y2"]).as_text(),
            IMPORT,
            None,
            row["at"],
        )
        for row in sets.crops(tx, project_id, image_ids)
    ]


def settled_items(stores: Stores, project: Project) -> list[Item]:
    """Every picture of a project whose crop is settled at this moment, by picture."""
    with stores.db.read() as tx:
        by_image = votes.by_subject(votes_of(tx, project.id))
        known = pictures.images_of(tx, project.id, by_image)
    items = []
    for image_id, of_image in by_image.items():
        box, counting = settle(of_image)
        if box is None:
            continue
        items.append(
            Item(
                image_id,
                known[image_id]["phash"],
                box,
                tuple(vote.annotator for vote in counting),
                {vote.queue: vote.probability for vote in sorted(of_image, key=lambda vote: vote.queue)},
                tuple(vote.as_json() for vote in counting),
                any(vote.queue == IMPORT or vote.reason == BY_CHANCE for vote in of_image),
            )
        )
    return items


def keep_proposal(tx: Any, project_id: str, image_id: str, proposed: Proposed, now: dt.datetime) -> None:
    """Keep which part of a picture a release would keep."""
    row = {"id": uuid.uuid4().hex, "project_id": project_id, "image_id": image_id, "created_at": now}
    edges = dict(zip(("x1", "y1", "x2", "y2"), proposed.box, strict=True))
    said = {"confidence": proposed.confidence, "release": proposed.release, "encoder": proposed.encoder}
    sets.add_proposal(tx, {**row, **edges, **said})


def propose(stores: Stores, inference: Inference, of: str, now: dt.datetime) -> None:
    """Have the release that answers propose a crop of `<project>/<picture>`, where it has not; safe to repeat.

    Raises InferenceAway, InferenceRefused, StoreAway or DatabaseAway.
    """
    project_id, image_id = of.split("/")
    with stores.db.read() as tx:
        picture = pictures.image(tx, project_id, image_id)
        known = sets.newest_proposal(tx, project_id, image_id)
    if picture is None or picture["removed_at"] is not None:
        return
    proposed = inference.crop(project_id, stores.objects.get(picture["key"]))
    if proposed is None or (known is not None and known["release"] == proposed.release):
        return
    with stores.db.write() as tx:
        there = pictures.image(tx, project_id, image_id, lock=True)
        if there and there["removed_at"] is None:
            keep_proposal(tx, project_id, image_id, proposed, now)
