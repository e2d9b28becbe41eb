"""Sets of pictures of which one is the best: from the upload to the suggestion, also when that comes later.

As with a single picture: the pictures to S3, then ONE transaction (images, set, suggestion, outbox), then the answer.
"""

import contextlib
import datetime as dt
import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from closedloop import catalogue, crops, image, removal, selections
from closedloop.errors import (
    ClosedloopError,
    InferenceAway,
    InferenceRefused,
    PickedOtherwise,
    PictureOfSet,
    SamePictureTwice,
    SetSize,
    StoreAway,
    UnknownSet,
)
from closedloop.image import Picture
from closedloop.inference import Inference, Proposed, Ranked
from closedloop.leases import Lease
from closedloop.logs import get_logger
from closedloop.project import SELECTION, Project
from closedloop.storage import Stores, asking, pictures
from closedloop.storage import sets as rows
from closedloop.storage.objects import PRODUCTION

LEAST, MOST = 2, 12  # pictures of a set
FOLDER = "unclassified"  # of a project's pictures: sets know no classes
ATTEMPTS = 3  # to keep a set of which a picture's former copy is being removed at the same moment


class _RemovedMeanwhile(Exception):
    """A picture was there when the set came and is not any more: it is put anew."""


@dataclass(frozen=True)
class Pick:
    """Which picture of a set somebody chose in earlier work."""

    image_id: str
    session: str
    at: dt.datetime


@dataclass(frozen=True)
class Crop:
    """Which part of the best picture a release would keep."""

    box: crops.Box
    confidence: float  # expected overlap (IoU, 0-1)
    release: str


@dataclass(frozen=True)
class PictureSet:
    """A set with what was suggested last; `status` "pending" while nothing was."""

    id: str
    project: str
    image_ids: tuple[str, ...]
    status: str
    source: str  # upload | import
    created_at: dt.datetime
    best: str | None = None
    confidence: float | None = None
    scores: dict[str, float] | None = None
    release: str | None = None
    crop: Crop | None = None

    def as_json(self) -> dict[str, Any]:
        """The JSON contract of `POST /p/<project>/sets` and `GET /sets/<id>`."""
        crop = self.crop and {
            "image_id": self.best,
            "box": {"x1": self.crop.box.x1, "y1": self.crop.box.y1, "x2": self.crop.box.x2, "y2": self.crop.box.y2},
            "confidence": self.crop.confidence,
            "release": self.crop.release,
        }
        return {
            "ok": True,
            "set_id": self.id,
            "project": self.project,
            "image_ids": list(self.image_ids),
            "status": self.status,
            "best": self.best,
            "confidence": self.confidence,
            "scores": self.scores or {},
            "release": self.release,
            "crop": crop,
        }


def set_id(project_id: str, image_ids: Sequence[str]) -> str:
    """The id of a set: 32 hex digits of the digest of its project and pictures, whatever their order."""
    return hashlib.sha256(" ".join([project_id, *sorted(image_ids)]).encode()).hexdigest()[:32]


def receive(
    stores: Stores,
    inference: Inference,
    project: Project,
    files: Sequence[bytes],
    now: dt.datetime,
    visitor: str | None = None,
) -> PictureSet:
    """Take a set (raw upload bytes of its pictures), have it ranked and keep both. The same set again is the same set.

    Raises WrongKind, SetSize, PictureOfSet (with the fault of the picture), SamePictureTwice, StoreAway or
    DatabaseAway; then nothing is kept.
    """
    project.check_kind(SELECTION)
    check_size(len(files))
    accepted = [_accept(number, data) for number, data in enumerate(files, start=1)]
    id_ = set_id(project.id, check_different(accepted))
    with stores.db.read() as tx:
        known = rows.one(tx, id_)
    ranked = proposed = None
    if known is None or known["release"] is None:  # nobody has said which is best
        ranked, proposed = _ask(inference, project.id, [picture.jpeg for picture in accepted])
    if ranked or visitor or known is None:
        keep(stores, project, accepted, "upload", now, visitor, ranked, proposed)
    return get(stores, id_)


def check_size(count: int) -> None:
    """Raise SetSize unless a set may have so many pictures."""
    if not LEAST <= count <= MOST:
        raise SetSize(have=count)


def check_different(accepted: Sequence[Picture]) -> list[str]:
    """The ids of pictures that all differ; raises SamePictureTwice."""
    first: dict[str, int] = {}
    for number, picture in enumerate(accepted, start=1):
        if picture.id in first:
            raise SamePictureTwice(first=first[picture.id], second=number)
        first[picture.id] = number
    return list(first)


