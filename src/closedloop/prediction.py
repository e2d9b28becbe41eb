"""What one release said about one picture: from the upload to the answer, also when the answer comes later.

The order is the promise: picture to S3, then ONE transaction (image, prediction, outbox), then the answer. Whoever
kills the process in between loses nothing that was acknowledged.
"""

import contextlib
import datetime as dt
import uuid
from dataclasses import dataclass
from typing import Any

from closedloop import catalogue, image, queues, removal, tasks
from closedloop.errors import InferenceAway, InferenceRefused, KeyUsedForAnother, StoreAway, UnknownPrediction
from closedloop.inference import Answer, Inference
from closedloop.leases import Lease
from closedloop.logs import get_logger
from closedloop.project import CLASSIFICATION, Project
from closedloop.project import get as get_project
from closedloop.storage import Stores, asking, pictures, vectors
from closedloop.storage.objects import PRODUCTION

UNCLASSIFIED = "unclassified"
ATTEMPTS = 3  # to keep a picture whose former copy is being removed at the same moment


class _RemovedMeanwhile(Exception):
    """The picture was there when it came and is not any more: it is put anew."""


class _SentTwice(Exception):
    """The same request came twice at once, and the other one was first."""


@dataclass(frozen=True)
class Prediction:
    """One answer about one picture, or the promise of one (`status` "pending")."""

    id: str
    image_id: str
    project: str
    status: str
    label: str | None
    confidence: float | None
    probabilities: dict[str, float]
    release: str | None
    created_at: dt.datetime
    visitor: str | None  # who sent it
    flagged: bool = False
    user_label: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The JSON contract of `POST /predict` and `GET /predictions/<id>`."""
        return {
            "ok": True,
            "prediction_id": self.id,
            "image_id": self.image_id,
            "project": self.project,
            "label": self.label,
            "confidence": self.confidence,
            "probabilities": self.probabilities,
            "release": self.release,
            "status": self.status,
            "flagged": self.flagged,
            "user_label": self.user_label,
        }


def receive(
    stores: Stores,
    inference: Inference,
    project: Project,
    data: bytes,
    now: dt.datetime,
    idempotency_key: str | None = None,
    visitor: str | None = None,
) -> Prediction:
    """Take a picture (raw upload bytes), have it answered and keep both.

    The same bytes again are the same image with a new prediction; the same `idempotency_key` gives the same prediction.
    `visitor` is who may see and remove it later.
    Raises the errors of `image.accept`, WrongKind, KeyUsedForAnother, StoreAway or DatabaseAway; then nothing is kept.
    """
    project.check_kind(CLASSIFICATION)
    picture = image.accept(data)
    if idempotency_key and (former := _by_key(stores, project.id, idempotency_key, picture.id)):
        return former
    answer = _ask(inference, project.id, picture.jpeg)
    for _ in range(ATTEMPTS):
        with (
            contextlib.suppress(_RemovedMeanwhile),
            removal.coming(stores, project.id, picture.id) as lease,
        ):
            return _keep(stores, project, picture, answer, now, idempotency_key, visitor, lease)
    raise StoreAway


def _keep(
    stores: Stores,
    project: Project,
    picture: image.Picture,
    answer: Answer | None,
    now: dt.datetime,
    idempotency_key: str | None,
    visitor: str | None,
    lease: Lease | None,
) -> Prediction:
    key = _key(project, picture.id, answer)
    placed = _place(stores, project.id, picture.id, key, picture.jpeg)
    prediction_id = uuid.uuid4().hex
    row = {
        "id": prediction_id,
        "project_id": project.id,
        "image_id": picture.id,
        "status": "pending",
        "created_at": now,
        "idempotency_key": idempotency_key,
        "visitor": visitor,
    }
    record = picture.record(project.id, key, "upload", now)
    try:
        with stores.db.write() as tx:
            if not pictures.add_image(tx, record):
                known = pictures.image(tx, project.id, picture.id, lock=True)
                if known and known["removed_at"] is not None:
                    if lease is None:
                        raise _RemovedMeanwhile
                    lease.check(tx)
                    pictures.revive(tx, record)
            if not pictures.add_prediction(tx, row):
                raise _SentTwice  # nothing of this transaction stays
            if answer:
                _record(tx, project, prediction_id, picture.id, answer, now)
            else:
                asking.promise(tx, "predict", prediction_id, now)
            if placed:
                _keep_one_place(tx, project.id, picture.id, key, now)
            catalogue.refresh(tx, project.id, picture.id)
    except _SentTwice:
        former = _by_key(stores, project.id, str(idempotency_key), picture.id)
        assert former is not None
        if placed:
            with stores.db.write() as tx:
                _keep_one_place(tx, project.id, picture.id, key, now)
        return former
    return get(stores, prediction_id)


def answer_pending(stores: Stores, inference: Inference, prediction_id: str, now: dt.datetime) -> None:
    """Answer a kept picture now that inference is back; safe to repeat.

    Raises InferenceAway, InferenceRefused, StoreAway or DatabaseAway.
    """
    with stores.db.read() as tx:
        row = pictures.prediction(tx, prediction_id)
        picture = pictures.image(tx, row["project_id"], row["image_id"]) if row else None
    if not row or not picture or row["status"] == "done":
        return
    project = get_project(stores, row["project_id"])
    jpeg = stores.objects.get(picture["key"])
    answer = inference.predict(project.id, jpeg)
    key = _key(project, picture["id"], answer)
    placed = _place(stores, project.id, picture["id"], key, jpeg)
    with stores.db.write() as tx:
        pictures.image(tx, project.id, picture["id"], lock=True)
        if pictures.prediction(tx, prediction_id) is None:  # removed meanwhile
            if placed:
                asking.promise(tx, "remove", key, now)
            return
        _record(tx, project, prediction_id, picture["id"], answer, now)
        if placed:
            _keep_one_place(tx, project.id, picture["id"], key, now)
        catalogue.refresh(tx, project.id, picture["id"])


def get(stores: Stores, prediction_id: str) -> Prediction:
    """One prediction with what its visitor said; raises UnknownPrediction."""
    with stores.db.read() as tx:
        row = pictures.prediction(tx, prediction_id)
        if row is None:
            raise UnknownPrediction
        flagged, user_label = pictures.feedback_on(tx, prediction_id)
    return _prediction(row, flagged, user_label)


def _prediction(row: Any, flagged: bool, user_label: str | None) -> Prediction:
    return Prediction(
        row["id"],
        row["image_id"],
        row["project_id"],
        row["status"],
        row["label"],
        row["confidence"],
        row["probabilities"] or {},
        row["release"],
        row["created_at"],
        row["visitor"],
        flagged,
        user_label,
    )


def of_visitor(stores: Stores, project_id: str, visitor: str, limit: int) -> list[Prediction]:
    """What a visitor sent to a project, the newest first."""
    with stores.db.read() as tx:
        rows = pictures.predictions_of_visitor(tx, project_id, visitor, limit)
        said = {row["id"]: pictures.feedback_on(tx, row["id"]) for row in rows}
    return [_prediction(row, *said[row["id"]]) for row in rows]


def _by_key(stores: Stores, project_id: str, idempotency_key: str, image_id: str) -> Prediction | None:
    with stores.db.read() as tx:
        row = pictures.prediction_by_key(tx, project_id, idempotency_key)
    if row is None:
        return None
    if row["image_id"] != image_id:
        raise KeyUsedForAnother
    return get(stores, row["id"])


def _ask(inference: Inference, project_id: str, jpeg: bytes) -> Answer | None:
    try:
        return inference.predict(project_id, jpeg)
    except (InferenceAway, InferenceRefused) as error:
        get_logger().warning("picture kept for later", reason=str(error))
        return None


def _key(project: Project, image_id: str, answer: Answer | None) -> str:
    """Where a picture lies: by the class that was predicted when it arrived."""
    known = answer is not None and answer.label in project.classes
    folder = f"class_{project.classes.index(answer.label):02d}" if known else UNCLASSIFIED  # type: ignore[union-attr, arg-type]
    return f"{PRODUCTION}/{project.id}/{folder}/{image_id}.jpg"


def _place(stores: Stores, project_id: str, image_id: str, key: str, jpeg: bytes) -> bool:
    """Put a picture where an answer wants it, before any record says that it is there; False where it stays as it is.

    A new picture is put, and one without an answer, since its first answer gives it its place.
    """
    with stores.db.read() as tx:
        known = pictures.image(tx, project_id, image_id)
    if known and known["removed_at"] is None and (known["key"] == key or f"/{UNCLASSIFIED}/" not in known["key"]):
        return False
    stores.objects.put(key, jpeg)
    return True


def _keep_one_place(tx: Any, project_id: str, image_id: str, key: str, now: dt.datetime) -> None:
    """Promise to remove the copy just put at `key` where the record names another: the same picture came twice."""
    row = pictures.image(tx, project_id, image_id)
    if row and row["key"] != key:
        asking.promise(tx, "tidy", f"{project_id}/{key.split('/')[2]}/{image_id}", now)


def _record(tx: Any, project: Project, prediction_id: str, image_id: str, answer: Answer, now: dt.datetime) -> None:
    """Keep an answer, and everything that follows from it, in the transaction of its picture."""
    first = pictures.newest_answer(tx, project.id, image_id) is None
    done = pictures.answer_prediction(
        tx,
        prediction_id,
        {
            "label": answer.label,
            "confidence": answer.confidence,
            "probabilities": answer.probabilities,
            "release": answer.release,
            "encoder": answer.encoder,
            "answered_at": now,
        },
    )
    if not done:
        return
    vectors.add(tx, project.id, answer.encoder, [vectors.Vector(image_id, answer.vector)], now)
    key = _key(project, image_id, answer)
    row = pictures.image(tx, project.id, image_id)
    if first and row and row["key"] != key and f"/{UNCLASSIFIED}/" in row["key"]:
        # The first answer gives a picture that came without one its place; no task can name the former place yet.
        pictures.move_image(tx, project.id, image_id, key)
        asking.promise(tx, "tidy", f"{project.id}/{UNCLASSIFIED}/{image_id}", now)
    confidence = answer.confidence if answer.label is not None else None
    if queues.is_low_confidence(confidence, project.thresholds.low_confidence):
        tasks.ask(tx, project.id, image_id, queues.LOW_CONFIDENCE, now, prediction_id=prediction_id)


def tidy(stores: Stores, place: str) -> None:
    """Remove the copy of a picture at `<project>/<folder>/<image id>` if its record names another place for good.

    Raises tasks.NotYet while its first answer may still move it: that answer's copy may be there before its record.
    """
    project_id, _, image_id = place.split("/")
    stale = f"{PRODUCTION}/{place}.jpg"
    with stores.db.read() as tx:
        row = pictures.image(tx, project_id, image_id)
        settled = row and (f"/{UNCLASSIFIED}/" not in row["key"] or pictures.newest_answer(tx, project_id, image_id))
    if not settled:
        raise tasks.NotYet
    if row and row["key"] != stale:
        stores.objects.remove(stale)
