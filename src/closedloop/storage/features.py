"""Records of what was computed of pictures, once per encoder: which part (a Parquet file) holds which picture."""

import datetime as dt
from collections.abc import Iterable, Sequence

import sqlalchemy as sa

from closedloop.storage.database import insert_new
from closedloop.storage.tables import feature_parts, feature_pictures, images


class InAnotherPart(Exception):
    """Somebody else has computed one of these pictures meanwhile."""


def parts_with(tx: sa.Connection, project_id: str, encoder: str, kind: str, ids: Iterable[str]) -> dict[str, str]:
    """Picture -> the part that holds it, of those that are in one."""
    found: dict[str, str] = {}
    ids = list(ids)
    for start in range(0, len(ids), 500):
        query = sa.select(feature_pictures.c.image_id, feature_pictures.c.part_id).where(
            feature_pictures.c.project_id == project_id,
            feature_pictures.c.encoder == encoder,
            feature_pictures.c.kind == kind,
            feature_pictures.c.image_id.in_(ids[start : start + 500]),
        )
        found.update((row.image_id, row.part_id) for row in tx.execute(query))
    return found


def add_part(
    tx: sa.Connection, project_id: str, encoder: str, id_: str, kind: str, ids: Sequence[str], now: dt.datetime
) -> bool:
    """Record a part with its pictures; False, and nothing is recorded, where one of them was removed meanwhile.

    Raises InAnotherPart, which must end the transaction: a part that no picture leads to would outlive its pictures.
    """
    alive = sa.select(images.c.id).where(
        images.c.project_id == project_id, images.c.id.in_(ids), images.c.removed_at.is_(None)
    )
    if len(tx.execute(alive.order_by(images.c.id).with_for_update(key_share=True)).all()) < len(ids):
        return False
    part = {"project_id": project_id, "encoder": encoder, "id": id_, "kind": kind, "created_at": now}
    insert_new(tx, feature_parts, part)
    of_part = {"project_id": project_id, "encoder": encoder, "kind": kind, "part_id": id_}
    if insert_new(tx, feature_pictures, [{**of_part, "image_id": image_id} for image_id in ids]) < len(ids):
        raise InAnotherPart
    return True


def drop_parts(tx: sa.Connection, project_id: str, image_id: str) -> list[tuple[str, str, str]]:
    """Forget every part that holds a picture: (encoder, kind, id) of each. The other pictures are computed anew."""
    of_picture = sa.select(feature_pictures.c.encoder, feature_pictures.c.kind, feature_pictures.c.part_id).where(
        feature_pictures.c.project_id == project_id, feature_pictures.c.image_id == image_id
    )
    dropped = [(row.encoder, row.kind, row.part_id) for row in tx.execute(of_picture.distinct())]
    for encoder, _, part_id in dropped:
        drop_part(tx, project_id, encoder, part_id)
    return dropped


def drop_part(tx: sa.Connection, project_id: str, encoder: str, part_id: str) -> None:
    """Forget a part: its pictures are computed anew when somebody wants them."""
    for table, column in ((feature_pictures, feature_pictures.c.part_id), (feature_parts, feature_parts.c.id)):
        own = (table.c.project_id == project_id) & (table.c.encoder == encoder) & (column == part_id)
        tx.execute(table.delete().where(own))
