"""A frozen training set: which picture, which answer, whose, from which queue, with what probability.

Written once to S3 with its digest as its name, and recorded in SQL, before anything is trained on it.
"""

import datetime as dt
import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from closedloop.annotations import ANSWERED, WITHDRAWN
from closedloop.errors import DatasetLost
from closedloop.project import Project
from closedloop.queues import RANDOM_SAMPLE
from closedloop.storage import Stores, answers, pictures
from closedloop.storage.objects import MODELS

IMPORT = "import"  # the annotator of imported answers


@dataclass(frozen=True)
class Vote:
    """One person's answer about one picture; `queue` and `probability` say how the question came about."""

    image_id: str
    annotator: str
    label: str
    queue: str
    probability: float | None  # None for imports: nobody drew them
    at: dt.datetime
    annotation: str | None = None  # Label Studio's number of it


@dataclass(frozen=True)
class Item:
    """One picture of a dataset with its settled answer."""

    image_id: str
    phash: str
    label: str
    annotators: tuple[str, ...]  # who said so
    queues: dict[str, float | None]  # through which it was asked about, with the probability of having entered each
    votes: tuple[dict[str, Any], ...]  # every vote that counted, the outvoted too: annotator, label, annotation, at

    @property
    def is_representative(self) -> bool:
        """Whether it was not asked about because of what a model said: drawn at random, or imported."""
        return RANDOM_SAMPLE in self.queues or IMPORT in self.queues

    def as_json(self) -> dict[str, Any]:
        """A line of the dataset's file."""
        return asdict(self)


@dataclass(frozen=True)
class Dataset:
    """A frozen dataset; `id` is the beginning of `digest`, the sha256 of its file."""

    id: str
    digest: str
    project: str
    items: tuple[Item, ...]

    @property
    def key(self) -> str:
        """Where its file lies, bucket first."""
        return f"{MODELS}/{self.project}/datasets/{self.id}.jsonl"


def newest_votes(rows: Iterable[Any]) -> list[Vote]:
    """The votes that count, from every version (mappings, see `answers.task_annotations`) of every annotation.

    Of each annotation its newest version; withdrawn ones never were. Then of each (task, annotator) the newest, and a
    skip or an "unknown" is no vote: who skips after having answered takes the answer back.
    """
    ordered = sorted(rows, key=lambda row: (row["answered_at"], row["annotation_id"]))
    # Label Studio counts its annotations anew when it is set up anew, so a task belongs to an annotation's name.
    versions = {(row["task_id"], row["annotation_id"]): row for row in ordered}
    latest: dict[tuple[str, str], Any] = {}
    for row in sorted(versions.values(), key=lambda row: (row["answered_at"], row["annotation_id"])):
        if row["state"] != WITHDRAWN:
            latest[row["task_id"], row["annotator"]] = row
    return [
        Vote(
            row["image_id"],
            row["annotator"],
            row["label"],
            row["queue"],
            row["probability"],
            row["answered_at"],
            row["annotation_id"],
        )
        for row in latest.values()
        if row["state"] == ANSWERED
    ]


def settle(votes: Iterable[Vote]) -> tuple[str | None, tuple[Vote, ...]]:
    """The majority's answer about one picture and the votes that count; None while there is a tie or no vote.

    Each annotator has one vote a picture, the newest, in however many queues the picture was asked about.
    """
    counting = {vote.annotator: vote for vote in sorted(votes, key=lambda vote: vote.at)}
    ranking = Counter(vote.label for vote in counting.values()).most_common(2)
    kept = tuple(sorted(counting.values(), key=lambda vote: vote.annotator))
    if not ranking or (len(ranking) == 2 and ranking[0][1] == ranking[1][1]):
        return None, kept
    return ranking[0][0], kept


def votes_of(tx: Any, project_id: str, image_id: str | None = None) -> list[Vote]:
    """The votes that count about a project's pictures, or about one: annotators' and imported ones."""
    imported = answers.imports(tx, project_id, image_id)
    return newest_votes(answers.task_annotations(tx, project_id, image_id)) + [
        Vote(row["image_id"], IMPORT, row["label"], IMPORT, None, row["at"]) for row in imported
    ]


def settled_items(stores: Stores, project: Project) -> list[Item]:
    """Every picture of a project whose answer is settled at this moment, by picture."""
    with stores.db.read() as tx:
        votes = votes_of(tx, project.id)
        by_image: dict[str, list[Vote]] = {}
        for vote in votes:
            by_image.setdefault(vote.image_id, []).append(vote)
        known = pictures.images_of(tx, project.id, by_image)
    items = []
    for image_id, of_image in sorted(by_image.items()):
        label, counting = settle(of_image)
        if label is None or label not in project.classes:
            continue
        items.append(
            Item(
                image_id,
                known[image_id]["phash"],
                label,
                tuple(vote.annotator for vote in counting if vote.label == label),
                {vote.queue: vote.probability for vote in sorted(of_image, key=lambda vote: vote.queue)},
                tuple(
                    {"annotator": v.annotator, "label": v.label, "annotation": v.annotation, "at": v.at.isoformat()}
                    for v in counting
                ),
            )
        )
    return items


def count_new(stores: Stores, project: Project, head: str) -> int:
    """How many settled answers the newest judged release has not learnt from (new, or changed since)."""
    items = settled_items(stores, project)
    with stores.db.read() as tx:
        newest = answers.newest_judged_dataset(tx, project.id, head)
        known = answers.dataset_images(tx, project.id, newest) if newest else {}
    return sum(known.get(item.image_id) != item.label for item in items)


def freeze(stores: Stores, project: Project, head: str, now: dt.datetime) -> Dataset:
    """Freeze what is settled now. The same answers make the same dataset, which is then written no second time.

    Raises StoreAway or DatabaseAway.
    """
    items = settled_items(stores, project)
    lines = [json.dumps(item.as_json(), ensure_ascii=False, sort_keys=True).encode() + b"\n" for item in items]
    header = json.dumps({"project": project.id, "classes": project.classes}, ensure_ascii=False).encode() + b"\n"
    data = header + b"".join(lines)
    digest = hashlib.sha256(data).hexdigest()
    dataset = Dataset(digest[:16], digest, project.id, tuple(items))
    if not stores.objects.exists(dataset.key):
        stores.objects.put(dataset.key, data)
    row = {
        "project_id": project.id,
        "id": dataset.id,
        "head": head,
        "digest": digest,
        "items": len(items),
        "created_at": now,
    }
    rows = [
        {"project_id": project.id, "dataset_id": dataset.id, "image_id": item.image_id, "label": item.label}
        for item in items
    ]
    with stores.db.write() as tx:
        answers.add_dataset(tx, row, rows)
    return dataset


def read(stores: Stores, project_id: str, id_: str, digest: str) -> tuple[Dataset, tuple[str, ...]]:
    """A frozen dataset out of the store, checked against its digest, and the project's classes at that time.

    Raises DatasetLost where its file is away or not what was frozen, StoreAway.
    """
    dataset = Dataset(id_, digest, project_id, ())
    try:
        data = stores.objects.get(dataset.key)
    except FileNotFoundError:
        raise DatasetLost(key=dataset.key, reason="it is not there") from None
    if hashlib.sha256(data).hexdigest() != digest:
        raise DatasetLost(key=dataset.key, reason="it is not what was frozen")
    header, *lines = (json.loads(line) for line in data.splitlines())
    items = tuple(
        Item(**{**line, "annotators": tuple(line["annotators"]), "votes": tuple(line["votes"])}) for line in lines
    )
    return replace(dataset, items=items), tuple(header["classes"])
