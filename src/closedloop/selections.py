"""Which picture of a set is best: who is asked about which sets, what they say, and what a ranker learns from."""

import datetime as dt
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from closedloop import queues, tasks, votes
from closedloop.inference import Inference
from closedloop.project import CROPPER, RANKER, Project
from closedloop.queues import BY_CHANCE, LEAST_SURE, SELECTION
from closedloop.storage import Stores, asking, installation, pictures, sets
from closedloop.votes import ANSWERED, IMPORT, NONE, Vote

BEST, PASSED_OVER = "best", "passed over"  # the part of a picture in a set's answer
AT_ONCE = 200  # sets whose suggestion, and pictures whose crop, is renewed at a time


@dataclass(frozen=True)
class Item:
    """One set of a dataset with the picture that is best."""

    set_id: str
    members: dict[str, str]  # picture -> pHash, in the set's order
    chosen: str  # picture
    annotators: tuple[str, ...]
    queues: dict[str, float | None]  # through which it was asked about, with the probability of having entered each
    votes: tuple[dict[str, Any], ...]  # every vote that counted, the outvoted too
    by_chance: bool  # drawn at random, or imported

    @property
    def is_representative(self) -> bool:
        """Whether it was not asked about because of what a model said."""
        return self.by_chance

    @property
    def is_settled(self) -> bool:
        """Whether annotators or an import said so."""
        return True

    @property
    def subject(self) -> str:
        """What the answer is about."""
        return self.set_id

    @property
    def answer(self) -> str:
        """The answer, to be compared with a former one."""
        return self.chosen

    @property
    def label(self) -> str:
        """What the votes that agree with it say."""
        return self.chosen

    @property
    def pictures(self) -> dict[str, str]:
        """Its pictures, each with its part in the answer."""
        return {image_id: BEST if image_id == self.chosen else PASSED_OVER for image_id in self.members}

    def as_json(self) -> dict[str, Any]:
        """A line of the dataset's file. The order of a mapping is lost in it, so members are a list."""
        return {**asdict(self), "members": [list(member) for member in self.members.items()]}

    @classmethod
    def from_json(cls, line: dict[str, Any]) -> "Item":
        """What `as_json` wrote."""
        lists = {"annotators": tuple(line["annotators"]), "votes": tuple(line["votes"])}
        return cls(**{**line, **lists, "members": dict(line["members"])})


def ask_by_chance(tx: Any, project: Project, set_id: str, now: dt.datetime) -> None:
    """Ask about a set that has just come, if its coin says so."""
    share = project.ask.random_share
    if queues.is_drawn(set_id, share):
        _ask(tx, project.id, set_id, BY_CHANCE, share, now)


def ask_least_sure(stores: Stores, project: Project, now: dt.datetime) -> int:
    """Ask about the sets of which the ranker is least sure, as many as may wait at a time; returns how many."""
    with stores.db.read() as tx:
        room = project.ask.least_sure - sets.count_waiting(tx, project.id, SELECTION, LEAST_SURE)
    if room <= 0:
        return 0
    with stores.db.write() as tx:
        installation.lock_project(tx, project.id)  # two samplers at once would ask about twice as many
        room = project.ask.least_sure - sets.count_waiting(tx, project.id, SELECTION, LEAST_SURE)
        chosen = sets.least_sure(tx, project.id, max(0, room))
        for set_id in chosen:
            _ask(tx, project.id, set_id, LEAST_SURE, 1.0, now)
    return len(chosen)


def _ask(tx: Any, project_id: str, set_id: str, reason: str, probability: float, now: dt.datetime) -> None:
    tasks.ask(tx, project_id, None, SELECTION, now, set_id=set_id, probability=probability, reason=reason)
    sets.note_asked(tx, project_id, set_id, now)


def renew(stores: Stores, inference: Inference, project: Project, now: dt.datetime) -> int:
    """Promise what the releases that answer now have not said: which picture of a set is best, and its crop.

    A set about which annotators were asked keeps what it has. A batch at a time; returns how many were promised. Raises
    InferenceAway or DatabaseAway.
    """
    served = inference.served(project.id)
    with stores.db.read() as tx:
        promised = [("suggest", id_) for id_ in _next(tx, "suggest", sets.outdated, project, served.get(RANKER))]
        crops = _next(tx, "propose", sets.uncropped, project, served.get(CROPPER))
        promised += [("propose", f"{project.id}/{id_}") for id_ in crops]
    if promised:
        with stores.db.write() as tx:
            for kind, ref in promised:
                asking.promise(tx, kind, ref, now)
    return len(promised)


