"""A frozen training set: which picture or set, which answer, whose, from which queue, with what probability.

Written once to S3 with its digest as its name, and recorded in SQL, before anything is trained on it. What an item is
depends on the head that learns from it: a label of a picture, the best of a set, a crop.
"""

import datetime as dt
import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any

from closedloop import crops, labels, selections
from closedloop.errors import DatasetLost
from closedloop.project import CLASSIFIER, CROPPER, RANKER, Project
from closedloop.storage import Stores, answers
from closedloop.storage.objects import MODELS

ROOMS = {CLASSIFIER: labels, RANKER: selections, CROPPER: crops}  # where a head's answers are settled


@dataclass(frozen=True)
class Dataset:
    """A frozen dataset; `id` is the beginning of `digest`, the sha256 of its file."""

    id: str
    digest: str
    project: str
    items: tuple[Any, ...]  # labels.Item, selections.Item or crops.Item

    @property
    def key(self) -> str:
        """Where its file lies, bucket first."""
        return f"{MODELS}/{self.project}/datasets/{self.id}.jsonl"

    @property
    def image_ids(self) -> list[str]:
        """Its pictures, each once, in order."""
        return list(dict.fromkeys(image_id for item in self.items for image_id in item.pictures))


def settled_items(stores: Stores, project: Project, head: str) -> list[Any]:
    """Every item that a head may learn from at this moment."""
    return ROOMS[head].settled_items(stores, project)


def count_new(stores: Stores, project: Project, head: str) -> int:
    """How many settled answers the newest judged release has not learnt from (new, or changed since)."""
    items = settled_items(stores, project, head)
    with stores.db.read() as tx:
        newest = answers.newest_judged_dataset(tx, project.id, head)
        known = answers.dataset_answers(tx, project.id, newest) if newest else {}
    return sum(known.get(item.subject) != item.answer for item in items)


def freeze(stores: Stores, project: Project, head: str, now: dt.datetime) -> Dataset:
    """Freeze what is settled now. The same answers make the same dataset, which is then written no second time.

    Raises StoreAway or DatabaseAway.
    """
    items = settled_items(stores, project, head)
    if head == CLASSIFIER:
        items += labels.visitors_items(stores, project, items)
    lines = [json.dumps(item.as_json(), ensure_ascii=False, sort_keys=True).encode() + b"\n" for item in items]
    of_head = {"classes": project.classes} if head == CLASSIFIER else {"head": head}
    header = json.dumps({"project": project.id, **of_head}, ensure_ascii=False).encode() + b"\n"
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
    of_dataset = {"project_id": project.id, "dataset_id": dataset.id}
    # A picture may be in several sets; if it is the best of one, that is its part.
    parts: dict[str, str] = {}
    for item in items:
        for image_id, part in item.pictures.items():
            if parts.get(image_id) != selections.BEST:
                parts[image_id] = part
    of_pictures = [{**of_dataset, "image_id": image_id, "label": part} for image_id, part in parts.items()]
    of_sets = [{**of_dataset, "set_id": item.subject, "label": item.answer} for item in items if head == RANKER]
    with stores.db.write() as tx:
        answers.add_dataset(tx, row, of_pictures, of_sets)
    return dataset


def read(stores: Stores, project_id: str, id_: str, digest: str, head: str) -> tuple[Dataset, tuple[str, ...]]:
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
    items = tuple(ROOMS[head].Item.from_json(line) for line in lines)
    return replace(dataset, items=items), tuple(header.get("classes", ()))
