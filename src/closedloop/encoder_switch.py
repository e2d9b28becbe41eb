"""`closedloop encoder use NAME`: re-embed, retrain, gate, and only then switch.

Every head that has a live release must get one on the new encoder that is not worse; else nothing changes.
"""

import contextlib
import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from closedloop import datasets, installations, leases, training
from closedloop import project as projects
from closedloop.datasets import Dataset
from closedloop.errors import EncoderNotSwitched, EncoderUnavailable, Pinned
from closedloop.features import Features, Stages
from closedloop.gate import Verdict
from closedloop.installations import ChosenEncoder
from closedloop.models import encoder as encoders
from closedloop.models.encoder import Encoder
from closedloop.project import Project
from closedloop.storage import Stores, registry
from closedloop.training.release import write

PATIENCE = 600.0  # s that it waits for a training that is under way


def use(stores: Stores, name: str, clock: Callable[[], dt.datetime], stages: Stages | None = None) -> ChosenEncoder:
    """Switch the installation to another encoder; returns what is recorded.

    Both encoders' heads are fitted on the same answers with the same folds and compared on their out-of-fold answers.
    Raises EncoderUnavailable, EncoderNotSwitched with the gate's reason, Pinned, TooFewAnswers, LeaseTaken, StoreAway.
    """
    former = installations.chosen_encoder(stores)
    tower = encoders.load(name)
    moment = clock()
    chosen = ChosenEncoder(
        tower.name,
        tower.digest,
        tower.dimension,
        tower.knows_words,
        f"{name} {installations.ASKED_FOR} `closedloop encoder use` on {moment.date().isoformat()}.",
        moment.isoformat(),
    )
    if former is None or former.digest == chosen.digest:
        with stores.db.write() as tx:
            installations.choose_encoder(tx, chosen, moment)
        return chosen
    every = [(project, head) for project in projects.all_projects(stores) for head in project.heads]
    with contextlib.ExitStack() as held:
        holding = [
            held.enter_context(leases.held(stores, f"train:{project.id}:{head}", clock, PATIENCE))
            for project, head in every
        ]
        made = [
            one
            for project, head in every
            if (one := _candidate(stores, project, head, former, chosen, tower, clock, stages))
        ]
        with stores.db.write() as tx:
            for lease in holding:
                lease.check(tx)
            for of in made:
                training.record(tx, of.project_id, of.head, of.number, of.dataset, chosen, of.card, of.verdict, clock())
            installations.choose_encoder(tx, chosen, clock())
    return chosen


@dataclass(frozen=True)
class _Candidate:
    """A written candidate on the new encoder."""

    project_id: str
    head: str
    number: int
    dataset: Dataset
    card: dict[str, Any]
    verdict: Verdict


def _candidate(
    stores: Stores,
    project: Project,
    head: str,
    former: ChosenEncoder,
    chosen: ChosenEncoder,
    tower: Encoder,
    clock: Callable[[], dt.datetime],
    stages: Stages | None,
) -> _Candidate | None:
    """A candidate for a head that has a live release; raises EncoderNotSwitched, Pinned."""
    with stores.db.read() as tx:
        live = registry.live_release(tx, project.id, head)
        number = registry.next_number(tx, project.id, head)
        held = registry.pinned(tx, project.id, head)
    if live is None:
        return None
    if held:
        raise Pinned(release=held["release_id"], project=project.id)
    dataset = datasets.freeze(stores, project, head, clock())
    lesson = training.lesson_on(stores, project, head, dataset, clock())
    lesson.check_enough()
    lesson.look(Features(stores, project.id, chosen.digest, lambda: tower, clock, stages))
    after = lesson.fit(stages and stages("learning"))
    scores = lesson.scores(after)
    try:
        before = lesson.once_more()
        before.look(training.features_of(stores, project.id, former, clock, stages))
    except EncoderUnavailable as error:  # its weights are lost: there is nothing to compare with but the obvious
        others = lesson.baselines()
        best = max(others, key=lambda name: float(others[name][lesson.judged].sum()))
        verdict = lesson.judge_switch(scores, others[best], best, f"the former encoder is lost: {error}")
    else:
        then = before.scores(before.fit(stages and stages("learning from the former encoder")))
        verdict = lesson.judge_switch(scores, then, former.name, "both encoders' heads on the same folds")
    if not verdict.passed:
        which = f"{project.id}'s {head} was {verdict.reason}"
        raise EncoderNotSwitched(current=former.name, name=chosen.name, reason=which)
    number, card = write(stores, lesson, number, chosen, after, verdict, clock())
    return _Candidate(project.id, head, number, dataset, card, verdict)
