"""A confidence of 70 % must be right 70 times in a hundred: the temperature, and how far off one still is."""

import numpy as np

from closedloop.models.heads import softmax

TEMPERATURES = (0.05, 20.0)
LEAST_TO_CALIBRATE = 50  # answers


def losses_of(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The log loss of each answer, (n,), in nats; `logits` (n, k), -inf where a row has fewer choices."""
    return -np.log(np.clip(softmax(logits)[np.arange(len(labels)), labels], 1e-12, None))


def enough(fair: np.ndarray | None, count: int) -> np.ndarray:
    """The answers on which to calibrate, (n,) bool: the `fair` ones where these are 50 or more, else all."""
    return np.ones(count, dtype=bool) if fair is None or fair.sum() < LEAST_TO_CALIBRATE else fair


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature (Guo et al. 2017) with which the probabilities of held-out logits fit best (least log loss).

    `logits` (n, k), -inf where a row has fewer choices. The targets are smoothed as Platt (1999) does, by 1 / (n + 2),
    since ten right answers do not mean certainty. The loss has one minimum along the scale; it is found by
    golden-section search on its logarithm.
    """
    smoothing = 1 / (len(labels) + 2)
    open_to = np.isfinite(logits)
    among = np.maximum(open_to.sum(axis=1) - 1, 1)
    low, high = np.log(TEMPERATURES)
    ratio = (np.sqrt(5) - 1) / 2

    def loss(at: float) -> float:
        chances = np.log(np.clip(softmax(logits / np.exp(at)), 1e-12, None))
        own = chances[np.arange(len(labels)), labels]
        others = (np.where(open_to, chances, 0.0).sum(axis=1) - own) / among
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
