"""From a picture, an annotation or a release to all that rests on it, and to all that it rests on."""

import re
from dataclasses import asdict
from typing import Any

from closedloop import datasets, history, releases
from closedloop.errors import UnknownPicture, UnknownTrace
from closedloop.storage import Stores, answers, lineage


def of(stores: Stores, name: str) -> list[dict[str, Any]]:
    """What is called so, with its lineage: one entry per project that has it (see `of_picture`, `of_annotation`,
    `of_release`).

    Raises UnknownTrace, AmbiguousRelease, DatasetLost, StoreAway.
    """
    found: list[dict[str, Any]] = []
    if re.fullmatch(r"[0-9a-f]{32}", name):
        with stores.db.read() as tx:
            projects = lineage.projects_with(tx, name)
        found = [of_picture(stores, project_id, name) for project_id in projects]
    elif re.fullmatch(r"\d+", name):
        found = of_annotation(stores, name)
    elif re.fullmatch(r"([a-z0-9-]+/[a-z]+/)?r\d+-[0-9a-f]{8}", name):
        found = [of_release(stores, name)]
    if not found:
        raise UnknownTrace(name=name[:100])
    return found


def of_picture(stores: Stores, project_id: str, image_id: str) -> dict[str, Any]:
    """The answers about a picture, who was asked about it, what was answered, and the releases that learnt from it.

    Of a removed one only the last are left.
    """
    with stores.db.read() as tx:
        learnt = lineage.datasets_with(tx, project_id, image_id)
    entry = {"picture": image_id, "project": project_id, "datasets": [_learnt(one) for one in learnt]}
    try:
        found = history.of(stores, project_id, image_id)
    except UnknownPicture:
        return {**entry, "removed": True}
    return {
        **entry,
        "removed": False,
        "arrived_at": found.picture["arrived_at"].isoformat(),
        "answer": found.answer,
        "sets": found.sets,
        "crop": found.crop and asdict(found.crop),
        "imported": found.imported,
        "predictions": [
            {"prediction": row["id"], "release": row["release"], "label": row["label"]} for row in found.predictions
        ],
        "annotations": [
            {
                "annotation": row["annotation_id"],
                "queue": task["queue"],
                "annotator": row["annotator"],
                "state": row["state"],
                "label": row["label"],
                "at": row["answered_at"].isoformat(),
            }
            for task in found.tasks
            for row in task["annotations"]
        ],
    }


def of_annotation(stores: Stores, number: str) -> list[dict[str, Any]]:
    """What was answered in an annotation of Label Studio, version by version, and the datasets in which it counted."""
    with stores.db.read() as tx:
        versions = lineage.annotation_named(tx, number)
    entries = []
    for task_id in dict.fromkeys(row["task_id"] for row in versions):
        rows = [row for row in versions if row["task_id"] == task_id]
        project_id, subject = rows[0]["project_id"], rows[0]["image_id"] or rows[0]["set_id"]
        with stores.db.read() as tx:
            candidates = lineage.datasets_with(tx, project_id, subject)
        entries.append(
            {
                "annotation": number,
                "project": project_id,
                "queue": rows[0]["queue"],
                "picture": rows[0]["image_id"],
                "set": rows[0]["set_id"],
                "annotator": rows[0]["annotator"],
                "versions": [
                    {"at": row["answered_at"].isoformat(), "state": row["state"], "label": row["label"]} for row in rows
                ],
                "datasets": [_learnt(one) for one in candidates if _counted(stores, project_id, one, subject, number)],
            }
        )
    return entries


def of_release(stores: Stores, name: str) -> dict[str, Any]:
    """What a release learnt from (pictures, annotations, annotators), what it was judged against, what it answered.

    Raises UnknownRelease, AmbiguousRelease, DatasetLost.
    """
    row = releases.find(stores, name)
    card = row["card"]
    with stores.db.read() as tx:
        frozen = answers.dataset(tx, row["project_id"], row["dataset_id"])
        answered = lineage.answers_of_release(tx, row["project_id"], row["id"])
    dataset, _ = datasets.read(stores, row["project_id"], frozen["id"], frozen["digest"], row["head"])
    votes = [vote for item in dataset.items for vote in item.votes if vote["annotator"] in item.annotators]
    annotators: dict[str, int] = {}
    for vote in votes:
        annotators[vote["annotator"]] = annotators.get(vote["annotator"], 0) + 1
    return {
        "release": row["id"],
        "project": row["project_id"],
        "head": row["head"],
        "state": row["state"],
        "reason": row["reason"],
        "encoder": card["encoder"],
        "judged_against": card["gate"]["against"],
        "dataset": dataset.id,
        "annotators": dict(sorted(annotators.items())),
        "annotations": sorted((vote["annotation"] for vote in votes if vote["annotation"]), key=int),
        "pictures": dataset.image_ids,
        "learnt_together_with": card.get("learnt_together_with", []),
        "answered": answered,
    }


def _learnt(dataset: dict[str, Any]) -> dict[str, Any]:
    return {
        "dataset": dataset["id"],
        "label": dataset["label"],
        "releases": [{"release": row["id"], "state": row["state"]} for row in dataset["releases"]],
    }


def _counted(stores: Stores, project_id: str, candidate: dict[str, Any], subject: str, number: str) -> bool:
    """Whether an annotation was among the votes that counted in a frozen dataset."""
    with stores.db.read() as tx:
        frozen = answers.dataset(tx, project_id, candidate["id"])
    dataset, _ = datasets.read(stores, project_id, frozen["id"], frozen["digest"], frozen["head"])
    votes = next((item.votes for item in dataset.items if item.subject == subject), ())
    return any(vote["annotation"] == number for vote in votes)
