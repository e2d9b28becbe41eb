"""A picture's whole history: what each release answered, what people said, what was asked, and who learnt from it."""

import datetime as dt
from dataclasses import dataclass
from typing import Any

from closedloop import crops, labels, selections
from closedloop.crops import Box
from closedloop.errors import UnknownPicture
from closedloop.storage import Stores, lineage, pictures, sets
from closedloop.votes import IMPORT


@dataclass(frozen=True)
class History:
    """Everything that is known of one picture; lists are oldest first, rows are mappings with the tables' columns."""

    picture: Any
    predictions: list[Any]
    feedback: list[Any]  # `prediction_id, kind, label, said_at`
    tasks: list[Any]  # with `probability`, `created_at`, `synced_at`, and `annotations`: every version of every answer
    imported: str | None
    answer: str | None  # what annotators settled, or an import said
    sets: list[str]  # that it is in
    crop: Box | None  # what annotators settled, or an import said
    datasets: list[Any]  # `id, label, created_at`, and `releases`: who learnt from it, with their `state`

    @property
    def moments(self) -> list[tuple[dt.datetime, str, Any]]:
        """(when, what, row) of all that happened to it, in order."""
        told = [(self.picture["arrived_at"], "arrived", self.picture)]
        told += [(row["answered_at"] or row["created_at"], "predicted", row) for row in self.predictions]
        told += [(row["said_at"], row["kind"], row) for row in self.feedback]
        for task in self.tasks:
            told.append((task["created_at"], "asked", task))
            told += [(row["answered_at"], "annotated", {**row, "queue": task["queue"]}) for row in task["annotations"]]
        told += [(row["created_at"], "learnt", row) for row in self.datasets]
        return sorted(told, key=lambda moment: moment[0])


def of(stores: Stores, project_id: str, image_id: str) -> History:
    """The history of a picture; raises UnknownPicture where there is none, or it was removed."""
    with stores.db.read() as tx:
        picture = pictures.image(tx, project_id, image_id)
        if picture is None or picture["removed_at"] is not None:
            raise UnknownPicture
        votes = labels.votes_of(tx, project_id, image_id)
        return History(
            picture=picture,
            predictions=lineage.predictions_about(tx, project_id, image_id),
            feedback=lineage.feedback_about(tx, project_id, image_id),
            tasks=lineage.tasks_about(tx, project_id, image_id),
            imported=next((vote.answer for vote in votes if vote.queue == IMPORT), None),
            answer=labels.settle(votes)[0],
            sets=sets.with_picture(tx, project_id, image_id),
            crop=crops.settle(crops.votes_of(tx, project_id, image_id))[0],
            datasets=lineage.datasets_with(tx, project_id, image_id),
        )


def picked(stores: Stores, project_id: str, set_id: str) -> str | None:
    """The picture of a set that people say is best; None while that is open, and where they say that none is good."""
    with stores.db.read() as tx:
        return selections.settle(selections.votes_of(tx, project_id, set_id))[0]
