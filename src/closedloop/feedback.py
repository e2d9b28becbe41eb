"""What the person at the page said about a prediction. Saying the same twice is saying it once."""

import datetime as dt

from closedloop import catalogue, queues, tasks
from closedloop.errors import UnknownPrediction
from closedloop.project import get as get_project
from closedloop.storage import Stores, asking, pictures

FLAGGED = "flagged"


def flag(stores: Stores, prediction_id: str, now: dt.datetime) -> None:
    """The visitor says that a prediction is wrong; annotators are asked. Raises UnknownPrediction."""
    _say(stores, prediction_id, None, now)


def relabel(stores: Stores, prediction_id: str, label: str, now: dt.datetime) -> None:
    """The visitor says what the picture shows; annotators are asked. Raises UnknownPrediction or UnknownClass."""
    _say(stores, prediction_id, label, now)


def take_back_flag(stores: Stores, prediction_id: str, now: dt.datetime) -> None:
    """The visitor flagged by mistake. An annotator who has answered already has answered. Raises UnknownPrediction."""
    _take_back(stores, prediction_id, "flag", queues.USER_FEEDBACK, now)


def take_back_label(stores: Stores, prediction_id: str, now: dt.datetime) -> None:
    """The visitor named the picture by mistake. Raises UnknownPrediction."""
    _take_back(stores, prediction_id, "label", queues.USER_LABEL, now)


def _take_back(stores: Stores, prediction_id: str, kind: str, queue: str, now: dt.datetime) -> None:
    with stores.db.write() as tx:
        row = pictures.prediction(tx, prediction_id)
        if row is None:
            raise UnknownPrediction
        pictures.image(tx, row["project_id"], row["image_id"], lock=True)  # before anything of it: one order for all
        if not pictures.take_back_feedback(tx, prediction_id, kind):
            return
        still = pictures.feedback_on_image(tx, row["project_id"], row["image_id"])
        if not still[0 if kind == "flag" else 1]:  # nobody else said so of the same picture
            asking.withdraw(tx, row["project_id"], row["image_id"], queue, now)
        catalogue.refresh(tx, row["project_id"], row["image_id"])


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
        pictures.image(tx, row["project_id"], row["image_id"], lock=True)
        if pictures.prediction(tx, prediction_id) is None:  # removed meanwhile
            raise UnknownPrediction
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
        catalogue.refresh(tx, row["project_id"], row["image_id"])
