"""How often does the gate let through what it should not? `make bench-gate` writes the tables of docs/gate.md.

A live release, and a candidate after every 20 new answers, which the gate judges on all of them so far: as it goes on
in a project whose candidates do not get better. 1,000 seeded trials each of candidates that are worse, equal and better
by five points; a trial counts when any of its 20 looks passes. Each candidate says what the one before said, or, in the
last column, something new about half of the answers. The second table is for answers graded in 0-1.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from closedloop import gate, graded_gate
from closedloop.bayesian_bootstrap import Mean
from closedloop.project import Gate

SEED, TRIALS, LOOKS, EACH = 5, 1000, 20, 20
DISCORDANT = 0.2  # share of the answers about which exactly one of the two is right
RULES = {
    "better, 0.9": Gate(),
    "better, 0.95": Gate(probability_better=0.95),
    "not worse by 0.02": Gate(policy="not_worse"),
    "not worse by 0.05": Gate(policy="not_worse", margin=0.05),
}
DIFFERENCES = (-0.05, 0.0, 0.05)
CHANGED = 0.5  # of the answers known before, those about which the next candidate says something new
HEADS = [f"truly {difference:+.0%}" if difference else "truly equal" for difference in DIFFERENCES]
HEADS.append("truly equal, and changing")


@dataclass(frozen=True)
class Graded:
    """How two sides' graded answers differ, with chances that say so in the mean too."""

    name: str
    values: np.ndarray  # differences that can come up
    shares: np.ndarray  # how often, where both sides are as good

    def worth(self, difference: float) -> np.ndarray:
        """How often, where the candidate is better by `difference` in the mean: more gains for as many losses less."""
        gains, losses = (np.where(self.values * side > 0, self.shares, 0.0) for side in (1, -1))
        moved = gains / gains.sum() - losses / losses.sum()
        return self.shares + moved * difference / (self.values @ moved)


def _crops() -> Graded:
    """Nine crops of ten a little better or worse, rather better; one of ten much, rather worse: 0.14 in deviation."""
    values = np.arange(-100, 101) / 100
    little = np.abs(values - 0.02) < 0.105
    much = np.abs(values + 0.18) < 0.605
    return Graded("crops", values, 0.9 * little / little.sum() + 0.1 * much / much.sum())


def _sets() -> Graded:
    """Sets of four: the chosen picture beats one more or one less of three in a fifth, two in 8 %, three in 4 %."""
    return Graded("sets of 4", np.arange(-3, 4) / 3, np.array([0.02, 0.04, 0.1, 0.68, 0.1, 0.04, 0.02]))


def main() -> None:
    """Print the tables, or write them into the document between their marks."""
    arguments = argparse.ArgumentParser(prog="make bench-gate", description=__doc__)
    arguments.add_argument("--into", type=Path)
    chosen = arguments.parse_args()
    for mark, rows in (("table", lines()), ("graded table", graded_lines())):
        table = "\n".join(rows)
        print(table, end="\n\n")
        if chosen.into:
            before, rest = chosen.into.read_text(encoding="utf-8").split(f"<!-- {mark} -->", 1)
            after = rest.split("<!-- end -->", 1)[1]
            text = f"{before}<!-- {mark} -->\n{table}\n<!-- end -->{after}"
            chosen.into.write_text(text, encoding="utf-8")


def lines() -> list[str]:
    """The table of right and wrong answers in Markdown."""
    rows = [f"| rule | {' | '.join(HEADS)} |", "| --- |" + " --- |" * len(HEADS)]
    for name, rule in RULES.items():
        for corrected in (True, False):
            shares = [passed_ever(rule, difference, corrected) for difference in DIFFERENCES]
            shares.append(passed_ever(rule, 0.0, corrected, CHANGED))
            rows.append(_row(name, corrected, shares))
    return rows


def passed_ever(rule: Gate, difference: float, corrected: bool, changed: float = 0.0) -> float:
    """The share of trials in which one of the looks passed."""
    chance = np.random.default_rng(SEED)
    wins, losses = (DISCORDANT + difference) / 2, (DISCORDANT - difference) / 2
    shares = np.array(
        [wins, losses, 1 - wins - losses]
    )  # only the candidate right, only the live release, both or neither
    passed = 0
    for _ in range(TRIALS):
        trial = [(int((known == 0).sum()), int((known == 1).sum())) for known in _trial(chance, shares, changed)]
        passed += _passes_once(rule, trial, corrected)
    return passed / TRIALS


