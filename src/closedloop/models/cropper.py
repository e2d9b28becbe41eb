"""Fitting a crop proposer: the loss is what counts, one minus the overlap (IoU) of the proposal with the person's box.

The heads of all folds and the final one are rows of one matrix and learn side by side, so that the grids, which are the
largest thing here, are read once for all of them. A fold's head learns nothing from the crops of its fold.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.functional import linear

from closedloop.models import calibration, cross_fitting
from closedloop.models.crop_head import EXTRAS, SHARPNESS, SIGNS, Cropper, Lattice, confidence, extras, iou, lattice
from closedloop.models.fitting import SEED, Progress, Schedule, descend, one_thread

STEPS, LEAST_EPOCHS, PATIENCE = 160, 8, 2  # few crops are passed often, many a few times and until it helps no more
BATCHES = (16, 64)  # for few and for many crops
LEAST_TO_WATCH = 400  # crops, an eighth of which can say when to stop
INNER_LINES = 9  # that a step looks at, of many crops: of the 13 of 14 x 14 cells, with a quarter of the boxes
SLICE = 64  # crops looked at once when they are only answered
READ_AT_ONCE = 2**18  # beliefs, 1 MiB: larger arrays leave the processor's cache, which is three times slower
CENTRED = 0.8  # of each side: a baseline
NEWTON_STEPS, RIDGE = 30, 1.0
NEARLY = 1e-3  # overlaps so close to 0 or 1 count as such: no finite confidence reaches these


@dataclass(frozen=True)
class Recipe:
    """How a head is made: `l2` penalises the squared weights, per crop; Adam at `rate`, `batch` crops a step."""

    kind: str = "linear"
    l2: float = 1 / 30
    rate: float = 0.02
    batch: int = BATCHES[0]
    epochs: int = LEAST_EPOCHS  # at most, where it is watched when to stop; then those that the final head learnt
    lines: int | None = None  # inner lines of the grid, drawn anew each step, between which boxes lie; all where None

    def as_json(self) -> dict[str, Any]:
        """For the card."""
        return asdict(self)


@dataclass(frozen=True)
class Fitted:
    """A head fitted on all crops, with what its cross-validation showed."""

    head: Cropper
    recipe: Recipe
    out_of_fold: np.ndarray  # (n, 4) boxes, each by a head that did not see the crop
    confidence: np.ndarray  # (n,) the overlap expected of these, by numbers from the other folds
    losses: dict[str, float]  # one minus the mean overlap, out of fold
    folds: np.ndarray  # (n,)


@dataclass(frozen=True)
class Crops:
    """What there is to learn from."""

    grids: np.ndarray  # (n, side, side, width) float16 or float32
    aspects: np.ndarray  # (n,) width / height
    saliencies: np.ndarray  # (n, side, side)
    boxes: np.ndarray  # (n, 4)


def fit(
    grids: np.ndarray,
    aspects: np.ndarray,
    saliencies: np.ndarray,
    boxes: np.ndarray,
    groups: np.ndarray,
    fair: np.ndarray | None = None,
    seed: int = SEED,
    progress: Progress | None = None,
) -> Fitted:
    """Fit a proposer of crops; the arrays are those of `Crops`, and `groups` (n,).

    Pictures of one group never stand on both sides of a split. From LEAST_TO_WATCH crops on, the folds' heads hold back
    an eighth, in whole groups, to see when to stop; the final head learns from all, for as many epochs as these did in
    the median. The confidence is fitted on out-of-fold proposals, on the crops marked in `fair` (n,) bool alone where
    these are 50 or more. `progress` is told epochs. Raises ValueError where all crops are of one group.
    """
    known = Crops(grids, np.asarray(aspects), np.asarray(saliencies), np.asarray(boxes, dtype=np.float64))
    count, fair = len(boxes), calibration.enough(fair, len(boxes))
    folds = cross_fitting.split(groups, seed=seed)
    of_fold = folds[:, None] == np.unique(folds)
    watched = np.zeros(count, dtype=bool)
    if count >= LEAST_TO_WATCH:
        watched[cross_fitting.hold_back(groups, np.arange(count), seed)[1]] = True
    with one_thread():
        heads = SideBySide(known, of_fold, watched, recipe_for(count), seed)
        recipe = heads.learn(progress)
    proposed, signs = np.empty((count, 4)), np.empty((count, SIGNS))
    for fold, own in enumerate(of_fold.T):
        head = heads.head(fold, np.zeros(1 + SIGNS))
        for rows in np.array_split(np.flatnonzero(own), -(-own.sum() // SLICE)):
            proposed[rows], signs[rows] = head.believe(grids[rows], known.aspects[rows], known.saliencies[rows])
    overlaps = iou(proposed, known.boxes)
    expected = np.empty(count)
    for own in of_fold.T:
        others = ~own & fair if (~own & fair).any() else ~own
        expected[own] = confidence(fit_confidence(signs[others], overlaps[others]), signs[own])
    head = heads.head(-1, fit_confidence(signs[fair], overlaps[fair]))
    return Fitted(head, recipe, proposed, expected, {recipe.kind: float(1 - overlaps.mean())}, folds)


def recipe_for(count: int) -> Recipe:
    """The recipe for so many crops: the same number of steps at least, and the work grows with the crops."""
    batch = int(np.clip(count * LEAST_EPOCHS // STEPS, *BATCHES))
    epochs = max(LEAST_EPOCHS, -(-STEPS // -(-count // batch)))
    return Recipe(batch=batch, epochs=epochs, lines=INNER_LINES if count >= LEAST_TO_WATCH else None)


class Boxes(NamedTuple):
    """A lattice for torch, float32."""

    inside: torch.Tensor  # (m, side)
    edges: torch.Tensor  # (m, 2)
    areas: torch.Tensor  # (m, m)

    @classmethod
    def of(cls, boxes: Lattice) -> "Boxes":
        """The same numbers."""
        return cls(*(torch.from_numpy(of.astype(np.float32)) for of in (boxes.inside, boxes.edges, boxes.areas)))


class SideBySide:
    """Heads that learn side by side: one for each fold, without its crops and the watched ones, and the final one."""

    def __init__(self, known: Crops, of_fold: np.ndarray, watched: np.ndarray, recipe: Recipe, seed: int) -> None:
        """`of_fold` (n, k) bool says which crops are of which fold, `watched` (n,) bool which tell when to stop."""
        self._known, self._recipe = known, recipe
        self._count, self._folds = of_fold.shape
        self._beside = torch.from_numpy(extras(known.aspects, known.saliencies))
        self._boxes = torch.from_numpy(known.boxes.astype(np.float32))
        learns = np.ones((self._count, self._folds + 1), np.float32)
        learns[:, :-1] = ~of_fold & ~watched[:, None]
        self._learns = torch.from_numpy(learns)
        self._watched = torch.from_numpy(np.flatnonzero(watched))
        self._judges = torch.from_numpy((~of_fold).astype(np.float32))
        self._lattice = lattice(known.grids.shape[1])
        self._all = Boxes.of(self._lattice)
        self._generator = torch.Generator().manual_seed(seed)
        width = known.grids.shape[3] + EXTRAS
        share = (_areas(self._boxes) @ self._learns / self._learns.sum(dim=0).clamp_min(1)).clamp(0.05, 0.95)
        # A head is a row: torch takes ten times as long to go back through heads.
        self._weight = torch.zeros(self._folds + 1, width, requires_grad=True)
        self._bias = torch.logit(share).requires_grad_()  # they start knowing how large crops are, and no more

    def learn(self, progress: Progress | None) -> Recipe:
        """Fit all; returns the recipe with the final head's epochs (the folds' median, where they were watched)."""
        recipe, parameters = self._recipe, (self._weight, self._bias)
        schedule = Schedule(recipe.epochs, recipe.batch, recipe.rate)
        if not len(self._watched):
            descend(parameters, self._loss, self._count, schedule, self._generator, progress=progress)
            return recipe
        after: list[tuple[torch.Tensor, torch.Tensor]] = []  # what they were after each epoch: they are small
        misses: list[list[float]] = [[] for _ in range(self._folds)]

        def validate() -> float:
            after.append((self._weight.clone(), self._bias.clone()))
            for curve, miss in zip(misses, self._watched_misses().tolist(), strict=True):
                curve.append(miss)
            return -float(len(after)) if any(best_epoch(curve)[1] for curve in misses) else np.inf

        # They go on together until the last one stops, but each stops by what it sees itself, so that the crops of its
        # own fold have no say in what it becomes.
        schedule = replace(schedule, patience=1)
        descend(parameters, self._loss, self._count, schedule, self._generator, validate, progress)
        stops = [best_epoch(curve)[0] for curve in misses]
        stops.append(int(np.ceil(np.median(stops))))
        with torch.no_grad():
            for row, stop in enumerate(stops):
                self._weight[row], self._bias[row] = after[stop][0][row], after[stop][1][row]
        return replace(recipe, epochs=stops[-1] + 1)

    def head(self, row: int, numbers: np.ndarray) -> Cropper:
        """A fold's head, or the final one (-1), with the numbers of its confidence, (1 + SIGNS,)."""
        weight, bias = self._weight.detach()[row].numpy(), self._bias.detach()[row].numpy().reshape(1)
        return Cropper({"weight": weight.copy(), "bias": bias.copy(), "confidence": numbers.astype(np.float32)})

    def _loss(self, rows: torch.Tensor) -> torch.Tensor:
        learns = self._learns[rows]
        fitting = (self._misses(rows, self._some()) * learns).sum(dim=0) / learns.sum(dim=0).clamp_min(1)
        return (fitting + self._recipe.l2 / (2 * self._count) * self._weight.square().sum(dim=1)).sum()

    def _watched_misses(self) -> torch.Tensor:
        """The mean miss of each fold's head on the watched crops that are not of its fold, (k,)."""
        parts = [self._misses(rows, self._all)[:, :-1] * self._judges[rows] for rows in self._watched.split(SLICE)]
        return torch.cat(parts).sum(dim=0) / self._judges[self._watched].sum(dim=0).clamp_min(1)

    def _some(self) -> Boxes:
        """The boxes that one step looks at."""
        inner = self._lattice.inside.shape[1] - 1
        if self._recipe.lines is None or self._recipe.lines >= inner:
            return self._all
        drawn = 1 + torch.randperm(inner, generator=self._generator)[: self._recipe.lines].numpy()
        return Boxes.of(self._lattice.among(np.concatenate([[0], drawn, [inner + 1]])))

    def _misses(self, rows: torch.Tensor, boxes: Boxes) -> torch.Tensor:
        """One minus the overlap of each head's proposal with the person's box, (b, k + 1)."""
        proposed, truth = self._propose(rows, boxes), self._boxes[rows][:, None]
        sides = torch.minimum(proposed[..., 2:], truth[..., 2:]) - torch.maximum(proposed[..., :2], truth[..., :2])
        common = sides[..., 0].clamp_min(0) * sides[..., 1].clamp_min(0)
        return 1 - common / (_areas(proposed) + _areas(truth) - common)

    def _propose(self, rows: torch.Tensor, boxes: Boxes) -> torch.Tensor:
        """What `crop_head.read_out` does, for all heads and with gradients: boxes (b, k + 1, 4)."""
        cells = torch.from_numpy(self._known.grids[rows.numpy()]).float()
        width = cells.shape[3]
        logits = linear(cells, self._weight[:, :width], self._bias)
        logits = logits + linear(self._beside[rows], self._weight[:, width:])
        chances = torch.sigmoid(logits).permute(0, 3, 1, 2)
        at_once = max(1, READ_AT_ONCE // (chances.shape[1] * boxes.areas.numel()))
        return torch.cat([_read_out(part, boxes) for part in chances.split(at_once)])


def _read_out(chances: torch.Tensor, boxes: Boxes) -> torch.Tensor:
    inside = boxes.inside @ chances @ boxes.inside.T
    overlaps = inside / (boxes.areas + chances.sum(dim=(2, 3))[..., None, None] - inside)
    belief = torch.softmax(SHARPNESS * overlaps.flatten(2), dim=-1).view_as(overlaps)
    across, down = belief.sum(dim=2) @ boxes.edges, belief.sum(dim=3) @ boxes.edges
    return torch.stack([across[..., 0], down[..., 0], across[..., 1], down[..., 1]], dim=-1)


def _areas(boxes: torch.Tensor) -> torch.Tensor:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def best_epoch(misses: Sequence[float]) -> tuple[int, bool]:
    """Which epoch (from 0) early stopping keeps, after these, and whether it would go on."""
    best = 0
    for epoch, miss in enumerate(misses):
        if miss < misses[best]:
            best = epoch
        if epoch - best >= PATIENCE:
            return best, False
    return best, True


def fit_confidence(signs: np.ndarray, overlaps: np.ndarray) -> np.ndarray:
    """The tensor "confidence", (1 + SIGNS,) float64: fractional logistic regression (Papke and Wooldridge 1996).

    `signs` (n, SIGNS) and `overlaps` (n,) of proposals that were made out of fold. The constant is not penalised, so
    that the mean of the confidence is the mean overlap; the slopes are, by as much as one crop says.
    """
    middle, spread = signs.mean(axis=0), np.maximum(signs.std(axis=0), 1e-6)
    design = np.column_stack([np.ones(len(signs)), (signs - middle) / spread])
    truth = overlaps.clip(NEARLY, 1 - NEARLY)
    penalty = RIDGE * np.diag([0.0] + [1.0] * signs.shape[1])
    numbers = np.zeros(design.shape[1])
    numbers[0] = np.log(truth.mean() / (1 - truth.mean()))
    for _ in range(NEWTON_STEPS):
        said = confidence(numbers, design[:, 1:])
        curvature = design.T @ (design * (said * (1 - said))[:, None]) + penalty
        numbers = numbers + np.linalg.solve(curvature, design.T @ (truth - said) - penalty @ numbers)
    slopes = numbers[1:] / spread
    return np.concatenate([[numbers[0] - middle @ slopes], slopes])


def baselines(boxes: np.ndarray, folds: np.ndarray) -> dict[str, np.ndarray]:
    """The overlap (n,) of each person's box, (n, 4), with what needs no model; `folds` (n,)."""
    edge = (1 - CENTRED) / 2
    means = np.empty(boxes.shape)
    for fold in np.unique(folds):
        means[folds == fold] = boxes[folds != fold].mean(axis=0)
    fixed = {"whole picture": [0.0, 0.0, 1.0, 1.0], f"centred {CENTRED} box": [edge, edge, 1 - edge, 1 - edge]}
    found = {name: iou(np.broadcast_to(np.array(box), boxes.shape), boxes) for name, box in fixed.items()}
    return {**found, "mean box of the other folds": iou(means, boxes)}
