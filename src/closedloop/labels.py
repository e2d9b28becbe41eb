"""What annotators and imports say that pictures show: votes, majorities, and what a classifier learns from."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from closedloop import votes
from closedloop.project import Project
from closedloop.queues import RANDOM_SAMPLE
from closedloop.storage import Stores, answers, catalogue, pictures
from closedloop.votes import IMPORT, Vote

VISITOR = "visitor"  # who says what visitors said


@dataclass(frozen=True)
class Item:
    """One picture of a dataset with its settled answer."""

    image_id: str
    phash: str
    label: str
    annotators: tuple[str, ...]  # who said so
    queues: dict[str, float | None]  # through which it was asked about, with the probability of having entered each
    votes: tuple[dict[str, Any], ...]  # every vote that counted, the outvoted too: annotator, label, annotation, at
    visitor: str | None = None  # what its visitor said it is; where nobody else has answered, this is the label

    @property
    def is_settled(self) -> bool:
        """Whether annotators or an import said so. What a visitor alone said may teach, and judges nothing."""
        return bool(self.annotators)

    @property
    def by_source(self) -> dict[str, str]:
        """What each source said it is."""
        said = {vote["annotator"]: vote["label"] for vote in self.votes}
        return said | ({VISITOR: self.visitor} if self.visitor else {})

    @property
    def is_representative(self) -> bool:
        """Whether it was not asked about because of what a model said: drawn at random, or imported."""
        return RANDOM_SAMPLE in self.queues or IMPORT in self.queues

    @property
    def subject(self) -> str:
        """What the answer is about."""
        return self.image_id

    @property
    def answer(self) -> str:
        """The answer, to be compared with a former one."""
        return self.label

    @property
    def pictures(self) -> dict[str, str]:
        """Its picture with its part in the answer."""
        return {self.image_id: self.label}

    def as_json(self) -> dict[str, Any]:
        """A line of the dataset's file; a picture of which its visitor said nothing is written as it always was."""
        return {name: value for name, value in asdict(self).items() if name != "visitor" or value is not None}

    @classmethod
    def from_json(cls, line: dict[str, Any]) -> "Item":
        """What `as_json` wrote."""
        return cls(**{**line, "annotators": tuple(line["annotators"]), "votes": tuple(line["votes"])})


def newest_votes(rows: Iterable[Any]) -> list[Vote]:
    """The votes that count, from every version (mappings, see `answers.task_annotations`) of every annotation."""
    return [
        Vote(
            row["image_id"],
            row["annotator"],
            row["label"],
            row["queue"],
            row["probability"],
            row["answered_at"],
            row["annotation_id"],
        )
        for row in votes.newest(rows)
    ]


def settle(of_picture: Iterable[Vote]) -> tuple[str | None, tuple[Vote, ...]]:
    """The majority's answer about one picture and the votes that count; None while there is a tie or no vote.

    Each annotator has one vote a picture, the newest, in however many queues the picture was asked about.
    """
    counting = votes.counting(of_picture)
    return votes.majority(vote.answer for vote in counting), counting


def votes_of(tx: Any, project_id: str, image_id: str | None = None) -> list[Vote]:
    """The votes that count about a project's pictures, or about one: annotators' and imported ones."""
    imported = answers.imports(tx, project_id, image_id)
    return newest_votes(answers.task_annotations(tx, project_id, image_id)) + [
        Vote(row["image_id"], IMPORT, row["label"], IMPORT, None, row["at"]) for row in imported
    ]


def settled_items(stores: Stores, project: Project) -> list[Item]:
    """Every picture of a project whose answer is settled at this moment, by picture."""
    with stores.db.read() as tx:
        by_image = votes.by_subject(votes_of(tx, project.id))
        said = catalogue.user_labels(tx, project.id)
        known = pictures.images_of(tx, project.id, by_image)
    items = []
    for image_id, of_image in by_image.items():
        label, counting = settle(of_image)
        if label is None or label not in project.classes:
            continue
        items.append(
            Item(
                image_id,
                known[image_id]["phash"],
                label,
                tuple(vote.annotator for vote in counting if vote.answer == label),
                {vote.queue: vote.probability for vote in sorted(of_image, key=lambda vote: vote.queue)},
                tuple(vote.as_json() for vote in counting),
                said.get(image_id),
            )
        )
    return items


def visitors_items(stores: Stores, project: Project, settled: Iterable[Item]) -> list[Item]:
    """The pictures of which only a visitor said what they show, by picture; those in `settled` are left out."""
    others = {item.image_id for item in settled}
    with stores.db.read() as tx:
        said = {id_: label for id_, label in catalogue.user_labels(tx, project.id).items() if id_ not in others}
        known = pictures.images_of(tx, project.id, said)
    return [
        Item(id_, known[id_]["phash"], label, (), {}, (), label)
        for id_, label in sorted(said.items())
        if label in project.classes
    ]
