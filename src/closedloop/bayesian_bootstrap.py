"""What is known of a mean from few or many answers: the Bayesian bootstrap, computed and not drawn.

The Bayesian bootstrap (Rubin 1981, Annals of Statistics 9:130) gives each answer an exponential weight, so the mean is
below c with the probability that a sum of exponential variables, each times c - value, is above 0. That probability is
an integral, so nothing is drawn at random and no tail is too thin to be seen.
"""

import itertools
from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy import optimize, special

DECIMALS = 9  # of the answers: what is closer than this is the same answer
STEP, NODES = 0.15, 20  # of the trapezoidal rule, and how many at once
FARTHEST_OUT = 64  # widths, to which the path bends: less and it oscillates, more and it nears poles of tiny values
NOTHING = 1e-12  # of the integral, where it ends
FARTHEST = 37.0  # standard deviations: a double knows no thinner tail


@dataclass(frozen=True)
class Mean:
    """What the answers say about their mean: a sum and a size for each thing that is drawn as a whole."""

    sums: np.ndarray  # (g,) of the answers of a group
    sizes: np.ndarray  # (g,) how many these are
    counts: np.ndarray  # (g,) how many groups are just like this one

    @classmethod
    def of(cls, values: np.ndarray, groups: np.ndarray | None = None, prior: tuple[float, ...] = ()) -> Self:
        """Of `values` (n,), of which those of one group (n,) are drawn together, and one answer more for each `prior`.

        The `prior` answers are a Dirichlet process's base measure (Muliere and Secchi 1996, Annals of the Institute of
        Statistical Mathematics 48:663): without them a value that has not come up yet is thought impossible. Each
        counts as many answers as those found have in their groups on average, by Kish's effective size (1965).
        """
        if groups is None:
            groups = np.arange(len(values))
        _, of, sizes = np.unique(groups, return_inverse=True, return_counts=True)
        sums = np.round(np.bincount(of, np.asarray(values, dtype=float), len(sizes)), DECIMALS)
        together = float(sizes @ sizes) / len(values) if len(values) else 1.0
        whole = np.column_stack([[*sums, *(one * together for one in prior)], [*sizes, *(together for _ in prior)]])
        whole, counts = np.unique(whole, axis=0, return_counts=True)
        return cls(whole[:, 0], whole[:, 1], counts.astype(float))

    def chance_below(self, limit: float) -> float:
        """The probability that the mean is below `limit`; half where there is nothing that says anything."""
        return _chance_positive(limit * self.sizes - self.sums, self.counts)

    def lower_bound(self, level: float) -> float:
        """What the mean is above with the probability `level` (0-1), to a millionth."""
        means = self.sums / self.sizes
        low, high = float(means.min()), float(means.max())
        if high == low:
            return low

        def beyond(limit: float) -> float:  # nearly a line, where the probability is a step
            spread = special.ndtri(self.chance_below(limit)) - special.ndtri(1 - level)
            return float(np.clip(spread, -FARTHEST, FARTHEST))

        size = float(self.counts @ self.sizes)
        middle = float(self.counts @ self.sums) / size
        deviation = float(np.sqrt(self.counts @ (self.sums - middle * self.sizes) ** 2)) / size
        for by in (-1, 1):  # where it is, were the mean's distribution normal
            place = middle + (special.ndtri(1 - level) + by) * deviation
            if low < place < high:
                low, high = (place, high) if beyond(place) <= 0 else (low, place)
        return float(optimize.brentq(beyond, low, high, xtol=1e-6))  # type: ignore[arg-type]


def _chance_positive(values: np.ndarray, counts: np.ndarray) -> float:
    """The probability that the sum of value x Exp(1) is above 0, each of `values` (m,) `counts` (m,) times.

    The thinner tail is integrated, to five digits of itself at least, along a path through the integrand's saddle point
    on which it hardly oscillates (Rice 1980, SIAM Journal on Scientific and Statistical Computing 1:438).
    """
    values, counts = values[values != 0], counts[values != 0]
    if not len(values):
        return 0.5
    if values.min() > 0 or values.max() < 0:
        return float(values.min() > 0)
    if counts @ values > 0:
        return 1 - _tail(-values, counts)
    return _tail(values, counts)


def _tail(values: np.ndarray, counts: np.ndarray) -> float:
    """The same, where the sum's mean is 0 or less."""
    values = values / values.max()

    def slope(s: float) -> float:  # of log(integrand) = - sum of log(1 - value s) - log s
        return float(counts @ (values / (1 - values * s))) - 1 / s

    s = float(optimize.brentq(slope, 1e-12, 1 - 1e-12, rtol=1e-3))  # type: ignore[arg-type]  # anywhere near will do
    ratios = values / (1 - values * s)
    width = 1 / np.sqrt(counts @ ratios**2 + 1 / s**2)
    bend = float(2 * width**3 * (counts @ ratios**3 - 1 / s**3) / 3)  # 2/3 at most
    total = 0.5  # the first node is the edge of a trapezoid
    for first in itertools.count(1, NODES):
        at = STEP * np.arange(first, first + NODES)  # so steps grow: of few answers, the integrand ends as a power does
        bow = np.cosh(at) - 1
        path = width * (bend * bow / (1 + bow / FARTHEST_OUT) + 1j * np.sinh(at))
        logs = counts @ np.log1p(np.outer(-ratios, path)) + np.log1p(path / s)
        heights = np.exp(-logs) * (bend * np.sinh(at) / (1 + bow / FARTHEST_OUT) ** 2 + 1j * np.cosh(at))
        total += float(np.imag(heights).sum())
        if abs(heights[-1]) < NOTHING * total:
            break
    return float(np.exp(-(counts @ np.log1p(-values * s)) - np.log(s)) * width * STEP * total / np.pi)
