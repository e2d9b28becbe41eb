"""Which of all the versions of all the annotations count as votes, whatever they are about."""

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable
from dataclasses import dataclass
from typing import Any

# What an annotation says of its question. "None is good" is an answer about a set; a skip and an "unknown" are none.
ANSWERED, UNSURE, NONE, SKIPPED = "answered", "unknown", "none", "skipped"
WITHDRAWN, REFUSED = "withdrawn", "refused"  # taken back by its annotator; of no use, with the reason
USABLE = (ANSWERED, UNSURE, NONE)  # nobody need be asked again
IMPORT = "import"  # who says what was imported


@dataclass(frozen=True)
class Vote:
    """One person's answer about one subject (a picture, or a set); how the question came about."""

    subject: str
    annotator: str
    answer: str
    queue: str
    probability: float | None  # of having been asked for this reason; None for imports: nobody drew them
    at: Any  # datetime
    annotation: str | None = None  # Label Studio's number of it
    reason: str | None = None  # of a set's task, and of a crop's: random | least_sure

    def as_json(self) -> dict[str, Any]:
        """For a dataset's file."""
        return {
            "annotator": self.annotator,
            "label": self.answer,
            "annotation": self.annotation,
            "at": self.at.isoformat(),
        }


def newest(rows: Iterable[Any], states: Collection[str] = (ANSWERED,)) -> list[Any]:
    """The rows that count, from every version (mappings, see `answers.task_annotations`) of every annotation.

    Of each annotation its newest version; withdrawn ones never were. Then of each (task, annotator) the newest, and one
    in another state than `states`, as a skip or an "unknown", is no vote: who skips after having answered takes the
    answer back.
    """
    ordered = sorted(rows, key=lambda row: (row["answered_at"], row["annotation_id"]))
    # Label Studio counts its annotations anew when it is set up anew, so a task belongs to an annotation's name.
    versions = {(row["task_id"], row["annotation_id"]): row for row in ordered}
    latest: dict[tuple[str, str], Any] = {}
    for row in sorted(versions.values(), key=lambda row: (row["answered_at"], row["annotation_id"])):
        if row["state"] != WITHDRAWN:
            latest[row["task_id"], row["annotator"]] = row
    return [row for row in latest.values() if row["state"] in states]


def counting(votes: Iterable[Vote]) -> tuple[Vote, ...]:
    """One vote for each annotator, the newest, in however many queues the subject was asked about."""
    latest = {vote.annotator: vote for vote in sorted(votes, key=lambda vote: vote.at)}
    return tuple(sorted(latest.values(), key=lambda vote: vote.annotator))


def majority(answers: Iterable[Hashable]) -> Any:
    """The commonest answer; None while there is a tie or no answer."""
    ranking = Counter(answers).most_common(2)
    if not ranking or (len(ranking) == 2 and ranking[0][1] == ranking[1][1]):
        return None
    return ranking[0][0]


def count_settled(
    given: Iterable[Vote], imported: Iterable[Vote], others: int, settle: Callable[[Iterable[Vote]], tuple[Any, Any]]
) -> int:
    """How many subjects are settled: of those in `given` with what was `imported` about them, and all the `others`.

    An import alone is always settled, so that it is counted where it lies: there may be hundreds of thousands.
    """
    about = by_subject([*given, *imported])
    return others + sum(settle(of_one)[0] is not None for of_one in about.values())


def by_subject(votes: Iterable[Vote]) -> dict[str, list[Vote]]:
    """The votes about each subject, subjects in order."""
    found: dict[str, list[Vote]] = {}
    for vote in votes:
        found.setdefault(vote.subject, []).append(vote)
    return dict(sorted(found.items()))
