"""Fitting a ranker on sets of which one picture was chosen: Plackett-Luce, which for two is Bradley-Terry.

Each picture has a score, and is chosen from its set with the probability of its score among the others' (Bradley and
Terry 1952; Luce 1959; Plackett 1975). Only pictures of one set are compared.
"""

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from closedloop.models import calibration, cross_fitting
from closedloop.models.cross_fitting import Answered
from closedloop.models.fitting import SEED, Progress, Schedule, converge, descend, one_thread
from closedloop.models.heads import RANKER_HIDDEN, Ranker, softmax

STEPS = 60  # of L-BFGS
SCHEDULE = Schedule(epochs=30, batch=128, rate=1e-3, patience=2)
LEAST_BATCH, LEAST_STEPS = 16, 32  # fewer sets a step where an epoch would otherwise have fewer steps
UNWATCHED_EPOCHS = 8  # where there is nothing to hold back
DROPOUT = 0.3
LEAST_FOR_MLP = 100  # sets: from fewer, its hundreds of thousands of weights learn nothing that a line does not


@dataclass(frozen=True)
class Picks:
    """Sets of pictures with the chosen ones, of one project."""

    inputs: np.ndarray  # (p, d) float32, of each picture
    sets: Sequence[np.ndarray]  # n of them: the numbers of a set's pictures
    chosen: np.ndarray  # (n,) the place of the chosen one in its set
    groups: np.ndarray | None = None  # (n,) of another project's: numbers of the own groups that its sets belong to


@dataclass(frozen=True)
class Recipe:
    """How a head is made: `l2` penalises the squared weights, per set; `shared`: from other projects' sets, too.

    `epochs` are those that an MLP learnt, by early stopping; 0 for a linear head, which goes to its one optimum.
    """

    kind: str  # linear | mlp
    l2: float
    shared: bool = False
    epochs: int = 0

    def __str__(self) -> str:
        return f"{self.kind} l2={self.l2:.3g}{' shared' if self.shared else ''}"

    def as_json(self) -> dict[str, Any]:
        """For the card."""
        return asdict(self)


RECIPES = (
    Recipe("linear", l2=1.0),
    Recipe("linear", l2=1 / 4),
    Recipe("linear", l2=1 / 16),
    Recipe("mlp", l2=1 / 4),
)


@dataclass(frozen=True)
class Fitted:
    """A head fitted on all sets, with what its cross-validation showed."""

    head: Ranker
    recipe: Recipe
    out_of_fold: list[np.ndarray]  # of each set, the calibrated probabilities (k,), by a head that did not see it
    losses: dict[str, float]  # of each recipe: log loss out of fold, calibrated
    folds: np.ndarray  # (n,)
    temperature: float


@dataclass(frozen=True)
class _Known:
    """Sets as a table: row numbers of pictures, padded to the largest set."""

    inputs: torch.Tensor  # (p, d)
    members: torch.Tensor  # (n, k) picture numbers, 0 where a set has fewer
    there: torch.Tensor  # (n, k) bool
    chosen: torch.Tensor  # (n,)

    def seen(self, sets: torch.Tensor | np.ndarray) -> torch.Tensor:
        """The inputs of all pictures of some sets, one set after the other, (q, d)."""
        return self.inputs[self.members[sets][self.there[sets]]]


def fit(
    inputs: np.ndarray,
    sets: Sequence[np.ndarray],
    chosen: np.ndarray,
    groups: np.ndarray,
    fair: np.ndarray | None = None,
    others: Sequence[Picks] = (),
    seed: int = SEED,
    progress: Progress | None = None,
    offered: Sequence[Recipe] = RECIPES,
) -> Fitted:
    """Fit the best recipe on sets (see `Picks`) in `groups` (n,), none of which stands on both sides of a split.

    Where there are `others`, recipes that learn from their sets too are tried beside those that do not; which is
    better is found on the own sets, and those of the others that are of a held-out group are held out with it. The
    temperature is fitted on out-of-fold scores, of the sets marked in `fair` (n,) bool alone where these are 50 or
    more.
    Raises ValueError where there are fewer than two groups.
    """
    own, count = Picks(inputs, sets, chosen), len(sets)
    known = _together([own, *others])
    extra = np.arange(count, len(known.chosen))
    theirs = np.concatenate([[], *(np.full(len(o.sets), -1) if o.groups is None else o.groups for o in others)])
    fair = calibration.enough(fair, count)
    lines = [recipe for recipe in offered if recipe.kind == "linear"]
    offered = lines if lines and count < LEAST_FOR_MLP else offered
    recipes = [*offered, *(replace(recipe, shared=True) for recipe in offered if len(extra))]
    truth = np.asarray(chosen, dtype=np.int64)

    def answer(recipe: Recipe, learnt: np.ndarray, held: np.ndarray) -> Answered:
        apart = extra[~np.isin(theirs, groups[held])]
        head, epochs = fit_one(recipe, known, learnt, groups, apart, seed)
        return Answered(_scores(head, known, held), epochs)

    def judge(scores: np.ndarray, held: np.ndarray) -> np.ndarray:
        return calibration.losses_of(scores / calibration.fit_temperature(scores, truth[held]), truth[held])

    with one_thread():
        folds = cross_fitting.split(groups, seed=seed)
        tried = cross_fitting.cross_fit(recipes, folds, answer, judge, None, progress)
        honest = np.empty((count, known.members.shape[1]))
        for mine, best in tried.chosen():
            rest = ~mine & fair if (~mine & fair).any() else ~mine
            scale = calibration.fit_temperature(tried.answers[best][rest], truth[rest])
            honest[mine] = softmax(tried.answers[best][mine] / scale)
        temperature = calibration.fit_temperature(tried.answers[tried.best][fair], truth[fair])
        recipe = replace(tried.best, epochs=tried.epochs[tried.best])
        head, _ = fit_one(recipe, known, np.arange(count), groups, extra, seed)
    losses = {str(one): loss for one, loss in tried.mean_losses.items()}
    chances = [row[: len(members)] for row, members in zip(honest, sets, strict=True)]
    return Fitted(replace(head, temperature=temperature), recipe, chances, losses, folds, temperature)