def _accept(number: int, data: bytes) -> Picture:
    try:
        return image.accept(data)
    except ClosedloopError as fault:
        raise PictureOfSet.of(number, fault) from None


def keep(
    stores: Stores,
    project: Project,
    accepted: Sequence[Picture],
    source: str,
    now: dt.datetime,
    visitor: str | None = None,
    ranked: Ranked | None = None,
    proposed: Proposed | None = None,
    picked: Pick | None = None,
) -> bool:
    """Keep a set with its pictures, and what was said about it (else that is promised); False where it was there.

    With a pick of earlier work: keep that in the same transaction, and ask nobody by chance; False where the pick was
    there. Raises PickedOtherwise where another one was, StoreAway or DatabaseAway; then nothing is kept.
    """
    for _ in range(ATTEMPTS):
        with contextlib.suppress(_RemovedMeanwhile), contextlib.ExitStack() as held:
            in_order = sorted(picture.id for picture in accepted)  # one for all, so that none waits for ever
            leases = {id_: held.enter_context(removal.coming(stores, project.id, id_)) for id_ in in_order}
            return _keep(stores, project, accepted, leases, source, now, visitor, ranked, proposed, picked)
    raise StoreAway


def _keep(
    stores: Stores,
    project: Project,
    accepted: Sequence[Picture],
    leases: dict[str, Lease | None],
    source: str,
    now: dt.datetime,
    visitor: str | None,
    ranked: Ranked | None,
    proposed: Proposed | None,
    picked: Pick | None,
) -> bool:
    ids = [picture.id for picture in accepted]
    row = {
        "project_id": project.id,
        "id": set_id(project.id, ids),
        "status": "done" if picked else "pending",  # what was chosen needs no suggestion
        "source": source,
        "chance": 0.0 if picked else project.ask.random_share,
        "created_at": now,
    }
    with stores.db.read() as tx:
        known = pictures.images_of(tx, project.id, ids)
    for picture in accepted:
        there = known.get(picture.id)
        if there is None or there["removed_at"] is not None:
            stores.objects.put(_key(project.id, picture.id), picture.jpeg)
    with stores.db.write() as tx:
        for picture in sorted(accepted, key=lambda picture: picture.id):
            _keep_picture(tx, project.id, picture, leases[picture.id], source, now)
        new = rows.add(tx, row, ids)
        if visitor:
            sender = {"project_id": project.id, "set_id": row["id"], "visitor": visitor, "sent_at": now}
            rows.add_sender(tx, sender)
        if ranked is not None and (new or _is_unanswered(tx, row["id"])):
            record(tx, project.id, row["id"], ids, ranked, proposed, now)
        elif new and not picked:
            asking.promise(tx, "suggest", row["id"], now)
        if picked:
            return _keep_pick(tx, project.id, row["id"], picked)
        if new:
            selections.ask_by_chance(tx, project, row["id"], now)
    return new


def _keep_pick(tx: Any, project_id: str, id_: str, picked: Pick) -> bool:
    row = {"image_id": picked.image_id, "session": picked.session, "at": picked.at}
    if rows.add_pick(tx, {"project_id": project_id, "set_id": id_, **row}):
        return True
    (former,) = rows.picks(tx, project_id, [id_])
    if former["image_id"] != picked.image_id:
        raise PickedOtherwise(former=former["image_id"])
    return False


def _keep_picture(
    tx: Any, project_id: str, picture: Picture, lease: Lease | None, source: str, now: dt.datetime
) -> None:
    record = picture.record(project_id, _key(project_id, picture.id), source, now)
    if not pictures.add_image(tx, record):
        known = pictures.image(tx, project_id, picture.id, lock=True)
        if known is None or known["removed_at"] is None:
            return
        if lease is None:
            raise _RemovedMeanwhile
        lease.check(tx)
        pictures.revive(tx, record)
    catalogue.refresh(tx, project_id, picture.id)


def _is_unanswered(tx: Any, id_: str) -> bool:
    row = rows.one(tx, id_)
    return row is not None and row["release"] is None


def record(
    tx: Any,
    project_id: str,
    id_: str,
    image_ids: Sequence[str],
    ranked: Ranked,
    proposed: Proposed | None,
    now: dt.datetime,
) -> None:
    """Keep what releases said about a set, and about the crop of its best picture."""
    best = None if ranked.best is None else image_ids[ranked.best]
    row = {
        "id": uuid.uuid4().hex,
        "project_id": project_id,
        "set_id": id_,
        "best": best,
        "confidence": ranked.confidence,
        "scores": dict(zip(image_ids, ranked.scores, strict=True)),
        "release": ranked.release,
        "encoder": ranked.encoder,
        "created_at": now,
    }
    rows.add_suggestion(tx, row)
    if best is not None and proposed is not None:
        crops.keep_proposal(tx, project_id, best, proposed, now)
    elif best is not None:  # the answer about the crop did not come, or nobody gives one
        asking.promise(tx, "propose", f"{project_id}/{best}", now)


