"""`closedloop reproduce RELEASE`: train it again from its frozen dataset, and compare the weights byte by byte."""

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from closedloop import datasets, releases, training
from closedloop import project as projects
from closedloop.errors import BadArtefact, DatasetLost, NotReproducible, PictureRemoved
from closedloop.features import Stages
from closedloop.installations import ChosenEncoder
from closedloop.models import artefact
from closedloop.storage import Stores, answers
from closedloop.training.release import made_with, read


@dataclass(frozen=True)
class Reproduction:
    """What training again gave."""

    release: str  # PROJECT/HEAD/RELEASE
    same: bool  # byte by byte
    differences: dict[str, float | None]  # tensor -> largest difference of a weight; None where its shape is another
    made_with: dict[str, tuple[str, str]]  # what differs of the libraries: (then, now)


def run(stores: Stores, name: str, clock: Callable[[], dt.datetime], stages: Stages | None = None) -> Reproduction:
    """Train the release of this name again; no release is written.

    Raises UnknownRelease, AmbiguousRelease, StoreAway, EncoderUnavailable, and NotReproducible where something that it
    was made from is gone: pictures that were removed, its dataset, its file, the weights of its encoder.
    """
    row = releases.find(stores, name)
    project, head, card = projects.get(stores, row["project_id"]), row["head"], row["card"]
    full = f"{project.id}/{head}/{row['id']}"
    of = ChosenEncoder(
        card["encoder"]["name"], card["encoder"]["digest"], card["encoder"]["dimension"], False, "", row["created_at"]
    )
    with stores.db.read() as tx:
        frozen = answers.dataset(tx, project.id, row["dataset_id"])
    try:
        dataset, classes = datasets.read(stores, project.id, frozen["id"], frozen["digest"], head)
        then = project.model_copy(update={"classes": classes})
        lesson = training.lesson_on(stores, then, head, dataset, card=card)
        lesson.look(training.features_of(stores, project.id, of, clock, stages))
        made = read(stores, project, head, row["id"], of.digest, lesson.width)
    except PictureRemoved:
        raise NotReproducible(release=full, reason="pictures that it learnt from were removed since") from None
    except (BadArtefact, DatasetLost) as error:
        raise NotReproducible(release=full, reason=str(error).removesuffix(".")) from None
    again = lesson.fit(stages and stages("learning")).head
    theirs, ours = made.head.tensors, again.tensors
    largest = {tensor: _largest(theirs.get(tensor), ours.get(tensor)) for tensor in sorted({*theirs, *ours})}
    same_weights = artefact.weights_bytes(again) == artefact.weights_bytes(made.head)
    then_temperature, now_temperature = (getattr(one, "temperature", None) for one in (made.head, again))
    now = made_with()
    return Reproduction(
        full,
        same_weights and then_temperature == now_temperature,
        {tensor: difference for tensor, difference in largest.items() if difference != 0},
        {name: (was, now[name]) for name in now if (was := card["made_with"].get(name, "another")) != now[name]},
    )


def _largest(then: np.ndarray | None, now: np.ndarray | None) -> float | None:
    """The largest difference of a weight; None where one is missing or has another shape."""
    if then is None or now is None or then.shape != now.shape:
        return None
    return float(np.abs(then - now).max(initial=0.0))