def fit_one(
    recipe: Recipe, known: _Known, rows: np.ndarray, groups: np.ndarray, extra: np.ndarray, seed: int = SEED
) -> tuple[Ranker, int]:
    """Fit one head on the sets numbered `rows`, and on `extra` where the recipe is shared; returns its epochs, too."""
    generator = torch.Generator().manual_seed(seed)
    learnt, held = rows, rows[:0]
    if recipe.kind == "mlp" and not recipe.epochs:
        learnt, held = cross_fitting.hold_back(groups, rows, seed)
    if recipe.shared:
        learnt = np.concatenate([learnt, extra])
    of_learnt, of_held = torch.from_numpy(learnt), torch.from_numpy(held)
    width = known.inputs.shape[1]
    widths = (width, *RANKER_HIDDEN, 1) if recipe.kind == "mlp" else (width, 1)
    layers = []
    for wide, narrow in itertools.pairwise(widths):
        weight = torch.zeros(narrow, wide)
        if recipe.kind == "mlp":
            weight.normal_(0, (2 / wide) ** 0.5, generator=generator)
        layers.append((weight.requires_grad_(), torch.zeros(narrow, requires_grad=recipe.kind == "mlp")))

    # All examples are looked at in each step of a linear head, so they are gathered only once.
    gathered = known.seen(of_learnt) if recipe.kind == "linear" else None

    def scores(sets: torch.Tensor, drop: bool) -> torch.Tensor:
        there = known.there[sets]
        values = known.seen(sets) if gathered is None else gathered
        for number, (weight, bias) in enumerate(layers):
            values = torch.nn.functional.linear(values, weight, bias if recipe.kind == "mlp" else None)
            if number < len(layers) - 1:
                values = torch.relu(values)
                if drop:
                    kept = torch.randint(0, 100, values.shape, generator=generator, dtype=torch.uint8) >= 100 * DROPOUT
                    values = values * kept.float().div_(1 - DROPOUT)
        return torch.full(there.shape, -torch.inf).masked_scatter(there, values[:, 0])

    def loss(at: torch.Tensor) -> torch.Tensor:
        sets = of_learnt[at]
        penalty = sum((weight.square().sum() for weight, _ in layers), torch.zeros(()))
        likely = torch.nn.functional.cross_entropy(scores(sets, recipe.kind == "mlp"), known.chosen[sets])
        return likely + recipe.l2 / (2 * len(of_learnt)) * penalty

    def held_out_loss() -> float:
        return float(torch.nn.functional.cross_entropy(scores(of_held, False), known.chosen[of_held]))

    parameters = [tensor for layer in layers for tensor in layer if tensor.requires_grad]
    if recipe.kind == "linear":
        converge(parameters, loss, len(of_learnt), STEPS)
        return Ranker("linear", {"weight": layers[0][0].detach().numpy()}), 0
    batch = max(LEAST_BATCH, min(SCHEDULE.batch, len(of_learnt) // LEAST_STEPS))
    epochs = SCHEDULE.epochs if len(held) else recipe.epochs or UNWATCHED_EPOCHS
    schedule = replace(SCHEDULE, epochs=epochs, batch=batch)
    epochs = descend(parameters, loss, len(of_learnt), schedule, generator, held_out_loss if len(held) else None)
    tensors = {
        f"{number}.{name}": tensor.detach().numpy()
        for number, layer in enumerate(layers)
        for name, tensor in zip(("weight", "bias"), layer, strict=True)
    }
    return Ranker("mlp", tensors), epochs


def _together(lessons: Sequence[Picks]) -> _Known:
    """All sets in one table, the pictures of each project after those of the one before."""
    largest = max(len(members) for lesson in lessons for members in lesson.sets)
    members, there, offset = [], [], 0
    for lesson in lessons:
        for numbers in lesson.sets:
            padding = largest - len(numbers)
            members.append(np.pad(np.asarray(numbers, dtype=np.int64) + offset, (0, padding)))
            there.append(np.arange(largest) < len(numbers))
        offset += len(lesson.inputs)
    return _Known(
        torch.from_numpy(np.ascontiguousarray(np.concatenate([lesson.inputs for lesson in lessons]), np.float32)),
        torch.from_numpy(np.array(members)),
        torch.from_numpy(np.array(there)),
        torch.from_numpy(np.concatenate([np.asarray(lesson.chosen, dtype=np.int64) for lesson in lessons])),
    )


def _scores(head: Ranker, known: _Known, rows: np.ndarray) -> np.ndarray:
    """The scores of sets, (m, k) float64, -inf where a set has fewer."""
    there = known.there[rows].numpy()
    values = np.full(there.shape, -np.inf)
    values[there] = head.scores(known.seen(rows).numpy())
    return values
