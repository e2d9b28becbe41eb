"""`closedloop encoder use NAME`: re-embed, retrain, gate, and only then switch.

Every project that has a live release must get one on the new encoder that is not worse; else nothing changes.
"""

import datetime as dt
from collections.abc import Callable

from closedloop import datasets, installations, leases, releases, training
from closedloop import project as projects
from closedloop.embedding import Progress, vectors_of
from closedloop.errors import EncoderNotSwitched
from closedloop.installations import ChosenEncoder
from closedloop.models import encoder as encoders
from closedloop.project import CLASSIFIER
from closedloop.storage import Stores, registry


def use(stores: Stores, name: str, clock: Callable[[], dt.datetime], progress: Progress | None = None) -> ChosenEncoder:
    """Switch the installation to another encoder; returns what is recorded.

    Both encoders' heads are fitted on the same answers with the same folds and compared on their out-of-fold answers.
    Raises EncoderUnavailable, EncoderNotSwitched with the gate's reason, TooFewAnswers, LeaseTaken, StoreAway.
    """
    former = installations.chosen_encoder(stores)
    tower = encoders.load(name)
    moment = clock()
    chosen = ChosenEncoder(
        tower.name,
        tower.digest,
        tower.dimension,
        tower.knows_words,
        f"{name} was asked for by `closedloop encoder use` on {moment.date().isoformat()}.",
        moment.isoformat(),
    )
    if former is None or former.digest == chosen.digest:
        with stores.db.write() as tx:
            installations.choose_encoder(tx, chosen, moment)
        return chosen
    with leases.held(stores, "encoder", clock) as lease:
        made = []
        for project in projects.all_projects(stores):
            with stores.db.read() as tx:
                live = registry.live_release(tx, project.id, CLASSIFIER)
                number = registry.next_number(tx, project.id, CLASSIFIER)
            if live is None:
                continue
            dataset = datasets.freeze(stores, project, CLASSIFIER, clock())
            training.check_enough(project, dataset)
            ids = [item.image_id for item in dataset.items]
            old = vectors_of(stores, project.id, ids, former.digest, lambda: encoders.load(former.name), progress)
            new = vectors_of(stores, project.id, ids, chosen.digest, lambda: tower, progress)
            before, _, labels = training.fit_dataset(project, dataset, old)
            after, _, _ = training.fit_dataset(project, dataset, new)
            verdict = releases.judge(
                (after.out_of_fold.argmax(axis=1) == labels).tolist(),
                (before.out_of_fold.argmax(axis=1) == labels).tolist(),
                f"{live['id']}'s encoder {former.name}, on the same folds",
            )
            if not verdict.passed:
                raise EncoderNotSwitched(current=former.name, name=name, reason=f"{project.id} was {verdict.reason}")
            card = training.write(stores, project, CLASSIFIER, number, dataset, chosen, after, labels, verdict, clock())
            made.append((project.id, number, dataset, card, verdict))
        with stores.db.write() as tx:
            lease.check(tx)
            for project_id, number, dataset, card, verdict in made:
                training.record(tx, project_id, CLASSIFIER, number, dataset, chosen, card, verdict, clock())
            installations.choose_encoder(tx, chosen, clock())
    return chosen
