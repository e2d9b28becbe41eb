"""The gate: whether a candidate is good enough to go live, from answers that neither side has learnt from.

These are the candidate's out-of-fold answers, and the live release on answers of pictures (and of near-identical ones)
that were not in its dataset.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import special

WORSE_BY = 0.05  # the card says how often the rule lets a candidate pass that is truly this much worse
FIRST_RULE = "a first release must be right more often than always saying the commonest class of the other folds"
NEXT_RULE = "a candidate must be right at least as often as the live release, on answers neither has learnt from"


@dataclass(frozen=True)
class Verdict:
    """What the gate decided, with everything that it rests on (for the card)."""

    passed: bool
    rule: str
    against: str  # the live release, or "commonest class"
    basis: str  # which answers were compared on
    answers: int
    right_candidate: int
    right_baseline: int
    only_candidate_right: int
    only_baseline_right: int
    probability_better: float  # posterior, Beta(1 + only candidate, 1 + only baseline) above 1/2
    error: float  # probability that the rule passes a candidate that is truly 5 points worse, at this data's size
    reason: str

    def as_json(self) -> dict[str, Any]:
        """For the card."""
        return {**asdict(self), "error_means": f"passes although truly {WORSE_BY:.0%} worse"}


def judge(
    candidate: Sequence[bool], baseline: Sequence[bool], against: str | None, basis: str = "all answers"
) -> Verdict:
    """Compare two lists of right and wrong about the same answers, in the same order; `against` None: a first release.

    The paired comparison rests on the answers about which exactly one is right (McNemar 1947). A first release must be
    right strictly more often, a next one at least as often, which is when the posterior probability of being better
    under a uniform prior is at least 1/2. Without any answer to compare on, nothing passes.
    """
    ours, theirs = np.asarray(candidate, dtype=bool), np.asarray(baseline, dtype=bool)
    won, lost = int((ours & ~theirs).sum()), int((~ours & theirs).sum())
    first = against is None
    passed = len(ours) > 0 and (won > lost if first else won >= lost)
    name = against or "commonest class"
    other = against or "always saying the commonest class"
    numbers = f"right about {int(ours.sum())} of {len(ours)}, {other} about {int(theirs.sum())} ({basis})"
    return Verdict(
        passed=passed,
        rule=FIRST_RULE if first else NEXT_RULE,
        against=name,
        basis=basis,
        answers=len(ours),
        right_candidate=int(ours.sum()),
        right_baseline=int(theirs.sum()),
        only_candidate_right=won,
        only_baseline_right=lost,
        probability_better=float(1 - special.betainc(1 + won, 1 + lost, 0.5)),
        error=pass_probability(len(ours), (won + lost) / max(1, len(ours)), -WORSE_BY, strict=first),
        reason=("refused: " if not passed else "better: " if won > lost else "not worse: ") + numbers,
    )


def pass_probability(n: int, discordant: float, difference: float, strict: bool) -> float:
    """The probability that the rule passes, exactly: n answers, the share `discordant` of them right for one side only,
    and a true difference in accuracy (candidate minus baseline, -1 to 1).

    The number of discordant answers is Binomial(n, discordant), those won of them Binomial(., (d + difference) / 2d).
    """
    if n == 0:
        return 0.0
    share = min(1.0, max(discordant, abs(difference)))
    if share == 0:
        return 0.0 if strict else 1.0
    wins = (share + difference) / (2 * share)
    counts = np.arange(n + 1)
    needed = counts // 2 + 1 if strict else (counts + 1) // 2
    return float((_binomial(counts, n, share) * special.bdtrc(needed - 1, counts, wins)).sum())


def _binomial(k: np.ndarray, n: int, p: float) -> np.ndarray:
    """The probabilities of k successes in n trials, by logarithms so that no factorial overflows."""
    choose = special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1)
    return np.exp(choose + special.xlogy(k, p) + special.xlog1py(n - k, -p))
