"""The gate for answers that are more or less good: a proposed crop's overlap, a chosen picture's place in its set.

Each answer is a number of 0-1 for both sides, on the same answers, that neither side has learnt from. What is judged is
the mean of their differences, by the Bayesian bootstrap; where all answers are 0 or 1 it says what `gate.py` says.
"""

from collections.abc import Mapping

import numpy as np
from scipy import special

from closedloop.bayesian_bootstrap import Mean
from closedloop.gate import BOUND, SPENT, WORSE_BY, Verdict
from closedloop.project import Gate

OVERLAP = "mean overlap (IoU)"
BEATEN = "share of the others that the chosen picture beats"

WORST_AND_BEST = (-1.0, 1.0)  # the prior: a difference as bad and one as good as can be, one answer each
LEAST = 6  # differing answers: where both are as good, all of six are on one side once in 64 times, of five once in 32
SAME = 1e-9  # closer answers do not differ

SWITCH_RULE = "a candidate must be as good in the mean, on answers neither has learnt from"
BETTER_RULE = (
    "a candidate must be better in the mean than {other} with a probability of {needed:.3%} for look {look} "
    "({probability} for all looks together), and at least {least} answers must differ"
)
NOT_WORSE_RULE = (
    "the lower bound ({level:.3%}) of a candidate's mean minus the live release's must be above -{margin}, "
    "from at least {least} answers"
)
METHOD = (
    "Paired comparison of the means by the Bayesian bootstrap (Rubin 1981), near-identical pictures drawn together, "
    "its probability by integration (Rice 1980). It is too sure of few answers, so one difference as bad and one as "
    "good as can be (-1 and 1) are added to those found (Muliere and Secchi 1996), each worth as many answers as "
    "are drawn together on average (Kish 1965); with the bad one alone it is the bound of Gaffke 2005 and of "
    "Learned-Miller and Thomas 2019. Of right and wrong answers, this is the posterior under a uniform prior, and "
    "one minus the mid-p value of McNemar's test (Fagerland, Lydersen and Laake 2013). Every candidate that is "
    "judged against the same live release is one more look at growing data: the k-th may spend 1/(k(k+1)) of half "
    "the error (Bonferroni), the k-th bound 1/(k(k+1)) of its own. Chance of passing one that is 5 points worse: "
    "normal approximation, with the spread that was found."
)


def judge_first(
    candidate: np.ndarray,
    baselines: Mapping[str, np.ndarray],
    gate: Gate,
    looks: int,
    measure: str,
    basis: str,
    groups: np.ndarray | None = None,
) -> Verdict:
    """Judge a first release: it must be better in the mean than every baseline, by name, whatever the policy.

    `candidate` and each of `baselines` (n,) in 0-1; `groups` (n,) says which answers are of near-identical pictures;
    `looks` is how many candidates there were before any was good enough. The verdict's numbers are against the best
    baseline. Raises ValueError for answers that do not fit together.
    """
    if any(np.shape(said) != np.shape(candidate) for said in baselines.values()):
        raise ValueError("every baseline gives one number for each answer")
    best = max(baselines, key=lambda name: float(np.sum(baselines[name])))
    others = ", ".join(f"{name} {_mean(said):.3f}" for name, said in baselines.items())
    pair = _Pair(candidate, baselines[best], groups, looks + 1)
    return pair.judged_better(gate, best, "every baseline", basis, measure, others)


def judge_switch(
    candidate: np.ndarray,
    former: np.ndarray,
    against: str,
    measure: str,
    basis: str,
    groups: np.ndarray | None = None,
) -> Verdict:
    """Judge what a person has decided on, as another encoder: it must be as good in the mean, or better.

    As `judge_first`, with the answers of the `former` one.
    """
    pair = _Pair(candidate, former, groups)
    passed = pair.answers > 0 and pair.difference >= -SAME
    return pair.verdict(passed, SWITCH_RULE, against, basis, measure, None, pair.passes_by_mean())


def judge(
    candidate: np.ndarray,
    baseline: np.ndarray,
    against: str,
    gate: Gate,
    looks: int,
    measure: str,
    basis: str,
    groups: np.ndarray | None = None,
) -> Verdict:
    """Compare a candidate with the live release (`against`) on the same answers, both (n,) in 0-1.

    `looks` is how many candidates were judged against that release before this one: over all of them together, one that
    is no better passes with a probability of 1 - `gate.probability_better` at most. See METHOD for the sources.
    """
    look = looks + 1
    pair = _Pair(candidate, baseline, groups, look)
    if gate.policy == "better":
        return pair.judged_better(gate, against, "the live release", basis, measure)
    level = bound_level(look)
    rule = NOT_WORSE_RULE.format(level=level, margin=gate.margin, least=LEAST)
    passed = pair.answers >= LEAST and pair.above > -gate.margin
    return pair.verdict(passed, rule, against, basis, measure, None, pair.passes_worse(-gate.margin, level))