def suggest(stores: Stores, inference: Inference, id_: str, now: dt.datetime) -> None:
    """Have a kept set ranked (anew); safe to repeat.

    Raises InferenceAway, InferenceRefused, StoreAway or DatabaseAway.
    """
    with stores.db.read() as tx:
        row = rows.one(tx, id_)
        ids = rows.pictures_of(tx, row["project_id"], [id_])[id_] if row else []
        known = pictures.images_of(tx, row["project_id"], ids) if row else {}
    if row is None:
        return
    jpegs = [stores.objects.get(known[image_id]["key"]) for image_id in ids]
    ranked = inference.rank(row["project_id"], jpegs)
    proposed = _crop(inference, row["project_id"], jpegs, ranked)
    with stores.db.write() as tx:
        for image_id in sorted(ids):
            pictures.image(tx, row["project_id"], image_id, lock=True)
        if rows.one(tx, id_) is not None:  # else it was removed meanwhile
            record(tx, row["project_id"], id_, ids, ranked, proposed, now)


def get(stores: Stores, id_: str) -> PictureSet:
    """One set with what was suggested last; raises UnknownSet."""
    with stores.db.read() as tx:
        row = rows.one(tx, id_)
        if row is None:
            raise UnknownSet
        ids = rows.pictures_of(tx, row["project_id"], [id_])[id_]
        said = rows.newest_suggestion(tx, row["project_id"], id_)
        part = rows.newest_proposal(tx, row["project_id"], said["best"]) if said and said["best"] else None
    of_set = PictureSet(id_, row["project_id"], tuple(ids), row["status"], row["source"], row["created_at"])
    if said is None:
        return of_set
    crop = None
    if part is not None:
        box = crops.Box(part["x1"], part["y1"], part["x2"], part["y2"])
        crop = Crop(box, part["confidence"], part["release"])
    answer = {name: said[name] for name in ("best", "confidence", "scores", "release")}
    return replace(of_set, **answer, crop=crop)


def sizes(stores: Stores, of_set: PictureSet) -> dict[str, tuple[int, int]]:
    """Picture -> (width, height) in px, of a set's pictures."""
    with stores.db.read() as tx:
        known = pictures.images_of(tx, of_set.project, of_set.image_ids)
    return {image_id: (row["width"], row["height"]) for image_id, row in known.items()}


def is_sent_by(stores: Stores, of_set: PictureSet, visitor: str) -> bool:
    """Whether a visitor sent a set."""
    with stores.db.read() as tx:
        return visitor in rows.senders(tx, of_set.project, [of_set.id])


def has_sent(stores: Stores, project_id: str, image_id: str, visitor: str) -> bool:
    """Whether a visitor sent a set with this picture."""
    with stores.db.read() as tx:
        return visitor in rows.senders(tx, project_id, rows.with_picture(tx, project_id, image_id))


def of_visitor(stores: Stores, project_id: str, visitor: str, limit: int) -> list[PictureSet]:
    """What a visitor sent to a project, the newest first."""
    with stores.db.read() as tx:
        ids = rows.of_visitor(tx, project_id, visitor, limit)
    found = []
    for id_ in ids:
        with contextlib.suppress(UnknownSet):  # taken back at this moment
            found.append(get(stores, id_))
    return found


def _ask(inference: Inference, project_id: str, jpegs: Sequence[bytes]) -> tuple[Ranked | None, Proposed | None]:
    """What the live releases say about a set; None where there is no answer in time."""
    try:
        ranked = inference.rank(project_id, jpegs)
    except (InferenceAway, InferenceRefused) as error:
        get_logger().warning("set kept for later", reason=str(error))
        return None, None
    return ranked, _crop(inference, project_id, jpegs, ranked)


def _crop(inference: Inference, project_id: str, jpegs: Sequence[bytes], ranked: Ranked) -> Proposed | None:
    """The proposed crop of a set's best picture, or None; `record` promises one that did not come."""
    if ranked.best is None:
        return None
    try:
        return inference.crop(project_id, jpegs[ranked.best])
    except (InferenceAway, InferenceRefused) as error:
        get_logger().warning("crop left for later", reason=str(error))
        return None


def _key(project_id: str, image_id: str) -> str:
    return f"{PRODUCTION}/{project_id}/{FOLDER}/{image_id}.jpg"
