"""What the person at the page said about a prediction. Saying the same twice is saying it once."""

import datetime as dt

from closedloop import queues, tasks
from closedloop.errors import UnknownPrediction
from closedloop.project import get as get_project
from closedloop.storage import Stores, pictures

FLAGGED = "flagged"


def flag(stores: Stores, prediction_id: str, now: dt.datetime) -> None:
    """The visitor says that a prediction is wrong; annotators are asked. Raises UnknownPrediction."""
    _say(stores, prediction_id, None, now)


def relabel(stores: Stores, prediction_id: str, label: str, now: dt.datetime) -> None:
    """The visitor says what the picture shows; annotators are asked. Raises UnknownPrediction or UnknownClass."""
    _say(stores, prediction_id, label, now)


def _say(stores: Stores, prediction_id: str, label: str | None, now: dt.datetime) -> None:
    with stores.db.read() as tx:
        row = pictures.prediction(tx, prediction_id)
    if row is None:
        raise UnknownPrediction
    if label is not None:
        get_project(stores, row["project_id"]).check_label(label)
    with stores.db.write() as tx:
        said = {
            "prediction_id": prediction_id,
            "kind": "flag" if label is None else "label",
            "label": label or "",
            "project_id": row["project_id"],
            "said_at": now,
        }
        pictures.add_feedback(tx, said)
        flagged, user_label = pictures.feedback_on(tx, prediction_id)
        tasks.ask(
            tx,
            row["project_id"],
            row["image_id"],
            queues.USER_FEEDBACK if label is None else queues.USER_LABEL,
            now,
            prediction_id=prediction_id,
            user_feedback=FLAGGED if flagged else None,
            user_label=user_label,
        )
