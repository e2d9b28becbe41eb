"""Fitting a classifier head on unit embeddings: cross-validation, choice of the recipe, calibration.

Everything runs on one thread with fixed seeds, so that the same dataset gives the same bytes. Each answer's
out-of-fold logits come from a head that has not seen it, nor a near-identical picture: on them the recipe is chosen,
the temperature is fitted, and the gate decides.
"""

import contextlib
import itertools
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

from closedloop.models.heads import Head, softmax

FOLDS = 5
SEED = 20260101
TEMPERATURES = (0.05, 20.0)
LEAST_TO_CALIBRATE = 50  # answers


@dataclass(frozen=True)
class Recipe:
    """How a head is made: `l2` penalises the squared weights, per answer; `hidden` is the width of an MLP."""

    kind: str
    l2: float
    hidden: int | None = None
    epochs: int = 100  # L-BFGS steps of a linear head, passes over the answers of an MLP

    def as_json(self) -> dict[str, Any]:
        """For the card."""
        return asdict(self)


RECIPES = (
    Recipe("linear", l2=1 / 3),
    Recipe("linear", l2=1 / 10),
    Recipe("linear", l2=1 / 30),
    Recipe("mlp", l2=1 / 30, hidden=128, epochs=12),
)


@dataclass(frozen=True)
class Fitted:
    """A head fitted on all answers, with what its cross-validation showed."""

    head: Head
    recipe: Recipe
    out_of_fold: np.ndarray  # (n, classes) calibrated probabilities, each by a head that did not see the answer
    log_loss: dict[str, float]  # of each recipe, out of fold, calibrated
    temperature: float


def fit(
    vectors: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    classes: int,
    fair: np.ndarray | None = None,
    seed: int = SEED,
) -> Fitted:
    """Fit the best recipe. `vectors` (n, d) float32 of unit length, `labels` (n,) class numbers, `groups` (n,).

    Pictures of one group never stand on both sides of a split. An answer's out-of-fold probabilities come from the
    recipe that is best on the other folds, so choosing does not flatter them (cf. Tibshirani and Tibshirani 2009);
    the temperature (Guo et al. 2017) is fitted on out-of-fold logits, for them likewise without the own fold, and
    on the answers marked in `fair` (n,) bool alone where these are 50 or more: confidence is meant for what visitors
    send, not for what was hard.
    Raises ValueError where there are fewer than two groups or classes.
    """
    if len(np.unique(labels)) < 2 or len(np.unique(groups)) < 2:
        raise ValueError("fitting needs two classes and two pictures that differ")
    fair = np.ones(len(labels), dtype=bool) if fair is None or fair.sum() < LEAST_TO_CALIBRATE else fair
    with one_thread():
        folds = split(labels, groups, seed)
        by_recipe = {recipe: cross_fit(recipe, vectors, labels, folds, classes, seed) for recipe in RECIPES}
        # Each recipe is compared as it would be used, that is calibrated.
        losses = {r: losses_of(logits / fit_temperature(logits, labels), labels) for r, logits in by_recipe.items()}
        best = min(RECIPES, key=lambda recipe: losses[recipe].mean())
        honest = np.empty((len(labels), classes))
        for fold in np.unique(folds):
            own, others = folds == fold, folds != fold
            chosen = min(RECIPES, key=lambda recipe: losses[recipe][others].mean())
            scale = fit_temperature(by_recipe[chosen][others & fair], labels[others & fair])
            honest[own] = softmax(by_recipe[chosen][own] / scale)
        temperature = fit_temperature(by_recipe[best][fair], labels[fair])
        head = fit_one(best, vectors, labels, classes, seed)
    loss_by_name = {f"{r.kind} l2={r.l2:.3g}": float(losses[r].mean()) for r in RECIPES}
    return Fitted(Head(head.kind, head.tensors, temperature), best, honest, loss_by_name, temperature)


