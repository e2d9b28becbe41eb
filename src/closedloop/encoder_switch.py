"""`closedloop encoder use NAME`: re-embed, retrain, gate, and only then switch.

Every project that has a live release must get one on the new encoder that is not worse; else nothing changes.
"""

import contextlib
import datetime as dt
from collections.abc import Callable
from typing import Any

from closedloop import datasets, gate, installations, leases, training
from closedloop import project as projects
from closedloop.datasets import Dataset
from closedloop.embedding import Progress, vectors_of
from closedloop.errors import EncoderNotSwitched, EncoderUnavailable, Pinned
from closedloop.gate import Verdict
from closedloop.installations import ChosenEncoder
from closedloop.models import encoder as encoders
from closedloop.models.encoder import Encoder
from closedloop.project import CLASSIFIER, Project
from closedloop.storage import Stores, registry

PATIENCE = 600.0  # s that it waits for a training that is under way


def use(stores: Stores, name: str, clock: Callable[[], dt.datetime], progress: Progress | None = None) -> ChosenEncoder:
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
    every = projects.all_projects(stores)
    with contextlib.ExitStack() as held:
        holding = [
            held.enter_context(leases.held(stores, f"train:{p.id}:{CLASSIFIER}", clock, PATIENCE)) for p in every
        ]
        made = [m for p in every if (m := _candidate(stores, p, former, chosen, tower, clock, progress))]
        with stores.db.write() as tx:
            for lease in holding:
                lease.check(tx)
            for project_id, number, dataset, card, verdict in made:
                training.record(tx, project_id, CLASSIFIER, number, dataset, chosen, card, verdict, clock())
            installations.choose_encoder(tx, chosen, clock())
    return chosen


def _candidate(
    stores: Stores,
    project: Project,
    former: ChosenEncoder,
    chosen: ChosenEncoder,
    tower: Encoder,
    clock: Callable[[], dt.datetime],
    progress: Progress | None,
) -> tuple[str, int, Dataset, dict[str, Any], Verdict] | None:
    """A written candidate on the new encoder for a project that has a live release; raises EncoderNotSwitched."""
    with stores.db.read() as tx:
        live = registry.live_release(tx, project.id, CLASSIFIER)
        number = registry.next_number(tx, project.id, CLASSIFIER)
        held = registry.pinned(tx, project.id, CLASSIFIER)
    if live is None:
        return None
    if held:
        raise Pinned(release=held["release_id"], project=project.id)
    dataset = datasets.freeze(stores, project, CLASSIFIER, clock())
    training.check_enough(project, dataset)
    ids = [item.image_id for item in dataset.items]
    new = vectors_of(stores, project.id, ids, chosen.digest, lambda: tower, progress)
    after, groups, labels = training.fit_dataset(project, dataset, new)
    right = (after.out_of_fold.argmax(axis=1) == labels).tolist()
    try:
        old = vectors_of(stores, project.id, ids, former.digest, lambda: encoders.load(former.name), progress)
    except EncoderUnavailable as error:  # its weights are lost: there is nothing to compare with but the obvious
        commonest = training.commonest_class_right(labels, groups).tolist()
        verdict = gate.judge_first(right, commonest, f"the former encoder is lost: {error}")
    else:
        before, _, _ = training.fit_dataset(project, dataset, old)
        said = (before.out_of_fold.argmax(axis=1) == labels).tolist()
        verdict = gate.judge_switch(right, said, former.name, "both encoders' heads on the same folds")
    if not verdict.passed:
        raise EncoderNotSwitched(current=former.name, name=chosen.name, reason=f"{project.id} was {verdict.reason}")
    card = training.write(stores, project, CLASSIFIER, number, dataset, chosen, after, labels, verdict, clock())
    return project.id, number, dataset, card, verdict
