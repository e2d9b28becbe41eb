"""What a head learns from a frozen dataset, and how good it is at that: what every head has in common."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from closedloop import gate, graded_gate, near_identical
from closedloop.bayesian_bootstrap import Mean
from closedloop.datasets import Dataset
from closedloop.errors import TooFewAnswers
from closedloop.features import Features, Progress
from closedloop.gate import Verdict
from closedloop.project import Project
from closedloop.storage import Stores

LEAST_ANSWERS = 10
GRADED_INTERVAL = "Bayesian bootstrap (Rubin 1981), one answer as bad and one as good as can be added; 95 %"


class Lesson(ABC):
    """One head's answers with what was computed of their pictures.

    A fit (what `fit` returns) has `head`, `recipe` and `losses`. A score says how good one answer is, from 0 to 1:
    right or wrong of a classifier, more or less good of the others.
    """

    head: ClassVar[str]
    measure: ClassVar[str] = gate.MEASURE
    interval: ClassVar[str]

    def __init__(self, stores: Stores, project: Project, dataset: Dataset) -> None:
        self.stores, self.project, self.dataset = stores, project, dataset
        # (n,) bool: what may judge a head, not only teach it; and what was not asked for because of what one said
        self.judged = np.array([item.is_settled for item in dataset.items], dtype=bool)
        self.fair = np.array([item.is_representative for item in dataset.items], dtype=bool)
        self.groups = self._groups()  # (n,): answers of one group stand on one side of every split

    def once_more(self) -> "Lesson":
        """The same lesson, to be looked at with another encoder."""
        return copy.copy(self)

    @abstractmethod
    def check_enough(self) -> None:
        """Raise TooFewAnswers where there is too little to learn from."""

    @abstractmethod
    def look(self, features: Features) -> None:
        """Read, or compute, what is to be seen of its pictures. Raises the errors of `Features`."""

    @property
    @abstractmethod
    def width(self) -> int:
        """How many numbers its head is given of a picture, or of a cell of it."""

    @abstractmethod
    def fit(self, progress: Progress | None = None) -> Any:
        """Fit a head on all of it, with honest answers by heads that have not seen them."""

    @abstractmethod
    def scores(self, fitted: Any) -> np.ndarray:
        """How good each of a fit's honest answers is, (n,) in 0-1."""

    @abstractmethod
    def scores_of(self, made: Any, rows: np.ndarray) -> np.ndarray:
        """How good a release (an `Artefact`) is at some of the answers (their numbers), in 0-1."""

    @abstractmethod
    def baselines(self) -> Mapping[str, np.ndarray]:
        """What a first release must beat: name -> how good that is at each answer, (n,) in 0-1."""

    @abstractmethod
    def interval_of(self, scores: np.ndarray) -> tuple[float, float]:
        """The 95 % interval of the mean of the scores (m,) of the answers that may judge."""

    @abstractmethod
    def said_of(self, fitted: Any) -> dict[str, Any]:
        """What else the card's metrics say of a fit."""

    def akin(self, card: Mapping[str, Any]) -> np.ndarray:
        """(n,) bool: which answers are of pictures, or near-identical ones, that the release of a `card` learnt from in
        other projects. Raises DatasetLost, StoreAway."""
        return np.zeros(len(self.dataset.items), dtype=bool)

    def about(self, fitted: Any) -> dict[str, Any]:
        """What the card says of this head alone."""
        return {}

    def per_answer(self) -> dict[str, int]:
        """How many of the dataset's answers say what, for the card."""
        return {}

    def judge_first(self, scores: np.ndarray, among: np.ndarray, looks: list[Any], basis: str) -> Verdict:
        """Judge a first release on some of the answers, (n,) bool; `looks` as in `judge`."""
        others = {name: said[among] for name, said in self.baselines().items()}
        rule = self.project.gate
        if self.measure == gate.MEASURE:
            ((_, commonest),) = others.items()
            former = [gate.Look(*look) for look in looks]
            return gate.judge_first(_right(scores[among]), _right(commonest), rule, former, basis)
        groups = self.groups[among]
        return graded_gate.judge_first(scores[among], others, rule, len(looks), self.measure, basis, groups)

    def judge_switch(self, scores: np.ndarray, former: np.ndarray, against: str, basis: str) -> Verdict:
        """Judge what a person has decided on, on all answers that may judge."""
        ours, theirs = scores[self.judged], former[self.judged]
        if self.measure == gate.MEASURE:
            return gate.judge_switch(_right(ours), _right(theirs), against, basis)
        return graded_gate.judge_switch(ours, theirs, against, self.measure, basis, self.groups[self.judged])

    def judge(
        self, scores: np.ndarray, live: np.ndarray, among: np.ndarray, against: str, looks: list[Any], basis: str
    ) -> Verdict:
        """Judge a candidate against the live release on some of the answers; `live` (m,) are its scores on these.

        `looks` are (discordant, needed) of the candidates judged before against that release.
        """
        if self.measure == gate.MEASURE:
            former = [gate.Look(*look) for look in looks]
            return gate.judge(_right(scores[among]), _right(live), against, self.project.gate, former, basis)
        return graded_gate.judge(
            scores[among], live, against, self.project.gate, len(looks), self.measure, basis, self.groups[among]
        )

    def _groups(self) -> np.ndarray:
        """Groups of near-identical pictures, of answers about one picture each."""
        return near_identical.groups_of([item.phash for item in self.dataset.items])

    def _require_answers(self, classes: int | None = None) -> None:
        """Raise TooFewAnswers below ten answers, two that differ, and of two of the `classes` where there are any."""
        different, have = len(np.unique(self.groups[self.judged])), int(self.judged.sum())
        if have < LEAST_ANSWERS or different < 2 or (classes is not None and classes < 2):
            raise TooFewAnswers(
                project=self.project.id,
                head=self.head,
                have=have,
                different=different,
                need=LEAST_ANSWERS,
                of_classes="" if classes is None else f" of {classes} classes",
                and_classes="" if classes is None else " of 2 classes",
            )


def graded_interval(scores: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of the mean of scores (n,) in 0-1, those of one group (n,) drawn together (GRADED_INTERVAL).

    It holds the mean itself, also where all scores are as good as can be.
    """
    low, rest = (Mean.of(side, groups, (0.0, 1.0)).lower_bound(0.975) for side in (scores, 1 - scores))
    mean = float(scores.mean())
    return min(low, mean), max(1 - rest, mean)


def _right(scores: np.ndarray) -> list[bool]:
    return (scores > 0.5).tolist()