def _trial(chance: np.random.Generator, shares: np.ndarray, changed: float) -> Iterator[np.ndarray]:
    """What is known at each look: numbers of what can come up, each with the chance that `shares` says."""
    said = chance.choice(len(shares), size=LOOKS * EACH, p=shares)
    for look in range(1, LOOKS + 1):
        known = said[: look * EACH]
        yield known
        anew = chance.random(len(known)) < changed
        known[anew] = chance.choice(len(shares), size=int(anew.sum()), p=shares)


def _passes_once(rule: Gate, trial: list[tuple[int, int]], corrected: bool) -> bool:
    former: list[gate.Look] = []
    for look, (won, lost) in enumerate(trial, start=1):
        if rule.policy == "better":
            passes = gate.probability_better(won, lost) >= rule.probability_better
            if passes and corrected:  # what the looks before asked for is summed up only where it matters
                for discordant in (sum(counts) for counts in trial[len(former) : look]):
                    wanted = gate.needed(former, discordant, 1 - rule.probability_better)
                    former.append(gate.Look(discordant, wanted))
                passes = won >= former[-1].needed
        else:
            passes = bool(gate.not_worse(rule, look if corrected else 1, EACH * look)(np.array(won), np.array(lost)))
        if passes:
            return True
    return False


def graded_lines() -> list[str]:
    """The table of graded answers in Markdown."""
    rows = [f"| answers | rule | {' | '.join(HEADS)} |", "| --- | --- |" + " --- |" * len(HEADS)]
    for answers in (_crops(), _sets()):
        columns = [graded_passed_ever(answers, difference) for difference in DIFFERENCES]
        columns.append(graded_passed_ever(answers, 0.0, CHANGED))
        for name, corrected in columns[0]:
            shares = [column[name, corrected] for column in columns]
            rows.append(f"| {answers.name} {_row(name, corrected, shares)}")
    return rows


def graded_passed_ever(answers: Graded, difference: float, changed: float = 0.0) -> dict[tuple[str, bool], float]:
    """The share of trials in which one of the looks passed, for each rule, with looks counted and not."""
    chance = np.random.default_rng(SEED)
    shares = answers.worth(difference)
    passed = {(name, corrected): 0 for name in RULES for corrected in (True, False)}
    for _ in range(TRIALS):
        waiting = list(passed)
        for look, known in enumerate(_trial(chance, shares, changed), start=1):
            found = np.bincount(known, minlength=len(shares))
            for rule in _graded_passes(answers.values, found, waiting, look):
                passed[rule] += 1
                waiting.remove(rule)
    return {rule: count / TRIALS for rule, count in passed.items()}


def _graded_passes(
    values: np.ndarray, found: np.ndarray, rules: list[tuple[str, bool]], look: int
) -> list[tuple[str, bool]]:
    """Which of the rules pass at a look: graded_gate.judge's decision, each probability computed once."""
    if found[values != 0].sum() < graded_gate.LEAST:
        return []
    there = found > 0
    worst_and_best = list(graded_gate.WORST_AND_BEST)
    sums, counts = np.append(values[there], worst_and_best), np.append(found[there], np.ones(len(worst_and_best)))
    mean = Mean(sums, np.ones(len(sums)), counts)
    below: dict[float, float] = {}
    passes = []
    for name, corrected in rules:
        rule = RULES[name]
        if rule.policy == "better":
            limit = 0.0
            sure = graded_gate.needed(rule, look) if corrected else rule.probability_better
        else:
            limit, sure = -rule.margin, graded_gate.bound_level(look if corrected else 1)
        if sums @ counts <= limit * counts.sum():
            continue  # of a mean below it, none is that sure
        if limit not in below:
            below[limit] = mean.chance_below(limit)
        if 1 - below[limit] >= sure:
            passes.append((name, corrected))
    return passes


def _row(name: str, corrected: bool, shares: list[float]) -> str:
    label = name if corrected else f"{name}, were looks not counted"
    return f"| {label} | {' | '.join(f'{share:.1%}' for share in shares)} |"


if __name__ == "__main__":
    main()
