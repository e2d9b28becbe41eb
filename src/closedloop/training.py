"""From settled answers to a judged release: freeze, embed, fit, gate, write, release.

Killed at any moment, a run leaves nothing or a whole candidate: the dataset is written once under its digest, the
release's manifest last, and the record with the decision in one transaction. Running again gives the same weights.
"""

import datetime as dt
import hashlib
import platform
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from closedloop import datasets, gate, installations, leases, near_identical
from closedloop.datasets import Dataset
from closedloop.embedding import Progress, vectors_of
from closedloop.errors import BadArtefact, LeaseLost, TooFewAnswers
from closedloop.estimates import wilson_interval
from closedloop.gate import Verdict
from closedloop.installations import ChosenEncoder
from closedloop.logs import get_logger
from closedloop.models import artefact, calibration, classifier, cross_fitting, fitting
from closedloop.models import encoder as encoders
from closedloop.models.classifier import Fitted
from closedloop.project import CLASSIFIER, Project
from closedloop.storage import Stores, answers, installation, registry

LIVE, CANDIDATE, REFUSED = "live", "candidate", "refused"
LEAST_ANSWERS = 10
LEAST_FAIR = 20  # answers that were not chosen for what the live release said, to compare on these alone
Clock = Callable[[], dt.datetime]


@dataclass(frozen=True)
class Outcome:
    """What became of a training run."""

    release: str
    state: str  # live | candidate (it passed, but another one is pinned) | refused
    reason: str
    card: dict[str, Any]

    @property
    def passed(self) -> bool:
        """Whether the gate let it pass."""
        return self.state != REFUSED


def train(
    stores: Stores,
    project: Project,
    clock: Clock,
    progress: Progress | None = None,
    head: str = CLASSIFIER,
    patience: float = 0.0,
) -> Outcome:
    """Train a candidate on everything that is settled, judge it, and release it if it passes.

    Where the live release has learnt exactly these answers, it is returned and nothing is made.

    Raises TooFewAnswers, LeaseTaken while the project is trained by another process (for longer than `patience`, in
    seconds), LeaseLost if this one was paused
    for so long that another took over (then nothing is released), StoreAway, DatabaseAway, EncoderUnavailable.
    """
    with leases.held(stores, f"train:{project.id}:{head}", clock, patience) as lease:
        chosen = installations.encoder(stores)
        dataset = datasets.freeze(stores, project, head, clock())
        check_enough(project, dataset)
        if standing := _already_live(stores, project, head, dataset, chosen):
            return standing
        get_logger().info("training", project=project.id, dataset=dataset.id, answers=len(dataset.items))
        vectors = vectors_of(
            stores,
            project.id,
            [item.image_id for item in dataset.items],
            chosen.digest,
            lambda: encoders.load(chosen.name),
            progress,
        )
        fitted, groups, labels = fit_dataset(project, dataset, vectors)
        verdict = against_live(stores, project, head, dataset, vectors, fitted, groups, labels, chosen)
        with stores.db.read() as tx:
            number = registry.next_number(tx, project.id, head)
        made = write(stores, project, head, number, dataset, chosen, fitted, labels, verdict, clock())
        with stores.db.write() as tx:
            lease.check(tx)
            if installations.chosen_encoder_now(tx) != chosen:
                raise LeaseLost(name=f"training {project.id}")  # `closedloop encoder use` came in between
            state, reason = record(tx, project.id, head, number, dataset, chosen, made, verdict, clock())
    return Outcome(made["release"], state, reason, made)


def _already_live(
    stores: Stores, project: Project, head: str, dataset: Dataset, chosen: ChosenEncoder
) -> Outcome | None:
    """The live release, where it has learnt exactly these answers: there is nothing to train or to judge."""
    with stores.db.read() as tx:
        live = registry.live_release(tx, project.id, head)
    if live is None or (live["dataset_id"], live["encoder"]) != (dataset.id, chosen.digest):
        return None
    return Outcome(live["id"], LIVE, "nothing is new since the live release, which stays", live["card"])


