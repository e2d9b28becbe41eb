"""How good a model is, with an interval."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Z_95 = 1.959963984540054


def wilson_interval(right: float, n: float, z: float = Z_95) -> tuple[float, float]:
    """The Wilson score interval of a share `right / n` (Wilson 1927, JASA 22:209), by default at 95 %.

    Returns (low, high) in [0, 1]; (0, 1) where n is 0. `n` may be an effective number, and then is no whole one.
    """
    if n == 0:
        return 0.0, 1.0
    p = right / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # At the ends the interval touches 0 or 1 exactly; rounding must not push it past the share itself.
    return (0.0 if right == 0 else max(0.0, centre - half)), (1.0 if right == n else min(1.0, centre + half))


@dataclass(frozen=True)
class Group:
    """Pictures whose right answer is known: why they were asked about, and with which probability (0-1]."""

    stratum: str
    probability: float
    answers: int
    right: int  # about how many of them the model was right


@dataclass(frozen=True)
class Estimate:
    """A share (0-1) of all `pictures` with its 95 % interval, and the number of answers that it rests on."""

    share: float
    low: float
    high: float
    answers: int
    pictures: int


def weighted_share(pictures: Mapping[str, int], groups: Iterable[Group]) -> Estimate | None:
    """How often the model is right on pictures like these, from answers that were not asked for evenly.

    Every picture is in one stratum (flagged, unsure, the rest), and `pictures` counts them. Within a stratum an answer
    weighs one over the probability with which its picture was asked about (Hajek 1971); across strata their counts
    weigh: double sampling for stratification (Neyman 1938, JASA 33:101; Cochran 1977, Sampling Techniques, ch. 12).
    The interval is Wilson's on the effective number of answers (Kish 1965; Korn & Graubard 1998, Survey Methodology
    24:193); for the variance, half an answer of each kind is added to a stratum: three right of three is no certainty.

    With one stratum and one probability this is the Wilson interval. None while a stratum with pictures has no answer.
    Raises KeyError for answers in a stratum that has no pictures.
    """
    of_stratum: dict[str, list[Group]] = {name: [] for name, count in pictures.items() if count}
    for group in groups:
        if group.answers:
            of_stratum[group.stratum].append(group)
    if not of_stratum or not all(of_stratum.values()):
        return None
    total = sum(pictures.values())
    share = variance = 0.0
    parts: list[tuple[float, float]] = []  # of each stratum its part of the pictures, and its smoothed share
    for stratum, known in of_stratum.items():
        weight = sum(g.answers / g.probability for g in known)
        right = sum(g.right / g.probability for g in known) / weight
        effective = weight**2 / sum(g.answers / g.probability**2 for g in known)
        smoothed = (right * effective + 0.5) / (effective + 1)
        part = pictures[stratum] / total
        share += part * right
        variance += part**2 * smoothed * (1 - smoothed) / effective
        parts.append((part, smoothed))
    middle = sum(part * smoothed for part, smoothed in parts)
    variance += sum(part * (smoothed - middle) ** 2 for part, smoothed in parts) / total
    effective = middle * (1 - middle) / variance
    low, high = wilson_interval(share * effective, effective)
    return Estimate(share, low, high, sum(g.answers for known in of_stratum.values() for g in known), total)