def split(labels: np.ndarray, groups: np.ndarray, seed: int = SEED) -> np.ndarray:
    """The fold of each answer, (n,), classes spread evenly, a group always whole within one fold."""
    count = min(FOLDS, len(np.unique(groups)))
    folds = np.zeros(len(labels), dtype=np.int64)
    splitter = StratifiedGroupKFold(n_splits=count, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes with fewer answers than folds are welcome
        try:
            parts = list(splitter.split(labels, labels, groups))
        except ValueError:  # no class has as many answers as there are folds
            parts = list(GroupKFold(n_splits=count, shuffle=True, random_state=seed).split(labels, labels, groups))
    for number, (_, held_out) in enumerate(parts):
        folds[held_out] = number
    return folds


def cross_fit(
    recipe: Recipe, vectors: np.ndarray, labels: np.ndarray, folds: np.ndarray, classes: int, seed: int = SEED
) -> np.ndarray:
    """Uncalibrated logits (n, classes) of each answer by a head fitted without its fold."""
    logits = np.empty((len(labels), classes), dtype=np.float64)
    for fold in np.unique(folds):
        own = folds == fold
        logits[own] = fit_one(recipe, vectors[~own], labels[~own], classes, seed).logits(vectors[own])
    return logits


def fit_one(recipe: Recipe, vectors: np.ndarray, labels: np.ndarray, classes: int, seed: int = SEED) -> Head:
    """Fit one head: cross-entropy plus l2 / (2 n) times the squared weights. Deterministic on one thread."""
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.from_numpy(np.ascontiguousarray(vectors)), torch.from_numpy(np.ascontiguousarray(labels))
    widths = [x.shape[1], recipe.hidden, classes] if recipe.hidden else [x.shape[1], classes]
    layers = []
    for wide, narrow in itertools.pairwise(widths):
        weight = torch.zeros(narrow, wide)
        if recipe.hidden:
            weight.normal_(0, (2 / wide) ** 0.5, generator=generator)
        layers.append((weight.requires_grad_(), torch.zeros(narrow, requires_grad=True)))

    def loss(batch: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        for number, (weight, bias) in enumerate(layers):
            batch = torch.nn.functional.linear(torch.relu(batch) if number else batch, weight, bias)
        penalty = sum((weight.square().sum() for weight, _ in layers), torch.zeros(()))
        return torch.nn.functional.cross_entropy(batch, truth) + recipe.l2 / (2 * len(x)) * penalty

    parameters = [tensor for layer in layers for tensor in layer]
    if recipe.kind == "linear":  # convex: Newton-like steps to the one optimum
        optimiser = torch.optim.LBFGS(parameters, max_iter=recipe.epochs, line_search_fn="strong_wolfe")

        def step() -> torch.Tensor:
            optimiser.zero_grad()
            value = loss(x, y)
            value.backward()
            return value

        optimiser.step(step)
    else:
        adam = torch.optim.Adam(parameters, lr=3e-3, fused=True)
        for _ in range(recipe.epochs):
            for rows in torch.randperm(len(x), generator=generator).split(32):
                adam.zero_grad()
                loss(x[rows], y[rows]).backward()
                adam.step()
    names = [("weight", "bias")] if not recipe.hidden else [("hidden.weight", "hidden.bias"), ("weight", "bias")]
    tensors = {
        name: tensor.detach().numpy()
        for pair, layer in zip(names, layers, strict=True)
        for name, tensor in zip(pair, layer, strict=True)
    }
    return Head(recipe.kind, tensors)


def losses_of(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The log loss of each answer, (n,), in nats."""
    return -np.log(np.clip(softmax(logits)[np.arange(len(labels)), labels], 1e-12, None))


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature that makes the probabilities of these held-out logits fit best (least log loss).

    The targets are smoothed as Platt (1999) does, by 1 / (n + 2), since ten right answers do not mean certainty. The
    loss has one minimum along the scale; it is found by golden-section search on its logarithm.
    """
    smoothing = 1 / (len(labels) + 2)

    low, high = np.log(TEMPERATURES)
    ratio = (np.sqrt(5) - 1) / 2

    def loss(at: float) -> float:
        chances = np.clip(softmax(logits / np.exp(at)), 1e-12, None)
        own = np.log(chances[np.arange(len(labels)), labels])
        others = (np.log(chances).sum(axis=1) - own) / (logits.shape[1] - 1)
        return -float(((1 - smoothing) * own + smoothing * others).mean())

    while high - low > 1e-4:
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if loss(left) < loss(right):
            high = right
        else:
            low = left
    return float(np.exp((low + high) / 2))


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 10) -> float:
    """Mean distance between confidence and accuracy over equal-width bins (Guo et al. 2017), 0-1."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    parts = [
        abs(right[which == b].mean() - confidence[which == b].mean()) * (which == b).mean() for b in np.unique(which)
    ]
    return float(sum(parts))


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Small heads fit fastest on one thread, and only then to the same bit each time."""
    former = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(former)
