"""The gate: whether a candidate is good enough to go live, from answers that neither side has learnt from.

These are the candidate's out-of-fold answers, and the live release on answers of pictures (and of near-identical ones)
that were not in its dataset. A project's manifest says how sure one must be (`gate`). Here are the answers that are
right or wrong; `graded_gate.py` judges those that can be more or less good.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import special

from closedloop.project import Gate

WORSE_BY = 0.05  # the card says how often the rule lets a candidate pass that is truly this much worse
SPENT = 0.5  # of the error, on looks at one candidate; the rest is for candidates that change (see bench/gate.py)
BOUND = 0.05  # "not worse" rests on the bound that the true difference is below with this probability, over all looks
NEGLIGIBLE = 1e-12  # of probability, left out of sums

MEASURE = "accuracy"
SWITCH_RULE = "a candidate must be right at least as often, on answers neither has learnt from"
BETTER_RULE = (
    "a candidate must be better than {other} with a probability of {probability}, and right in {needed} of "
    "the {discordant} answers about which exactly one is right, for look {look}"
)
COMMONEST = "commonest class"
NOT_WORSE_RULE = (
    "the lower bound ({level:.2%}) of a candidate's accuracy minus the live release's must be above -{margin}"
)
METHOD = (
    "Paired comparison on the answers about which exactly one is right (McNemar 1947); probability of being better: "
    "posterior under a uniform prior. Every candidate that is judged against the same live release is one more look at "
    "growing data: after the k-th, k/(k+1) of half the error may be spent (Lan and DeMets 1983), and how much a look "
    "spends is summed exactly over the ways in which the wins can grow (Armitage, McPherson and Rowe 1969). Bound of "
    "the difference: Agresti and Min 2005, its k-th look with 1/(k(k+1)) of the error."
)

Passes = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (won, lost) -> whether that passes, elementwise


@dataclass(frozen=True)
class Look:
    """A former candidate that was judged against the same live release."""

    discordant: int  # answers about which exactly one of the two was right
    needed: int  # of them that the candidate had to be right about


@dataclass(frozen=True)
class Verdict:
    """What the gate decided, with everything that it rests on (for the card); None is what its measure has not."""

    passed: bool
    rule: str
    against: str  # the live release, or a baseline: COMMONEST, or one of those of the head
    first: bool  # there was no live release to compare with
    basis: str  # which answers were compared on
    measure: str  # what is compared, in the mean: MEASURE, or one of `graded_gate`
    candidate: float  # its mean over the answers (0-1), 0 without any
    baseline: float  # the other's
    look: int  # how many candidates, with this one, were judged against the same release
    needed: int | None  # of the answers that only one has right, how many the candidate had to; None: another rule
    answers: int
    right_candidate: int | None  # the counts are of answers that are right or wrong
    right_baseline: int | None
    only_candidate_right: int | None
    only_baseline_right: int | None
    probability_better: float  # posterior; of right and wrong, Beta(1 + only candidate, 1 + only baseline) above 1/2
    probability_needed: float | None  # how high it had to be at this look; None: another rule
    difference: float  # mean of the candidate minus the baseline's (-1 to 1)
    difference_above: float  # its lower bound at this look
    error: float  # probability that the rule passes a candidate that is truly 5 points worse, at this data's size
    method: str  # how it is decided, with its sources
    reason: str

    def as_json(self) -> dict[str, Any]:
        """For the card."""
        return {**asdict(self), "error_means": f"passes although truly {WORSE_BY:.0%} worse"}


def judge_first(
    candidate: Sequence[bool],
    commonest: Sequence[bool],
    gate: Gate,
    former: Sequence[Look] = (),
    basis: str = "all answers",
) -> Verdict:
    """Judge a first release: it must be better than always saying the commonest class, whatever the policy.

    As `judge`; `former` are the candidates that there were before any was good enough.
    """
    return _judge_better(candidate, commonest, COMMONEST, gate, former, basis, first=True)


def judge_switch(candidate: Sequence[bool], former: Sequence[bool], against: str, basis: str) -> Verdict:
    """Judge what a person has decided on, as another encoder: it must be right at least as often."""
    return _judge(candidate, former, against, basis, 1, SWITCH_RULE, lambda won, lost: won >= lost)


def judge(
    candidate: Sequence[bool],
    baseline: Sequence[bool],
    against: str,
    gate: Gate,
    former: Sequence[Look] = (),
    basis: str = "all answers",
) -> Verdict:
    """Compare a candidate with the live release (`against`), right or wrong about the same answers in the same order.

    `former` are the looks before, oldest first: over all of them together, a candidate that is no better passes with a
    probability of 1 - `gate.probability_better` at most. Without any answer to compare on, nothing passes. See METHOD
    for the sources.
    """
    look = len(former) + 1
    if gate.policy == "better":
        return _judge_better(candidate, baseline, against, gate, former, basis)
    level = 1 - BOUND / (look * (look + 1))
    rule = NOT_WORSE_RULE.format(level=level, margin=gate.margin)
    return _judge(candidate, baseline, against, basis, look, rule, not_worse(gate, look, len(candidate)))


def _judge_better(
    candidate: Sequence[bool],
    baseline: Sequence[bool],
    against: str,
    gate: Gate,
    former: Sequence[Look],
    basis: str,
    first: bool = False,
) -> Verdict:
    look, sure = len(former) + 1, gate.probability_better
    discordant = sum(a != b for a, b in zip(candidate, baseline, strict=True))
    wanted = needed(former, discordant, 1 - sure)
    other = "always saying the commonest class of the other folds" if first else "the live release"
    rule = BETTER_RULE.format(other=other, probability=sure, needed=wanted, discordant=discordant, look=look)
    return _judge(candidate, baseline, against, basis, look, rule, better(gate, former), wanted, sure, first)


def better(gate: Gate, former: Sequence[Look]) -> Passes:
    """The rule of the policy "better" at the look after `former`."""
    error = 1 - gate.probability_better
    known: dict[int, int] = {}

    def passes(won: np.ndarray, lost: np.ndarray) -> np.ndarray:
        discordant = np.asarray(won + lost)
        for count in np.unique(discordant):
            if int(count) not in known:
                known[int(count)] = needed(former, int(count), error)
        enough = np.vectorize(known.get, otypes=[int])(discordant)
        return (won >= enough) & (probability_better(won, lost) >= gate.probability_better)

    return passes


def not_worse(gate: Gate, look: int, n: int) -> Passes:
    """The rule of the policy "not worse" at the k-th look, with n answers."""
    level = 1 - BOUND / (look * (look + 1))
    return lambda won, lost: lower_bound(won, lost, n, level) > -gate.margin


def needed(former: Sequence[Look], discordant: int, error: float) -> int:
    """How many of the discordant answers a candidate must be right about, at the look after `former`.

    So many that all looks together pass a candidate that is no better (right in half of them) with a probability of at
    most k/(k+1) of half of `error` after the k-th; more than there are where no number is enough.
    """
    alive, at, gone = np.ones(1), 0, 0.0  # probability of each number of wins without having passed; at how many
    for look in former:
        if at < look.discordant < discordant:
            alive, at = np.convolve(alive, _coins(look.discordant - at)), look.discordant
            gone += alive[look.needed :].sum()
            alive[look.needed :] = 0.0
        else:  # another candidate, with fewer: as if it had nothing in common with this one
            gone += _coins(look.discordant)[look.needed :].sum()
    tail = np.convolve(alive, _coins(discordant - at))[::-1].cumsum()[::-1]
    left = SPENT * error * (len(former) + 1) / (len(former) + 2) - gone
    return int((tail > left).sum())


def _coins(count: int) -> np.ndarray:
    """The probabilities of 0 ... `count` heads."""
    return _binomial(np.arange(count + 1), count, 0.5)


def probability_better(won: Any, lost: Any) -> Any:
    """The posterior probability that one side is right more often, of the answers about which only one is right."""
    return 1 - special.betainc(1 + np.asarray(won), 1 + np.asarray(lost), 0.5)


def lower_bound(won: Any, lost: Any, n: int, level: float) -> Any:
    """The lower bound (one-sided, `level` 0-1) of a difference of paired shares: Wald's with half an answer added to
    each of the four cells (Agresti and Min 2005, Statistics in Medicine 24:729)."""
    won, lost = np.asarray(won, dtype=float), np.asarray(lost, dtype=float)
    size = n + 2
    difference = (won - lost) / size
    variance = ((won + lost + 1) / size - difference**2) / size
    return difference - special.ndtri(level) * np.sqrt(variance)


def _judge(
    candidate: Sequence[bool],
    baseline: Sequence[bool],
    against: str,
    basis: str,
    look: int,
    rule: str,
    passes: Passes,
    wanted: int | None = None,
    sure: float | None = None,
    first: bool = False,
) -> Verdict:
    ours, theirs = np.asarray(candidate, dtype=bool), np.asarray(baseline, dtype=bool)
    n, won, lost = len(ours), int((ours & ~theirs).sum()), int((~ours & theirs).sum())
    passed = n > 0 and bool(passes(np.array(won), np.array(lost)))
    probability = float(probability_better(won, lost))
    other = "always saying the commonest class" if against == COMMONEST else against
    numbers = f"right about {int(ours.sum())} of {n}, {other} about {int(theirs.sum())} ({basis})"
    return Verdict(
        passed=passed,
        rule=rule,
        against=against,
        first=first,
        basis=basis,
        measure=MEASURE,
        candidate=int(ours.sum()) / max(1, n),
        baseline=int(theirs.sum()) / max(1, n),
        look=look,
        needed=wanted,
        answers=n,
        right_candidate=int(ours.sum()),
        right_baseline=int(theirs.sum()),
        only_candidate_right=won,
        only_baseline_right=lost,
        probability_better=probability,
        probability_needed=sure,
        difference=(won - lost) / max(1, n),
        difference_above=float(lower_bound(won, lost, n, 1 - BOUND / (look * (look + 1)))),
        error=pass_probability(passes, n, (won + lost) / max(1, n), -WORSE_BY),
        method=METHOD,
        reason=("better: " if won > lost else "not worse: ") + numbers if passed else f"refused: {numbers}",
    )


def pass_probability(passes: Passes, n: int, discordant: float, difference: float) -> float:
    """The probability that a rule passes, exactly: n answers, the share `discordant` of them right for one side only,
    and a true difference in accuracy (candidate minus baseline, -1 to 1).

    The number of discordant answers is Binomial(n, discordant), those won of them Binomial(., (d + difference) / 2d).
    """
    if n == 0:
        return 0.0
    share = min(1.0, max(discordant, abs(difference)))
    if share == 0:
        return float(passes(np.array(0), np.array(0)))
    wins = (share + difference) / (2 * share)
    counts = np.arange(n + 1)
    mass = _binomial(counts, n, share)
    total = 0.0
    for count in counts[mass > NEGLIGIBLE]:
        won = np.arange(count + 1)
        total += float(mass[count]) * float(_binomial(won, int(count), wins)[passes(won, count - won)].sum())
    return total


def _binomial(k: np.ndarray, n: int, p: float) -> np.ndarray:
    """The probabilities of k successes in n trials, by logarithms so that no factorial overflows."""
    choose = special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1)
    return np.exp(choose + special.xlogy(k, p) + special.xlog1py(n - k, -p))