def needed(gate: Gate, look: int) -> float:
    """How probable it must be at the k-th look that a candidate is better."""
    return 1 - SPENT * (1 - gate.probability_better) / (look * (look + 1))


def bound_level(look: int) -> float:
    """What the lower bound of the k-th look is a bound to: over all looks together, the 95 % of `BOUND`."""
    return 1 - BOUND / (look * (look + 1))


class _Pair:
    """Both sides' answers, and what they say about the mean of the differences."""

    def __init__(self, candidate: np.ndarray, baseline: np.ndarray, groups: np.ndarray | None, look: int = 1) -> None:
        ours, theirs = np.asarray(candidate, dtype=float), np.asarray(baseline, dtype=float)
        if ours.ndim != 1 or ours.shape != theirs.shape or (groups is not None and len(groups) != len(ours)):
            raise ValueError("both sides give one number for each answer, and each answer has its group")
        for side in (ours, theirs):
            if not ((side >= 0) & (side <= 1)).all():  # nor is NaN
                raise ValueError("answers are graded from 0 to 1")
        self.answers = len(ours)
        self.candidate, self.baseline = _mean(ours), _mean(theirs)
        apart = ours - theirs
        self.difference = _mean(apart)
        self.look = look
        mean = Mean.of(apart, groups, WORST_AND_BEST)
        self.probability_better = 1 - mean.chance_below(0.0)
        self.above = mean.lower_bound(bound_level(look))
        found = Mean.of(apart, groups)
        self.differing = int(found.counts[np.abs(found.sums) > SAME].sum())  # groups count once
        self.deviations = float(found.counts @ (found.sums - self.difference * found.sizes) ** 2)  # squared, summed
        self.drawn = float(found.counts.sum())
        self.together = float(found.counts @ found.sizes**2) / max(1, self.answers)  # answers to a prior one

    def passes_worse(self, limit: float, probability: float) -> float:
        """The probability that a candidate passes that is truly 5 points worse: normal approximation.

        It passes where the mean, with the prior's two answers, is above `limit` (-1 to 1) with a `probability`.
        """
        if self.answers < LEAST:
            return 0.0
        size = self.answers + len(WORST_AND_BEST) * self.together
        posterior = np.sqrt(self.deviations + sum((one * self.together) ** 2 for one in WORST_AND_BEST)) / size
        least = (limit + special.ndtri(probability) * posterior) * size / self.answers
        return self._above(least)

    def passes_by_mean(self) -> float:
        """The same for a rule that asks for a mean that is as good."""
        return self._above(0.0)

    def _above(self, least: float) -> float:
        """The probability that the mean difference found is above `least`, where the true one is `WORSE_BY` below 0."""
        if self.drawn < 2:
            return 0.0
        error = np.sqrt(self.deviations * self.drawn / (self.drawn - 1)) / self.answers
        if error == 0:
            return float(least < -WORSE_BY)
        return float(special.ndtr((-WORSE_BY - least) / error))

    def judged_better(
        self, gate: Gate, against: str, other: str, basis: str, measure: str, baselines: str = ""
    ) -> Verdict:
        """By the rule of the policy "better"; `baselines` names all of them, with their means, for a first release."""
        sure = needed(gate, self.look)
        rule = BETTER_RULE.format(
            other=other, needed=sure, look=self.look, probability=gate.probability_better, least=LEAST
        )
        passed = self.differing >= LEAST and self.probability_better >= sure
        return self.verdict(passed, rule, against, basis, measure, sure, self.passes_worse(0.0, sure), baselines)

    def verdict(
        self,
        passed: bool,
        rule: str,
        against: str,
        basis: str,
        measure: str,
        sure: float | None,
        error: float,
        others: str = "",
    ) -> Verdict:
        """All of it, for the card. `others` names every baseline with its mean, where there is more than one side."""
        numbers = f"{measure} {self.candidate:.3f}, {others or f'{against} {self.baseline:.3f}'}"
        numbers += f", on {self.answers} answers ({basis})"
        if not passed and sure is not None and self.differing < LEAST:
            numbers += f"; only {self.differing} differ, {LEAST} must"
        return Verdict(
            passed=passed,
            rule=rule,
            against=against,
            first=bool(others),
            basis=basis,
            measure=measure,
            candidate=self.candidate,
            baseline=self.baseline,
            look=self.look,
            needed=None,
            answers=self.answers,
            right_candidate=None,
            right_baseline=None,
            only_candidate_right=None,
            only_baseline_right=None,
            probability_better=self.probability_better,
            probability_needed=sure,
            difference=self.difference,
            difference_above=self.above,
            error=error,
            method=METHOD,
            reason=(("better: " if self.difference > SAME else "not worse: ") if passed else "refused: ") + numbers,
        )


def _mean(values: np.ndarray) -> float:
    return float(np.sum(values)) / max(1, len(values))
