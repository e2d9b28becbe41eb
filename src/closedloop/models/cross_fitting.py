"""Honest answers about what a head has learnt from: each by a head, of a recipe, that knew nothing of it.

Folds are made of whole groups, so near-identical pictures never stand on both sides. A fold is answered by the recipe
that was best on the other folds, so choosing does not flatter the answers (cf. Tibshirani and Tibshirani 2009).
"""

import math
import statistics
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

from closedloop.models.fitting import SEED, Progress

FOLDS = 5
FEWER_FOLDS = 3  # where there are so many examples that two thirds teach nearly as much as four fifths
MANY = 3000  # examples
R = TypeVar("R")  # a recipe
HELD_BACK = 8  # one group in so many says when fitting must stop
LEAST_TO_RACE = 30  # examples of the first fold: of fewer, the standard error itself is a guess
CLEARLY = 3.0  # standard errors by which a recipe is worse than the best on the first fold, to be tried no further


@dataclass(frozen=True)
class Answered:
    """What a head says about held-out examples, (n, ...), and how many epochs it learnt (0 where it has none)."""

    values: np.ndarray
    epochs: int = 0


@dataclass(frozen=True)
class CrossFitted(Generic[R]):
    """Answers of recipes about every example, each by a head that was fitted without the example's fold."""

    folds: np.ndarray  # (n,)
    answers: dict[R, np.ndarray]  # (n, ...) of each recipe that was tried on all folds
    losses: dict[R, np.ndarray]  # (n,) of these
    mean_losses: dict[R, float]  # of every recipe; of those that were clearly worse, on the first fold alone
    epochs: dict[R, int]  # the median over the folds
    weights: np.ndarray  # (n,) how much each example counts in choosing

    @property
    def best(self) -> R:
        """The recipe with the least loss over all folds; the first of equals."""
        return self._best(np.ones(len(self.folds), dtype=bool))

    def chosen(self) -> list[tuple[np.ndarray, R]]:
        """For each fold which examples are its own, (n,) bool, and the recipe that is best on the others."""
        return [(self.folds == fold, self._best(self.folds != fold)) for fold in np.unique(self.folds)]

    def _best(self, among: np.ndarray) -> R:
        return min(self.losses, key=lambda r: float(np.average(self.losses[r][among], weights=self.weights[among])))


def cross_fit(
    recipes: Sequence[R],
    folds: np.ndarray,
    answer: Callable[[R, np.ndarray, np.ndarray], Answered],
    judge: Callable[[np.ndarray, np.ndarray], np.ndarray],
    weights: np.ndarray | None = None,
    progress: Progress | None = None,
) -> CrossFitted[R]:
    """Try recipes on every fold; those that are clearly worse on the first one are tried no further.

    `answer(recipe, learnt, held)` fits on the examples numbered `learnt` and answers about `held`;
    `judge(answers, held)` is the loss of each, (n,). A recipe is out when its mean loss is more than three standard
    errors of the paired difference above the best one's: a race (Maron and Moore 1994) that wastes no time on what
    cannot win, and whose glance at the first fold is too coarse to flatter its answers.
    """
    weights = np.ones(len(folds)) if weights is None else weights
    numbers = np.unique(folds)
    total, done = len(recipes) * len(numbers), 0
    parts: dict[R, list[Answered]] = {recipe: [] for recipe in recipes}
    mean_losses: dict[R, float] = {}
    left = list(recipes)
    for place, fold in enumerate(numbers):
        held, learnt = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        for recipe in left:
            parts[recipe].append(answer(recipe, learnt, held))
            done += 1
            if progress:
                progress(done, total)
        if place == 0:
            first = {recipe: judge(parts[recipe][0].values, held) for recipe in recipes}
            left = _still_in(first, weights[held])
            mean_losses = {recipe: float(np.average(first[recipe], weights=weights[held])) for recipe in recipes}
            done += (len(recipes) - len(left)) * (len(numbers) - 1)
    order = np.argsort(np.concatenate([np.flatnonzero(folds == fold) for fold in numbers]))
    answers = {recipe: np.concatenate([part.values for part in parts[recipe]])[order] for recipe in left}
    losses = {recipe: judge(answers[recipe], np.arange(len(folds))) for recipe in left}
    mean_losses |= {recipe: float(np.average(losses[recipe], weights=weights)) for recipe in left}
    epochs = {recipe: math.ceil(statistics.median(part.epochs for part in parts[recipe])) for recipe in left}
    return CrossFitted(folds, answers, losses, mean_losses, epochs, weights)


def split(groups: np.ndarray, labels: np.ndarray | None = None, seed: int = SEED) -> np.ndarray:
    """The fold of each example, (n,), a group always whole within one fold, and classes (where given) spread evenly.

    Raises ValueError where all are of one group.
    """
    different = len(np.unique(groups))
    if different < 2:
        raise ValueError("two groups are needed to hold one back")
    count = min(FEWER_FOLDS if len(groups) >= MANY else FOLDS, different)
    if labels is None:
        return _numbered(list(GroupKFold(count, shuffle=True, random_state=seed).split(groups, groups=groups)))
    splitter = StratifiedGroupKFold(n_splits=count, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes with fewer answers than folds are welcome
        try:
            return _numbered(list(splitter.split(labels, labels, groups)))
        except ValueError:  # no class has as many answers as there are folds
            return split(groups, None, seed)


def hold_back(groups: np.ndarray, rows: np.ndarray, seed: int = SEED) -> tuple[np.ndarray, np.ndarray]:
    """Of these examples, those to learn from and an eighth, in whole groups, on which to see when to stop.

    The second part is empty where they are of one group.
    """
    different = np.unique(groups[rows])
    if len(different) < 2:
        return rows, rows[:0]
    chosen = np.random.default_rng(seed).permutation(different)[: max(1, len(different) // HELD_BACK)]
    held = np.isin(groups[rows], chosen)
    return rows[~held], rows[held]


def _still_in(losses: dict[R, np.ndarray], weights: np.ndarray) -> list[R]:
    """The recipes that are not clearly worse than the best one, in their order."""
    count = weights.sum() ** 2 / np.square(weights).sum()  # examples that would say as much if all weighed alike (Kish)
    if count < LEAST_TO_RACE:
        return list(losses)
    best = min(losses.values(), key=lambda values: float(np.average(values, weights=weights)))

    def clearly_worse(values: np.ndarray) -> bool:
        apart = values - best
        mean = float(np.average(apart, weights=weights))
        spread = math.sqrt(float(np.average(np.square(apart - mean), weights=weights)) / count)
        return mean > CLEARLY * spread and mean > 0

    return [recipe for recipe, values in losses.items() if not clearly_worse(values)]


def _numbered(parts: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    folds = np.zeros(sum(len(held_out) for _, held_out in parts), dtype=np.int64)
    for number, (_, held_out) in enumerate(parts):
        folds[held_out] = number
    return folds
