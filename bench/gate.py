"""How often does the gate let through what it should not? `make bench-gate` writes the table of docs/gate.md.

A live release, and a candidate after every 20 new answers, which the gate judges on all of them so far: as it goes on
in a project whose candidates do not get better. 1,000 seeded trials each of candidates that are worse, equal and better
by five points; a trial counts when any of its 20 looks passes. Each candidate says what the one before said, or, in the
last column, something new about half of the answers.
"""

import argparse
from pathlib import Path

import numpy as np

from closedloop import gate
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


def main() -> None:
    """Print the table, or write it into the document between its marks."""
    arguments = argparse.ArgumentParser(prog="make bench-gate", description=__doc__)
    arguments.add_argument("--into", type=Path)
    chosen = arguments.parse_args()
    table = "\n".join(lines())
    print(table)
    if chosen.into:
        before, rest = chosen.into.read_text(encoding="utf-8").split("<!-- table -->", 1)
        after = rest.split("<!-- end -->", 1)[1]
        chosen.into.write_text(f"{before}<!-- table -->\n{table}\n<!-- end -->{after}", encoding="utf-8")


def lines() -> list[str]:
    """The table in Markdown."""
    heads = [f"truly {difference:+.0%}" if difference else "truly equal" for difference in DIFFERENCES]
    heads.append("truly equal, and changing")
    rows = [f"| rule | {' | '.join(heads)} |", "| --- |" + " --- |" * len(heads)]
    for name, rule in RULES.items():
        for corrected in (True, False):
            shares = [passed_ever(rule, difference, corrected) for difference in DIFFERENCES]
            shares.append(passed_ever(rule, 0.0, corrected, CHANGED))
            label = name if corrected else f"{name}, were looks not counted"
            rows.append(f"| {label} | {' | '.join(f'{share:.1%}' for share in shares)} |")
    return rows


def passed_ever(rule: Gate, difference: float, corrected: bool, changed: float = 0.0) -> float:
    """The share of trials in which one of the looks passed."""
    chance = np.random.default_rng(SEED)
    wins, losses = (DISCORDANT + difference) / 2, (DISCORDANT - difference) / 2
    shares = [wins, losses, 1 - wins - losses]  # only the candidate right, only the live release, both or neither
    passed = 0
    for _ in range(TRIALS):
        said = chance.choice(3, size=LOOKS * EACH, p=shares)
        trial = []
        for look in range(1, LOOKS + 1):
            known = said[: look * EACH]
            trial.append((int((known == 0).sum()), int((known == 1).sum())))
            anew = chance.random(len(known)) < changed
            known[anew] = chance.choice(3, size=int(anew.sum()), p=shares)
        passed += _passes_once(rule, trial, corrected)
    return passed / TRIALS


def _passes_once(rule: Gate, trial: list[tuple[int, int]], corrected: bool) -> bool:
    former: list[gate.Look] = []
    for look, (won, lost) in enumerate(trial, start=1):
        if rule.policy == "better":
            wanted = gate.needed(former, won + lost, 1 - rule.probability_better)
            passes = won >= wanted and gate.probability_better(won, lost) >= rule.probability_better
            if not corrected:
                passes = gate.probability_better(won, lost) >= rule.probability_better
            former.append(gate.Look(won + lost, wanted))
        else:
            passes = bool(gate.not_worse(rule, look if corrected else 1, EACH * look)(np.array(won), np.array(lost)))
        if passes:
            return True
    return False


if __name__ == "__main__":
    main()
