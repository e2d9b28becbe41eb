"""A ranker's lesson: which picture of a set is best, from embeddings and textures.

Where its project learns together with others, the picks of these are looked at too; whether they help is found by
cross-validation, and only pairs from within a set of one project are ever compared.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from closedloop import datasets, graded_gate, near_identical
from closedloop import project as projects
from closedloop.datasets import Dataset
from closedloop.features import Features, Progress
from closedloop.models import ranker
from closedloop.project import RANKER, SELECTION, Project
from closedloop.storage import Stores, answers
from closedloop.training.lesson import GRADED_INTERVAL, Lesson, graded_interval


@dataclass(frozen=True)
class Other:
    """A frozen dataset of another project that a ranker may learn from."""

    project: str
    dataset: Dataset

    def as_json(self) -> dict[str, str]:
        """For the card."""
        return {"project": self.project, "dataset": self.dataset.id, "digest": self.dataset.digest}


class RankerLesson(Lesson):
    """Picks of sets."""

    head = RANKER
    measure = graded_gate.BEATEN
    interval = GRADED_INTERVAL

    def __init__(self, stores: Stores, project: Project, dataset: Dataset, others: Sequence[Other] = ()) -> None:
        self.others = others
        super().__init__(stores, project, dataset)

    def check_enough(self) -> None:
        """Raise TooFewAnswers below ten sets, two of which differ."""
        self._require_answers()

    def look(self, features: Features) -> None:
        """The embeddings and textures of every picture."""
        self.own = _picks(self.dataset, self.groups, features)
        self.taught = [
            _picks(other.dataset, groups, features.of_project(other.project))
            for other, groups in zip(self.others, self.groups_of_others, strict=True)
        ]

    @property
    def width(self) -> int:
        """The embedding's dimension and the texture's."""
        return self.own.inputs.shape[1]

    def fit(self, progress: Progress | None = None) -> ranker.Fitted:
        """Fit on all picks."""
        return ranker.fit(
            self.own.inputs, self.own.sets, self.own.chosen, self.groups, self.fair, self.taught, progress=progress
        )

    def scores(self, fitted: ranker.Fitted) -> np.ndarray:
        """Of each set, the share of the others that the chosen picture beats."""
        return np.array([_beaten(chances, c) for chances, c in zip(fitted.out_of_fold, self.own.chosen, strict=True)])

    def scores_of(self, made: Any, rows: np.ndarray) -> np.ndarray:
        """The same of a release."""
        scores = made.head.scores(self.own.inputs)
        return np.array([_beaten(scores[self.own.sets[row]], int(self.own.chosen[row])) for row in rows])

    def baselines(self) -> Mapping[str, np.ndarray]:
        """Picking by chance beats half of the others."""
        return {"picking by chance": np.full(len(self.dataset.items), 0.5)}

    def interval_of(self, scores: np.ndarray) -> tuple[float, float]:
        """See `graded_interval`; near-identical sets drawn together."""
        return graded_interval(scores, self.groups)

    def said_of(self, fitted: ranker.Fitted) -> dict[str, Any]:
        """How often the suggested picture is the chosen one, by chance too, and how honest the confidence is."""
        pairs = list(zip(fitted.out_of_fold, self.own.chosen, strict=True))
        suggested = np.array([chances.argmax() == c for chances, c in pairs], dtype=float)
        confidence = np.array([chances.max() for chances, _ in pairs])
        return {
            "best_suggested": float(suggested.mean()),
            "best_suggested_by_chance": float(np.mean([1 / len(chances) for chances, _ in pairs])),
            "mean_confidence": float(confidence.mean()),
            "log_loss": float(np.mean([-np.log(max(chances[c], 1e-12)) for chances, c in pairs])),
        }

    def about(self, fitted: ranker.Fitted) -> dict[str, Any]:
        """Its temperature, and from which other projects it learnt, if the chosen recipe does."""
        shared = [other.as_json() for other in self.others] if fitted.recipe.shared else []
        return {
            "temperature": fitted.temperature,
            "learnt_together_with": shared,
            "offered_by": [other.as_json() for other in self.others],
        }

    def akin(self, card: Mapping[str, Any]) -> np.ndarray:
        """See `Lesson.akin`."""
        others = others_then(self.stores, card.get("learnt_together_with", ()))
        learnt = [phash for other in others for item in other.dataset.items for phash in item.members.values()]
        own = [phash for item in self.dataset.items for phash in item.members.values()]
        groups = near_identical.groups_of([*own, *learnt])
        ends = np.cumsum([len(item.members) for item in self.dataset.items])
        return np.logical_or.reduceat(np.isin(groups[: len(own)], groups[len(own) :]), [0, *ends[:-1]])

    def _groups(self) -> np.ndarray:
        """Sets that have a picture, or near-identical ones, in common are one group, other projects' sets too."""
        items = [*self.dataset.items, *(item for other in self.others for item in other.dataset.items)]
        groups, starts = groups_of_sets(items), np.cumsum([len(self.dataset.items), *map(_size, self.others)])
        own, *self.groups_of_others = np.split(groups, starts[:-1])
        return own


