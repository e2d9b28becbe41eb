"""Embeds the pictures of a project that have no embedding yet: imported ones, those of the time of another encoder.

Reading from the store goes ahead of decoding, and decoding of the tower, so that the tower never waits. What was seen
is kept in parts, so that a run that is stopped goes on where it was.
"""

import datetime as dt
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from closedloop.errors import ClosedloopError, StoreAway
from closedloop.features import Progress
from closedloop.image import decode
from closedloop.models.backends import most
from closedloop.models.encoder import Encoder
from closedloop.processor import cores
from closedloop.storage import Stores, vectors
from closedloop.storage.objects import Objects
from closedloop.storage.vectors import Vector

PART = 256  # pictures in a transaction
READERS = 16  # that wait for the store at once
AHEAD = 4  # times what keeps the tower busy: pictures that are read or decoded before they are looked at
MISSING = "its file is not in the store"


@dataclass(frozen=True)
class Picture:
    """A picture to be embedded."""

    image_id: str
    key: str  # in the store


@dataclass(frozen=True)
class Seen:
    """What became of a picture: its vector, or why there is none."""

    image_id: str
    vector: bytes = b""
    fault: str = ""


@dataclass
class Embedded:
    """What a run did."""

    embedded: int = 0
    faults: dict[str, str] = field(default_factory=dict)  # by picture: why it has no vector


Look = Callable[[Sequence[Picture]], Iterable[Seen]]


def run(
    stores: Stores, project_id: str, encoder: str, look: Look, clock: Callable[[], dt.datetime], progress: Progress
) -> Embedded:
    """Embed what lacks an embedding by the encoder of this digest.

    Raises StoreAway, DatabaseAway, and what `look` raises.
    """
    with stores.db.read() as tx:
        lacking = [Picture(*row) for row in vectors.lacking(tx, project_id, encoder)]
    done = Embedded()
    progress(0, len(lacking))
    if not lacking:
        return done
    seen = iter(look(lacking))
    while part := list(islice(seen, PART)):
        done.faults |= {one.image_id: one.fault for one in part if one.fault}
        rows = [Vector(one.image_id, one.vector) for one in part if not one.fault]
        with stores.db.write() as tx:
            done.embedded += vectors.add(tx, project_id, encoder, rows, clock())
        progress(done.embedded + len(done.faults), len(lacking))
    return done


def looked_at(objects: Objects, encoder: Encoder, pictures: Iterable[Picture]) -> Iterator[Seen]:
    """What an encoder sees of pictures, in their order, at the tower's own rate. Raises StoreAway."""
    prepared = read_ahead(objects, encoder, pictures)
    while batch := list(islice(prepared, most(encoder.tower))):
        yield from _seen(encoder, batch)


def read_ahead(
    objects: Objects, encoder: Encoder, pictures: Iterable[Picture]
) -> Iterator[tuple[Picture, np.ndarray | str]]:
    """What the tower takes of each picture, in their order, or why there is nothing to look at. Raises StoreAway."""
    rows, ahead = iter(pictures), deque[tuple[Picture, Future[Future[np.ndarray]]]]()
    with ThreadPoolExecutor(READERS) as readers, ThreadPoolExecutor(cores()) as decoders:

        def prepared(data: bytes) -> np.ndarray:
            return encoder.prepare(decode(data, encoder.size))

        def read(picture: Picture) -> Future[np.ndarray]:
            return decoders.submit(prepared, objects.get(picture.key))

        try:
            while True:
                for picture in islice(rows, AHEAD * most(encoder.tower) - len(ahead)):
                    ahead.append((picture, readers.submit(read, picture)))
                if not ahead:
                    return
                picture, reading = ahead.popleft()
                yield picture, _pixels(reading)
        finally:
            readers.shutdown(cancel_futures=True)


def _pixels(reading: Future[Future[np.ndarray]]) -> np.ndarray | str:
    """What the tower takes, or why there is nothing to look at."""
    try:
        return reading.result().result()
    except FileNotFoundError:
        return MISSING
    except StoreAway:
        raise
    except ClosedloopError as error:
        return str(error)


def _seen(encoder: Encoder, prepared: list[tuple[Picture, np.ndarray | str]]) -> Iterator[Seen]:
    pixels = [of for _, of in prepared if not isinstance(of, str)]
    found = iter(encoder.tower.look(np.stack(pixels))[0] if pixels else ())
    for picture, of in prepared:
        if isinstance(of, str):
            yield Seen(picture.image_id, fault=of)
        else:
            yield Seen(picture.image_id, next(found).astype("<f4").tobytes())