def _next(
    tx: Any, kind: str, find: Callable[[Any, str, str, int], list[str]], project: Project, release: str | None
) -> list[str]:
    """What is to be renewed next: nothing while a batch waits. What has failed before holds nobody up."""
    return find(tx, project.id, release, AT_ONCE) if release and not asking.is_fresh(tx, kind) else []


def settle(of_set: Iterable[Vote]) -> tuple[str | None, tuple[Vote, ...]]:
    """The picture that most say is best, and the votes that count; None while there is a tie, or for "none is good"."""
    counting = votes.counting(of_set)
    return votes.majority(vote.answer for vote in counting) or None, counting


def votes_of(tx: Any, project_id: str, set_id: str | None = None) -> list[Vote]:
    """The votes that count about a project's sets, or about one; the answer "" says that none is good."""
    return _given(tx, project_id, set_id) + _imported(tx, project_id, None if set_id is None else [set_id])


def count_settled(tx: Any, project_id: str) -> int:
    """Of how many sets of a project the best picture is settled."""
    given = _given(tx, project_id)
    imported = _imported(tx, project_id, {vote.subject for vote in given})
    return votes.count_settled(given, imported, sets.count_logged(tx, project_id)[0] - len(imported), settle)


def _given(tx: Any, project_id: str, set_id: str | None = None) -> list[Vote]:
    return [
        Vote(
            row["set_id"],
            row["annotator"],
            row["label"] or "",
            row["queue"],
            row["probability"],
            row["answered_at"],
            row["annotation_id"],
            row["asked_for"],
        )
        for row in votes.newest(sets.annotations_about(tx, project_id, SELECTION, set_id), (ANSWERED, NONE))
    ]


def _imported(tx: Any, project_id: str, set_ids: Iterable[str] | None = None) -> list[Vote]:
    return [
        Vote(row["set_id"], IMPORT, row["image_id"], IMPORT, None, row["at"])
        for row in sets.picks(tx, project_id, set_ids)
    ]


def settled_items(stores: Stores, project: Project) -> list[Item]:
    """Every set of a project of which the best picture is settled at this moment, by set."""
    with stores.db.read() as tx:
        by_set = votes.by_subject(votes_of(tx, project.id))
        members = sets.pictures_of(tx, project.id, by_set)
        known = pictures.images_of(tx, project.id, {image_id for ids in members.values() for image_id in ids})
    items = []
    for set_id, of_set in by_set.items():
        chosen, counting = settle(of_set)
        if chosen is None or chosen not in members.get(set_id, ()):
            continue
        items.append(
            Item(
                set_id,
                {image_id: known[image_id]["phash"] for image_id in members[set_id]},
                chosen,
                tuple(vote.annotator for vote in counting if vote.answer == chosen),
                {vote.queue: vote.probability for vote in sorted(of_set, key=lambda vote: vote.queue)},
                tuple(vote.as_json() for vote in counting),
                any(vote.queue == IMPORT or vote.reason == BY_CHANCE for vote in of_set),
            )
        )
    return items


def ask_for_crop(tx: Any, project_id: str, set_id: str, now: dt.datetime) -> None:
    """Ask which part of a set's best picture to keep, in the transaction of the answer that settles it."""
    of_set = votes_of(tx, project_id, set_id)
    chosen, counting = settle(of_set)
    if chosen is None:
        return
    asked = next((vote for vote in counting if vote.queue == SELECTION and vote.answer == chosen), None)
    if asked is not None:
        why = {"probability": asked.probability or 1.0, "reason": asked.reason}
        if sets.newest_proposal(tx, project_id, chosen) is None:
            asking.promise(tx, "propose", f"{project_id}/{chosen}", now)  # before its task, which shows it
        tasks.ask(tx, project_id, chosen, queues.CROP, now, **why)
