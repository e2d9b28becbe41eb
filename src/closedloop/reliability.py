"""How far each source of labels can be trusted, from what the sources say of the same pictures.

Each source (an annotator, imports, visitors) is right with a probability of its own, and wrong with equal chance for
each other class: the one-coin model of Dawid and Skene (1979, Applied Statistics 28:20), fitted by their EM algorithm.
Sources that were seldom compared are thought to be like the others (a Beta prior of `PRIOR` answers at what all share).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PRIOR = 10.0  # answers
START = 0.9  # of being right, before anything is known
ROUNDS = 50  # of EM; it stops before where nothing changes
SAME = 1e-6
LEAST = 10  # comparisons of a source, before which what only it says is not learnt from


@dataclass(frozen=True)
class Reliability:
    """How often a source is right (0-1), and on how many pictures that others judged too this rests."""

    right: float
    compared: int

    def as_json(self) -> dict[str, Any]:
        """For the card."""
        return {"right": round(self.right, 4), "compared": self.compared}


def measure(votes: Sequence[Mapping[str, str]], classes: int) -> dict[str, Reliability]:
    """The reliability of every source. `votes` are, for each picture, source -> class; `classes` is how many there are.

    Pictures that one source alone judged say nothing about it.
    """
    sources = sorted({source for of in votes for source in of})
    shared = [of for of in votes if len(of) > 1]
    right = dict.fromkeys(sources, START)
    for _ in range(ROUNDS):
        hits = dict.fromkeys(sources, 0.0)
        for of in shared:
            truth = _posterior(of, right, classes)
            for source, said in of.items():
                hits[source] += truth[said]
        counts = {source: sum(source in of for of in shared) for source in sources}
        total = sum(counts.values())
        pooled = (sum(hits.values()) + PRIOR * START) / (total + PRIOR)
        after = {s: (hits[s] + PRIOR * pooled) / (counts[s] + PRIOR) for s in sources}
        moved = max((abs(after[s] - right[s]) for s in sources), default=0.0)
        right = after
        if moved < SAME:
            break
    return {s: Reliability(right[s], sum(s in of for of in shared)) for s in sources}


def trust(votes: Mapping[str, str], label: str, known: Mapping[str, Reliability], classes: int) -> float:
    """The probability (0-1) that a picture's label is right, from what each source said of it."""
    right = {source: known[source].right for source in votes}
    return _posterior({**votes}, right, classes).get(label, 0.0)


def _posterior(votes: Mapping[str, str], right: Mapping[str, float], classes: int) -> dict[str, float]:
    """The probability of each class that anybody named, each as likely before."""
    named = sorted(set(votes.values()))
    chances = {}
    for label in named:
        chance = 1.0
        for source, said in votes.items():
            chance *= right[source] if said == label else (1 - right[source]) / max(1, classes - 1)
        chances[label] = chance
    nobody = 1.0  # each class that nobody named
    for source in votes:
        nobody *= (1 - right[source]) / max(1, classes - 1)
    total = sum(chances.values()) + nobody * (classes - len(named))
    return {label: chance / total for label, chance in chances.items()} if total else dict.fromkeys(named, 0.0)
