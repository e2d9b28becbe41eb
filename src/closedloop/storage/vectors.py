"""Records of embeddings: the unit vector of a picture by an encoder, as it answered or was computed later."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from closedloop.storage.database import insert_new
from closedloop.storage.tables import embeddings, images

_AT_ONCE = 500  # ids in a query


@dataclass(frozen=True)
class Vector:
    """One picture's, by one encoder."""

    image_id: str
    vector: bytes  # float32, little-endian, unit length


def add(tx: sa.Connection, project_id: str, encoder: str, rows: Sequence[Vector], now: dt.datetime) -> int:
    """Keep embeddings that are not there yet, but for those of pictures removed meanwhile; returns how many."""
    added = 0
    for start in range(0, len(rows), _AT_ONCE):
        part = rows[start : start + _AT_ONCE]
        there = sa.select(images.c.id).where(
            images.c.project_id == project_id,
            images.c.id.in_([row.image_id for row in part]),
            images.c.removed_at.is_(None),
        )
        alive = set(tx.execute(there.order_by(images.c.id).with_for_update(key_share=True)).scalars())
        of = {"project_id": project_id, "encoder": encoder, "added_at": now}
        new = [{**of, "image_id": row.image_id, "vector": row.vector} for row in part if row.image_id in alive]
        added += insert_new(tx, embeddings, new)
    return added


def image_ids(tx: sa.Connection, project_id: str, encoder: str) -> list[str]:
    """The pictures of a project that have an embedding."""
    query = sa.select(embeddings.c.image_id).where(
        embeddings.c.project_id == project_id, embeddings.c.encoder == encoder
    )
    return list(tx.execute(query).scalars())


def added_since(tx: sa.Connection, encoder: str, since: dt.datetime) -> list[tuple[str, str]]:
    """(project, picture) of the embeddings that came since a moment."""
    query = sa.select(embeddings.c.project_id, embeddings.c.image_id).where(
        embeddings.c.encoder == encoder, embeddings.c.added_at >= since
    )
    return [(row.project_id, row.image_id) for row in tx.execute(query)]


def removed_since(tx: sa.Connection, since: dt.datetime) -> list[tuple[str, str]]:
    """(project, picture) of the pictures that were removed since a moment."""
    query = sa.select(images.c.project_id, images.c.id).where(images.c.removed_at >= since)
    return [(row.project_id, row.id) for row in tx.execute(query)]


def of(tx: sa.Connection, project_id: str, encoder: str, ids: Sequence[str]) -> list[Vector]:
    """The embeddings of these pictures, as far as there are any, in no order."""
    found: list[Vector] = []
    for start in range(0, len(ids), _AT_ONCE):
        query = sa.select(embeddings.c.image_id, embeddings.c.vector).where(
            embeddings.c.project_id == project_id,
            embeddings.c.encoder == encoder,
            embeddings.c.image_id.in_(ids[start : start + _AT_ONCE]),
        )
        found += [Vector(row.image_id, row.vector) for row in tx.execute(query)]
    return found


def lacking(tx: sa.Connection, project_id: str, encoder: str) -> list[tuple[str, str]]:
    """(picture, its place in the store) of a project's pictures without an embedding, by their ids."""
    has = sa.exists().where(
        embeddings.c.project_id == images.c.project_id,
        embeddings.c.image_id == images.c.id,
        embeddings.c.encoder == encoder,
    )
    query = sa.select(images.c.id, images.c.key).where(
        images.c.project_id == project_id, images.c.removed_at.is_(None), ~has
    )
    return [(row.id, row.key) for row in tx.execute(query.order_by(images.c.id))]