def check_enough(project: Project, dataset: Dataset) -> None:
    """Raise TooFewAnswers where a dataset is too small to train on."""
    classes = len({item.label for item in dataset.items})
    different = len(np.unique(near_identical.groups_of([item.phash for item in dataset.items])))
    if len(dataset.items) < LEAST_ANSWERS or min(classes, different) < 2:
        raise TooFewAnswers(
            project=project.id, have=len(dataset.items), classes=classes, different=different, need=LEAST_ANSWERS
        )


def fit_dataset(project: Project, dataset: Dataset, vectors: np.ndarray) -> tuple[Fitted, np.ndarray, np.ndarray]:
    """Fit a dataset's embeddings (n, d); returns the fit, the near-identical groups (n,) and the labels (n,)."""
    groups = near_identical.groups_of([item.phash for item in dataset.items])
    labels = np.array([project.classes.index(item.label) for item in dataset.items], dtype=np.int64)
    fair = np.array([item.is_representative for item in dataset.items])
    return classifier.fit(vectors, labels, groups, len(project.classes), fair), groups, labels


def against_live(
    stores: Stores,
    project: Project,
    head: str,
    dataset: Dataset,
    vectors: np.ndarray,
    fitted: Fitted,
    groups: np.ndarray,
    labels: np.ndarray,
    chosen: ChosenEncoder,
) -> Verdict:
    """Judge a fitted candidate: against the live release, or the commonest class where there is none that fits."""
    right = fitted.out_of_fold.argmax(axis=1) == labels
    fair = np.array([item.is_representative for item in dataset.items])
    with stores.db.read() as tx:
        live = registry.live_release(tx, project.id, head)
        learnt = answers.dataset_images(tx, project.id, live["dataset_id"]) if live else {}
    current, why = None, ""
    if live is not None and live["encoder"] == chosen.digest:
        try:
            current = read(stores, project, head, live["id"], chosen)
        except BadArtefact as error:
            why = f"; {error}"  # a live release that cannot be used must not bar the way to a new one
    if live is None or current is None:
        among, basis = _comparable(np.ones(len(labels), dtype=bool), fair)
        commonest = commonest_class_right(labels, groups)
        return gate.judge_first(right[among].tolist(), commonest[among].tolist(), basis + why)
    seen = np.isin(groups, groups[[item.image_id in learnt for item in dataset.items]])
    among, basis = _comparable(~seen, fair)
    numbers = np.array([project.classes.index(name) for name in current.classes])
    said = numbers[current.head.logits(vectors[among]).argmax(axis=1)] if among.any() else np.empty(0, dtype=int)
    with stores.db.read() as tx:
        former = [gate.Look(*look) for look in registry.looks(tx, project.id, head, live["id"], dataset.id)]
    return gate.judge(right[among].tolist(), (said == labels[among]).tolist(), live["id"], project.gate, former, basis)


def _comparable(open_to: np.ndarray, fair: np.ndarray) -> tuple[np.ndarray, str]:
    """Which answers (n,) bool to compare on, and what they are.

    Most answers were asked for because the live release was unsure or called wrong; compared on those, any other one
    looks better. So the random sample and imports decide as soon as there are enough of them.
    """
    if (open_to & fair).sum() >= LEAST_FAIR:
        return open_to & fair, "random sample and imports"
    return open_to, f"all queues, which favours the candidate, since fewer than {LEAST_FAIR} were drawn at random"


