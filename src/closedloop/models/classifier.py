"""Fitting a classifier on unit embeddings: cross-validation, choice of the recipe, calibration.

Each answer's out-of-fold logits come from a head that has not seen it, nor a near-identical picture: on them the
recipe is chosen, the temperature is fitted, and the gate decides.
"""

import itertools
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from closedloop.models import calibration, cross_fitting
from closedloop.models.cross_fitting import Answered
from closedloop.models.fitting import SEED, Progress, Schedule, converge, descend, one_thread
from closedloop.models.heads import Classifier, softmax

STEPS = 100  # of L-BFGS
SCHEDULE = Schedule(epochs=30, batch=32, rate=3e-3, patience=3)
NEARLY_NOTHING = 1e-9  # of an answer's weight
UNWATCHED_EPOCHS = 12  # where there is nothing to hold back


@dataclass(frozen=True)
class Recipe:
    """How a head is made: `l2` penalises the squared weights, per answer; `hidden` is the width of an MLP.

    `balanced`: each class counts alike, however often it was answered (King and Zeng 2001). `epochs` are those that an
    MLP learnt, by early stopping; 0 for a linear head, which goes to its one optimum.
    """

    kind: str
    l2: float
    hidden: int | None = None
    balanced: bool = False
    epochs: int = 0

    def __str__(self) -> str:
        return f"{self.kind} l2={self.l2:.3g}{' balanced' if self.balanced else ''}"

    def as_json(self) -> dict[str, Any]:
        """For the card."""
        return asdict(self)


RECIPES = (
    Recipe("linear", l2=1 / 3),
    Recipe("linear", l2=1 / 10),
    Recipe("linear", l2=1 / 30),
    Recipe("mlp", l2=1 / 30, hidden=128),
)
BALANCED = tuple(replace(recipe, balanced=True) for recipe in RECIPES[1::2])


@dataclass(frozen=True)
class Fitted:
    """A head fitted on all answers, with what its cross-validation showed."""

    head: Classifier
    recipe: Recipe
    out_of_fold: np.ndarray  # (n, classes) calibrated probabilities, each by a head that did not see the answer
    losses: dict[str, float]  # of each recipe: log loss out of fold, calibrated
    folds: np.ndarray  # (n,)
    temperature: float


@dataclass(frozen=True)
class Answers:
    """What there is to learn from."""

    vectors: torch.Tensor  # (n, d) float32
    labels: torch.Tensor  # (n,)
    trust: np.ndarray  # (n,) in (0, 1]
    groups: np.ndarray  # (n,)
    classes: int


def fit(
    vectors: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    classes: int,
    fair: np.ndarray | None = None,
    trust: np.ndarray | None = None,
    judged: np.ndarray | None = None,
    seed: int = SEED,
    progress: Progress | None = None,
) -> Fitted:
    """Fit the best recipe. `vectors` (n, d) float32 of unit length, `labels` (n,) class numbers, `groups` (n,).

    Pictures of one group never stand on both sides of a split. The temperature (Guo et al. 2017) is fitted on
    out-of-fold logits, for them likewise without the own fold, and on the answers marked in `fair` (n,) bool alone
    where these are 50 or more: confidence is meant for what visitors send, not for what was hard. `trust` (n,) in
    (0, 1] is how much each answer counts, for how reliable its source is. Answers that are not marked in `judged` (n,)
    bool are learnt from and say nothing of what is better. Recipes that weigh the classes alike are tried where the
    classes differ in number.
    Raises ValueError where there are fewer than two groups or classes, or a trust outside (0, 1].
    """
    if len(np.unique(labels)) < 2 or len(np.unique(groups)) < 2:
        raise ValueError("fitting needs two classes and two pictures that differ")
    trust = np.ones(len(labels)) if trust is None else np.asarray(trust, dtype=np.float64)
    if not ((trust > 0) & (trust <= 1)).all():
        raise ValueError("trust lies above 0 and at most at 1")
    judged = np.ones(len(labels), dtype=bool) if judged is None else judged
    fair = judged if fair is None or (fair & judged).sum() < calibration.LEAST_TO_CALIBRATE else fair & judged
    known = Answers(
        torch.from_numpy(np.ascontiguousarray(vectors)),
        torch.from_numpy(np.ascontiguousarray(labels)),
        trust,
        groups,
        classes,
    )
    counts = np.unique(labels, return_counts=True)[1]
    balanced = BALANCED if counts.min() != counts.max() else ()

    def answer(recipe: Recipe, learnt: np.ndarray, held: np.ndarray) -> Answered:
        head, epochs = fit_one(recipe, known, learnt, seed)
        return Answered(head.logits(vectors[held]).astype(np.float64), epochs)

    def judge(logits: np.ndarray, held: np.ndarray) -> np.ndarray:
        # Each recipe is compared as it would be used, that is calibrated.
        truth = labels[held]
        return calibration.losses_of(logits / calibration.fit_temperature(logits, truth), truth)

    choosing = np.where(judged, trust, NEARLY_NOTHING)  # a fold may hold none that are judged
    with one_thread():
        folds = cross_fitting.split(groups, labels, seed)
        tried = cross_fitting.cross_fit([*RECIPES, *balanced], folds, answer, judge, choosing, progress)
        honest = np.empty((len(labels), classes))
        for own, chosen in tried.chosen():
            others = next(some for some in (~own & fair, ~own & judged, ~own) if some.any())
            scale = calibration.fit_temperature(tried.answers[chosen][others], labels[others])
            honest[own] = softmax(tried.answers[chosen][own] / scale)
        best = replace(tried.best, epochs=tried.epochs[tried.best])
        temperature = calibration.fit_temperature(tried.answers[tried.best][fair], labels[fair])
        head, _ = fit_one(best, known, np.arange(len(labels)), seed)
    losses = {str(recipe): loss for recipe, loss in tried.mean_losses.items()}
    return Fitted(replace(head, temperature=temperature), best, honest, losses, folds, temperature)


