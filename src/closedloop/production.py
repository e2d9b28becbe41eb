"""How good the model is on what visitors send, from what annotators said about some of it.

Two estimates stand side by side. The random sample alone needs no assumption. The weighted one also uses the answers of
the other queues: it knows how many pictures were flagged or unsure, so these count for what they are, and no more.
"""

import datetime as dt
from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from closedloop import labels
from closedloop.estimates import Estimate, Group, weighted_share
from closedloop.project import Project
from closedloop.queues import LOW_CONFIDENCE, RANDOM_SAMPLE, USER_FEEDBACK, USER_LABEL
from closedloop.storage import Stores, production

Key = TypeVar("Key", bound=Hashable)
FLAGGED, UNSURE, REST = "flagged", "unsure", "rest"
# Every picture with the reason enters the queue, so within its stratum each is asked about with probability 1.
STRATA = ((FLAGGED, (USER_FEEDBACK, USER_LABEL)), (UNSURE, (LOW_CONFIDENCE,)))
METHOD = (
    "Random sample: Wilson 1927, weighted by the probability of having been drawn. Weighted: double sampling for "
    "stratification (Cochran 1977, ch. 12) over flagged, unsure and other pictures; interval after Korn and Graubard "
    "1998."
)


@dataclass(frozen=True)
class Cell:
    """Some answers alike: who gave them, when, what was said, and why the pictures were asked about."""

    release: str
    label: str
    day: dt.date
    stratum: str


@dataclass(frozen=True)
class Known:
    """An answer whose picture has a settled label; `drawn` is its probability in the random sample, if asked there."""

    cell: Cell
    right: bool
    drawn: float | None


@dataclass(frozen=True)
class Standing:
    """How often the model was right, by the random sample alone and by all queues; None while nobody can say."""

    pictures: int
    sample: Estimate | None
    weighted: Estimate | None


@dataclass(frozen=True)
class Record:
    """What is known of a project's answers since a moment."""

    pictures: Counter[Cell]
    known: tuple[Known, ...]

    def split(self, key: Callable[[Cell], Key]) -> dict[Key, "Record"]:
        """The record in parts, one for each value that `key` has."""
        pictures: dict[Key, Counter[Cell]] = {}
        known: dict[Key, list[Known]] = {}
        for cell, count in self.pictures.items():
            pictures.setdefault(key(cell), Counter())[cell] += count
        for one in self.known:
            known.setdefault(key(one.cell), []).append(one)
        return {value: Record(part, tuple(known.get(value, ()))) for value, part in pictures.items()}

    def standing(self, of: Callable[[Cell], bool] = lambda _: True) -> Standing:
        """The estimates for the answers that `of` chooses: a release, a week, a class."""
        pictures = {cell: count for cell, count in self.pictures.items() if of(cell)}
        known = [one for one in self.known if of(one.cell)]
        strata = Counter[str]()
        for cell, count in pictures.items():
            strata[cell.stratum] += count
        everything = {REST: strata.total()}
        drawn = [(one.cell.stratum, Group(REST, one.drawn, 1, one.right)) for one in known if one.drawn is not None]
        for_a_reason = [Group(one.cell.stratum, 1.0, 1, one.right) for one in known if one.cell.stratum != REST]
        of_the_rest = [group for stratum, group in drawn if stratum == REST]
        return Standing(
            strata.total(),
            weighted_share(everything, _together(group for _, group in drawn)),
            weighted_share(strata, _together([*for_a_reason, *of_the_rest])),
        )


def record(stores: Stores, project: Project, since: dt.datetime) -> Record:
    """Read what was answered since a moment, and what annotators have settled about it. Raises DatabaseAway."""
    settled = {item.image_id: item for item in labels.settled_items(stores, project)}
    with stores.db.read() as tx:
        counts = production.answered_counts(tx, project.id, since, STRATA)
        looked_at = production.answered_and_annotated(tx, project.id, since, STRATA)
    known = [
        Known(_cell(row), row["label"] == item.label, item.queues.get(RANDOM_SAMPLE))
        for row in looked_at
        if (item := settled.get(row["image_id"])) is not None
    ]
    return Record(Counter({_cell(row): row["pictures"] for row in counts}), tuple(known))


def _cell(row: Any) -> Cell:
    return Cell(row["release"], row["label"], dt.date.fromisoformat(str(row["day"])), row["stratum"] or REST)


def _together(groups: Iterable[Group]) -> list[Group]:
    answers, right = Counter[tuple[str, float]](), Counter[tuple[str, float]]()
    for group in groups:
        answers[group.stratum, group.probability] += group.answers
        right[group.stratum, group.probability] += group.right
    return [Group(*key, count, right[key]) for key, count in answers.items()]
