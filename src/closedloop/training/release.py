"""A release in S3: its weights and its card written once, the manifest last; and read again, checked."""

import datetime as dt
import hashlib
import json
import platform
from typing import Any

import numpy as np
import torch

from closedloop import gate
from closedloop.gate import Verdict
from closedloop.installations import ChosenEncoder
from closedloop.models import artefact, fitting
from closedloop.project import Project
from closedloop.storage import Stores
from closedloop.training.lesson import Lesson

RECIPES = "2"  # grows with each change after which the same answers make other weights


def read(stores: Stores, project: Project, head: str, release: str, encoder: str, width: int) -> artefact.Artefact:
    """Read and check a release out of S3; raises BadArtefact or StoreAway. See `artefact.unpack`."""
    folder = artefact.place(project.id, head, release)
    files = {}
    for name in (artefact.MANIFEST, artefact.CARD, artefact.WEIGHTS):
        try:
            files[name] = stores.objects.get(f"{folder}/{name}")
        except FileNotFoundError:
            break  # `unpack` says what is missing
    return artefact.unpack(files, project, head, release, encoder, width)


def write(
    stores: Stores,
    lesson: Lesson,
    number: int,
    chosen: ChosenEncoder,
    fitted: Any,
    verdict: Verdict,
    now: dt.datetime,
) -> tuple[int, dict[str, Any]]:
    """Write a judged candidate to S3 under its `number` or the next free one, its manifest last; number and card.

    Raises StoreAway, or BadArtefact where what lies there already was tampered with.
    """
    weights = artefact.weights_bytes(fitted.head)
    while True:
        release = f"r{number:04d}-{hashlib.sha256(weights).hexdigest()[:8]}"
        made = card(lesson, release, chosen, fitted, verdict, now)
        folder = artefact.place(lesson.project.id, lesson.head, release)
        if not stores.objects.exists(f"{folder}/{artefact.MANIFEST}"):
            break
        # A run that was killed after writing left a whole candidate, and nothing is written twice. The same weights may
        # have been judged otherwise by now: then they are another candidate.
        left = read(stores, lesson.project, lesson.head, release, chosen.digest, lesson.width).card
        if _but_for_the_time(left) == _but_for_the_time(json.loads(json.dumps(made))):
            return number, left
        number += 1
    for name, data in artefact.pack(weights, made).items():
        stores.objects.put(f"{folder}/{name}", data)
    return number, made


def _but_for_the_time(card: dict[str, Any]) -> dict[str, Any]:
    return {name: said for name, said in card.items() if name != "created_at"}


def card(
    lesson: Lesson, release: str, chosen: ChosenEncoder, fitted: Any, verdict: Verdict, now: dt.datetime
) -> dict[str, Any]:
    """What is known of a release: what it learnt from, how it was made, how good it is, what the gate said."""
    scores, dataset = lesson.scores(fitted), lesson.dataset
    judged = scores[lesson.judged]
    return {
        "release": release,
        "project": lesson.project.id,
        "head": lesson.head,
        "created_at": now.isoformat(),
        "encoder": {"name": chosen.name, "digest": chosen.digest, "dimension": chosen.dimension, "width": lesson.width},
        **lesson.about(fitted),
        "dataset": {
            "id": dataset.id,
            "digest": dataset.digest,
            "items": len(judged),
            "pictures": len(dataset.image_ids),
            "per_class": lesson.per_answer(),
            "per_queue": _per_queue(lesson, scores),
        },
        "recipe": fitted.recipe.as_json(),
        "seed": fitting.SEED,
        "cross_validation": {"folds": len(np.unique(fitted.folds)), "losses": fitted.losses},
        "metrics": {
            "measured_on": "answers of its own dataset, each by a head that did not see it (cross-fitted)",
            "measure": lesson.measure,
            "value": float(judged.mean()),
            "value_95": list(lesson.interval_of(judged)),
            "interval": lesson.interval,
            "answers": len(judged),
            **lesson.said_of(fitted),
        },
        "gate": verdict.as_json(),
        "made_with": made_with(),
    }


def _per_queue(lesson: Lesson, scores: np.ndarray) -> dict[str, Any]:
    """How many answers came by each queue (and import), and how good the honest ones are."""
    items = lesson.dataset.items
    said: dict[str, Any] = {}
    for queue in sorted({queue for item in items for queue in item.queues}):
        of = np.array([queue in item.queues for item in items])
        said[queue] = {"answers": int(of.sum()), "value": float(scores[of].mean())}
        if lesson.measure == gate.MEASURE:
            said[queue]["right"] = int(scores[of].sum())
    return said


def made_with() -> dict[str, str]:
    """The versions that the bytes of a release rest on."""
    made = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    return {**made, "closedloop's recipes": RECIPES}