def commonest_class_right(labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Whether the commonest class of the other folds is each answer's class, (n,) bool: what any release must beat."""
    folds = cross_fitting.split(groups, labels)
    right = np.empty(len(labels), dtype=bool)
    for fold in np.unique(folds):
        right[folds == fold] = labels[folds == fold] == np.bincount(labels[folds != fold]).argmax()
    return right


def read(stores: Stores, project: Project, head: str, release: str, chosen: ChosenEncoder) -> artefact.Artefact:
    """Read and check a release out of S3; raises BadArtefact or StoreAway."""
    folder = artefact.place(project.id, head, release)
    files = {}
    for name in (artefact.MANIFEST, artefact.CARD, artefact.WEIGHTS):
        try:
            files[name] = stores.objects.get(f"{folder}/{name}")
        except FileNotFoundError:
            break  # `unpack` says what is missing
    return artefact.unpack(files, project, head, release, chosen.digest, chosen.dimension)


def write(
    stores: Stores,
    project: Project,
    head: str,
    number: int,
    dataset: Dataset,
    chosen: ChosenEncoder,
    fitted: Fitted,
    labels: np.ndarray,
    verdict: Verdict,
    now: dt.datetime,
) -> dict[str, Any]:
    """Write a judged candidate to S3, its manifest last; returns its card. Raises StoreAway."""
    weights = artefact.weights_bytes(fitted.head)
    release = f"r{number:04d}-{hashlib.sha256(weights).hexdigest()[:8]}"
    right = fitted.out_of_fold.argmax(axis=1) == labels
    low, high = wilson_interval(int(right.sum()), len(right))
    confidence = fitted.out_of_fold[np.arange(len(labels)), labels]
    per_queue = {
        queue: {"answers": int(of.sum()), "right": int((right & of).sum())}
        for queue in sorted({queue for item in dataset.items for queue in item.queues})
        for of in [np.array([queue in item.queues for item in dataset.items])]
    }
    card = {
        "release": release,
        "project": project.id,
        "head": head,
        "created_at": now.isoformat(),
        "encoder": {"name": chosen.name, "digest": chosen.digest, "dimension": chosen.dimension},
        "classes": list(project.classes),
        "dataset": {
            "id": dataset.id,
            "digest": dataset.digest,
            "items": len(dataset.items),
            "per_class": dict(Counter(item.label for item in dataset.items)),
            "per_queue": per_queue,
        },
        "recipe": fitted.recipe.as_json(),
        "seed": fitting.SEED,
        "cross_validation": {"folds": len(np.unique(fitted.folds)), "log_loss": fitted.losses},
        "temperature": fitted.temperature,
        "metrics": {
            "measured_on": "answers of its own dataset, each by a head that did not see it (cross-fitted)",
            "accuracy": float(right.mean()),
            "accuracy_95": [low, high],
            "interval": "Wilson 1927, 95 %",
            "answers": len(right),
            "log_loss": float(-np.log(np.clip(confidence, 1e-12, None)).mean()),
            "calibration_error": calibration.expected_calibration_error(fitted.out_of_fold, labels),
        },
        "gate": verdict.as_json(),
        "made_with": made_with(),
    }
    folder = artefact.place(project.id, head, release)
    if stores.objects.exists(f"{folder}/{artefact.MANIFEST}"):
        # A run that was killed after writing left a whole candidate: nothing is written twice.
        return read(stores, project, head, release, chosen).card
    for name, data in artefact.pack(weights, card).items():
        stores.objects.put(f"{folder}/{name}", data)
    return card


def made_with() -> dict[str, str]:
    """The versions that the bytes of a release rest on."""
    return {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}


def record(
    tx: Any,
    project_id: str,
    head: str,
    number: int,
    dataset: Dataset,
    chosen: ChosenEncoder,
    card: dict[str, Any],
    verdict: Verdict,
    now: dt.datetime,
) -> tuple[str, str]:
    """Record a judged candidate, and make it live if it passed and no release is pinned; returns state and reason."""
    installation.lock_project(tx, project_id)  # nobody pins or rolls back meanwhile
    held = registry.pinned(tx, project_id, head)
    reason = verdict.reason
    if verdict.passed and held:
        reason += f"; {held['release_id']} stays live, since it is pinned"
    registry.add_release(
        tx,
        {
            "project_id": project_id,
            "head": head,
            "id": card["release"],
            "number": number,
            "dataset_id": dataset.id,
            "encoder": chosen.digest,
            "state": CANDIDATE if verdict.passed else REFUSED,
            "reason": reason,
            "card": card,
            "created_at": now,
        },
    )
    if not verdict.passed or held:
        return CANDIDATE if verdict.passed else REFUSED, reason
    registry.go_live(tx, project_id, head, card["release"], now, f"followed by {card['release']}")
    return LIVE, reason