def fit_one(recipe: Recipe, known: Answers, rows: np.ndarray, seed: int = SEED) -> tuple[Classifier, int]:
    """Fit one head on the answers numbered `rows`: weighted cross-entropy plus l2 / (2 n) times the squared weights.

    Returns it with the epochs that it learnt. An MLP whose recipe knows no epochs holds some groups back to find them.
    """
    generator = torch.Generator().manual_seed(seed)
    learnt, held = rows, rows[:0]
    if recipe.hidden and not recipe.epochs:
        learnt, held = cross_fitting.hold_back(known.groups, rows, seed)
    x, y = known.vectors[learnt], known.labels[learnt]
    weights = torch.from_numpy(weights_of(recipe, known.labels.numpy()[learnt], known.trust[learnt]))
    widths = [x.shape[1], recipe.hidden, known.classes] if recipe.hidden else [x.shape[1], known.classes]
    layers = []
    for wide, narrow in itertools.pairwise(widths):
        weight = torch.zeros(narrow, wide)
        if recipe.hidden:
            weight.normal_(0, (2 / wide) ** 0.5, generator=generator)
        layers.append((weight.requires_grad_(), torch.zeros(narrow, requires_grad=True)))

    def logits(batch: torch.Tensor) -> torch.Tensor:
        for number, (weight, bias) in enumerate(layers):
            batch = torch.nn.functional.linear(torch.relu(batch) if number else batch, weight, bias)
        return batch

    def loss(at: torch.Tensor) -> torch.Tensor:
        penalty = sum((weight.square().sum() for weight, _ in layers), torch.zeros(()))
        each = torch.nn.functional.cross_entropy(logits(x[at]), y[at], reduction="none")
        return (weights[at] * each).mean() + recipe.l2 / (2 * len(x)) * penalty

    def held_out_loss() -> float:
        return float(torch.nn.functional.cross_entropy(logits(known.vectors[held]), known.labels[held]))

    parameters = [tensor for layer in layers for tensor in layer]
    epochs = 0
    if not recipe.hidden:
        converge(parameters, loss, len(x), STEPS)
    elif len(held):
        epochs = descend(parameters, loss, len(x), SCHEDULE, generator, held_out_loss)
    else:
        fixed = replace(SCHEDULE, epochs=recipe.epochs or UNWATCHED_EPOCHS)
        epochs = descend(parameters, loss, len(x), fixed, generator)
    names = [("weight", "bias")] if not recipe.hidden else [("hidden.weight", "hidden.bias"), ("weight", "bias")]
    tensors = {
        name: tensor.detach().numpy()
        for pair, layer in zip(names, layers, strict=True)
        for name, tensor in zip(pair, layer, strict=True)
    }
    return Classifier(recipe.kind, tensors), epochs


def weights_of(recipe: Recipe, labels: np.ndarray, trust: np.ndarray) -> np.ndarray:
    """How much each answer counts, (n,) float32, 1 in the mean; where classes are balanced, each of them alike."""
    weights = trust
    if recipe.balanced:
        weights = trust / np.bincount(labels, trust)[labels]
    return (weights / weights.mean()).astype(np.float32)