def _size(other: Other) -> int:
    return len(other.dataset.items)


def groups_of_sets(items: Sequence[Any]) -> np.ndarray:
    """The group of each set, (n,): sets that share a picture, or have near-identical ones, are in one."""
    phashes = {image_id: phash for item in items for image_id, phash in item.members.items()}
    ids = list(phashes)
    alike = dict(zip(ids, near_identical.groups_of([phashes[id_] for id_ in ids]).tolist(), strict=True))
    first: dict[int, int] = {}  # group of pictures -> the first set that has one of it
    root = list(range(len(items)))

    def find(number: int) -> int:
        while root[number] != number:
            root[number] = root[root[number]]
            number = root[number]
        return number

    for number, item in enumerate(items):
        for image_id in item.members:
            other = first.setdefault(alike[image_id], number)
            root[find(number)] = find(other)
    return np.array([find(number) for number in range(len(items))], dtype=np.int64)


def others_of(stores: Stores, project: Project, now: dt.datetime) -> list[Other]:
    """The picks of other projects that a project's ranker may learn from, frozen now.

    Raises StoreAway or DatabaseAway.
    """
    if not project.learn_together:
        return []
    found = []
    for other in projects.all_projects(stores):
        if other.kind == SELECTION and other.learn_together and other.id != project.id:
            dataset = datasets.freeze(stores, other, RANKER, now)
            if dataset.items:
                found.append(Other(other.id, dataset))
    return found


def others_then(stores: Stores, said: Sequence[Mapping[str, Any]]) -> list[Other]:
    """The frozen datasets of other projects that a card names (`Other.as_json`). Raises DatasetLost, StoreAway."""
    found = []
    for other in said:
        with stores.db.read() as tx:
            frozen = answers.dataset(tx, other["project"], other["dataset"])
        dataset, _ = datasets.read(stores, other["project"], frozen["id"], other["digest"], RANKER)
        found.append(Other(other["project"], dataset))
    return found


def _picks(dataset: Dataset, groups: np.ndarray, features: Features) -> ranker.Picks:
    ids = dataset.image_ids
    number = {image_id: row for row, image_id in enumerate(ids)}
    sets = [np.array([number[image_id] for image_id in item.members]) for item in dataset.items]
    chosen = np.array([list(item.members).index(item.chosen) for item in dataset.items])
    return ranker.Picks(features.looks(ids), sets, chosen, groups)


def _beaten(scores: np.ndarray, chosen: int) -> float:
    """The share of the others that the chosen one is above; half of those that are level."""
    others = np.delete(scores, chosen)
    return float(((scores[chosen] > others) + 0.5 * (scores[chosen] == others)).mean())
