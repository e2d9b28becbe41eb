"""From settled answers to a judged release: freeze, look, fit, gate, write, release; the same for every head.

Killed at any moment, a run leaves nothing or a whole candidate: the dataset is written once under its digest, the
release's manifest last, and the record with the decision in one transaction. Running again gives the same weights.
"""

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from closedloop import datasets, installations, leases
from closedloop.datasets import Dataset
from closedloop.errors import BadArtefact, LeaseLost, LiveChanged
from closedloop.features import Features, Stages
from closedloop.gate import Verdict
from closedloop.installations import ChosenEncoder
from closedloop.logs import get_logger
from closedloop.models import encoder as encoders
from closedloop.project import CLASSIFIER, CROPPER, RANKER, Project
from closedloop.storage import Stores, answers, installation, registry
from closedloop.training.classifier import ClassifierLesson
from closedloop.training.cropper import CropperLesson
from closedloop.training.lesson import Lesson
from closedloop.training.ranker import RankerLesson, others_of, others_then
from closedloop.training.release import read, write

LIVE, CANDIDATE, REFUSED = "live", "candidate", "refused"
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
    stages: Stages | None = None,
    head: str = CLASSIFIER,
    patience: float = 0.0,
) -> Outcome:
    """Train a candidate on everything that is settled, judge it, and release it if it passes.

    Where the live release has learnt exactly these answers, it is returned and nothing is made.

    Raises TooFewAnswers, LeaseTaken while the head is trained by another process (for longer than `patience`, in
    seconds), LeaseLost if this one was paused for so long that another took over, LiveChanged
    if another release went live meanwhile (then nothing is released), StoreAway, DatabaseAway, EncoderUnavailable.
    """
    with leases.held(stores, f"train:{project.id}:{head}", clock, patience) as lease:
        chosen = installations.encoder(stores)
        dataset = datasets.freeze(stores, project, head, clock())
        lesson = lesson_on(stores, project, head, dataset, clock())
        lesson.check_enough()
        if standing := _already_live(stores, project, head, dataset, chosen):
            return standing
        get_logger().info("training", project=project.id, head=head, dataset=dataset.id, answers=len(dataset.items))
        lesson.look(features_of(stores, project.id, chosen, clock, stages))
        fitted = lesson.fit(stages and stages("learning"))
        verdict, judged_against = against_live(stores, lesson, fitted, chosen)
        with stores.db.read() as tx:
            number = registry.next_number(tx, project.id, head)
        number, made = write(stores, lesson, number, chosen, fitted, verdict, clock())
        with stores.db.write() as tx:
            lease.check(tx)
            installation.lock_project(tx, project.id)  # nobody pins or rolls back from here on
            if _live_id(tx, project.id, head) != judged_against:
                raise LiveChanged(project=project.id, head=head)
            if installations.chosen_encoder_now(tx) != chosen:
                raise LeaseLost(name=f"training {project.id}")  # `closedloop encoder use` came in between
            state, reason = record(tx, project.id, head, number, dataset, chosen, made, verdict, clock())
    return Outcome(made["release"], state, reason, made)


def lesson_on(
    stores: Stores,
    project: Project,
    head: str,
    dataset: Dataset,
    now: dt.datetime | None = None,
    card: dict[str, Any] | None = None,
) -> Lesson:
    """What a head may learn now from a frozen dataset; or, with the `card` of a release, what that one could then."""
    if head == CLASSIFIER:
        return ClassifierLesson(stores, project, dataset)
    if head == CROPPER:
        return CropperLesson(stores, project, dataset)
    assert head == RANKER
    if card is not None:
        return RankerLesson(stores, project, dataset, others_then(stores, card.get("offered_by", ())))
    others = others_of(stores, project, now) if now else []
    return RankerLesson(stores, project, dataset, others)


def features_of(
    stores: Stores, project_id: str, chosen: ChosenEncoder, clock: Clock, stages: Stages | None = None
) -> Features:
    """What an encoder sees of a project's pictures; it is loaded when something is missing."""
    return Features(stores, project_id, chosen.digest, lambda: encoders.load(chosen.name), clock, stages)


def _already_live(
    stores: Stores, project: Project, head: str, dataset: Dataset, chosen: ChosenEncoder
) -> Outcome | None:
    """The live release, where it has learnt exactly these answers: there is nothing to train or to judge."""
    with stores.db.read() as tx:
        live = registry.live_release(tx, project.id, head)
    if live is None or (live["dataset_id"], live["encoder"]) != (dataset.id, chosen.digest):
        return None
    return Outcome(live["id"], LIVE, "nothing is new since the live release, which stays", live["card"])


def _live_id(tx: Any, project_id: str, head: str) -> str | None:
    live = registry.live_release(tx, project_id, head)
    return live["id"] if live else None


def against_live(stores: Stores, lesson: Lesson, fitted: Any, chosen: ChosenEncoder) -> tuple[Verdict, str | None]:
    """Judge a fitted candidate: against the live release, or the baselines where there is none that fits.

    Returns the verdict and which release was live at that moment.
    """
    project, dataset = lesson.project, lesson.dataset
    scores = lesson.scores(fitted)
    with stores.db.read() as tx:
        live = registry.live_release(tx, project.id, lesson.head)
        learnt = answers.dataset_images(tx, project.id, live["dataset_id"]) if live else {}
    current, why = None, ""
    if live is not None and live["encoder"] == chosen.digest:
        try:
            current = read(stores, project, lesson.head, live["id"], chosen.digest, lesson.width)
        except BadArtefact as error:
            why = f"; {error}"  # a live release that cannot be used must not bar the way to a new one
    if live is None or current is None:
        among, basis = _comparable(lesson.judged, lesson.fair)
        with stores.db.read() as tx:
            looks = registry.looks(tx, project.id, lesson.head, None, dataset.id)
        return lesson.judge_first(scores, among, looks, basis + why), live["id"] if live else None
    has_learnt = np.array([any(image_id in learnt for image_id in item.pictures) for item in dataset.items])
    has_learnt |= lesson.akin(live["card"])
    seen = np.isin(lesson.groups, lesson.groups[has_learnt])
    among, basis = _comparable(~seen & lesson.judged, lesson.fair)
    said = lesson.scores_of(current, np.flatnonzero(among))
    with stores.db.read() as tx:
        looks = registry.looks(tx, project.id, lesson.head, live["id"], dataset.id)
    return lesson.judge(scores, said, among, live["id"], looks, basis), live["id"]


def _comparable(open_to: np.ndarray, fair: np.ndarray) -> tuple[np.ndarray, str]:
    """Which answers (n,) bool to compare on, and what they are.

    Most answers were asked for because the live release was unsure or called wrong; compared on those, any other one
    looks better. So the random sample and imports decide as soon as there are enough of them.
    """
    if (open_to & fair).sum() >= LEAST_FAIR:
        return open_to & fair, "random sample and imports"
    return open_to, f"all queues, which favours the candidate, since fewer than {LEAST_FAIR} were drawn at random"


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
        shared=[(other["project"], other["dataset"]) for other in card.get("learnt_together_with", ())],
    )
    if not verdict.passed or held:
        return CANDIDATE if verdict.passed else REFUSED, reason
    registry.go_live(tx, project_id, head, card["release"], now, f"followed by {card['release']}")
    return LIVE, reason
