"""Which kept pictures are similar to one: exact, and in step with the records without ever being built anew.

A thread of its own follows the embeddings that answers and `closedloop embed` bring, into a file for each project.
"""

import asyncio
import contextlib
import datetime as dt
import fcntl
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from closedloop.errors import UnknownProject, VectorsNotRead
from closedloop.storage import Stores, vectors
from inference_api.pipeline import UNHURRIED, Asked
from inference_api.serving import Serving
from inference_api.vector_file import Neighbour, VectorFile
from inference_api.watching import Watcher

OVERLAP = dt.timedelta(seconds=60)  # looked at again: transactions that were open, clocks that differ
ALL_EVERY = dt.timedelta(hours=1)  # so often everything is compared
PART = 2_000  # vectors that are read at once
REPLICAS = 64  # on one machine, that share a folder


class Similar(Watcher):
    """The pictures' vectors by project, for the encoder that is served."""

    def __init__(
        self, serving: Serving, stores: Callable[[], Stores], folder: Path, clock: Callable[[], dt.datetime]
    ) -> None:
        super().__init__("vectors", stores)
        self._serving, self._folder, self._clock = serving, folder, clock
        self._own = contextlib.ExitStack()  # holds the folder that is ours
        self._ours: Path | None = None
        self._encoder: str | None = None
        self._files: dict[str, VectorFile] = {}  # by project
        self._searched: dict[tuple[str, str], VectorFile] = {}  # by encoder and project
        self._compared: set[str] = set()  # projects whose file has all that there is, and is followed
        self._followed_to = self._compared_at = clock()

    def stop(self) -> None:
        """End the thread, and let another replica have the folder."""
        super().stop()
        self._own.close()

    async def similar(self, project_id: str, count: int, data: bytes, asked: Asked = UNHURRIED) -> dict[str, Any]:
        """The `count` pictures of a project that are most similar to one: ids and cosines, and among how many.

        Raises UnknownProject, VectorsNotRead before the first look, and the errors of `Pipeline.look`.
        """
        if project_id not in self._serving.snapshot().projects:
            raise UnknownProject(project=project_id[:40])
        vector, now = await self._serving.embed(data, asked)
        file = self._searched.get((now.chosen.digest, project_id))
        if file is None:
            raise VectorsNotRead(project=project_id)
        found: list[Neighbour] = await asyncio.to_thread(file.nearest, vector, count)
        return {
            "ok": True,
            "similar": [{"image_id": one.image_id, "similarity": one.similarity} for one in found],
            "among": len(file),
            "encoder": now.chosen.digest,
        }

    def look(self, stores: Stores) -> None:
        """Read what came since the last look, and forget what was removed."""
        if (now := self._serving.current) is None:
            return
        folder = self._ours = self._ours or self._own.enter_context(_folder_of_ours(self._folder))
        encoder, moment = now.chosen.digest, self._clock()
        if encoder != self._encoder:
            self._change(encoder, folder)
        for project_id in set(now.projects) - set(self._files):
            self._files[project_id] = VectorFile(folder / encoder / project_id, now.encoder.dimension)
            if len(self._files[project_id]):  # with the records away, what was known last is searched
                self._searched[encoder, project_id] = self._files[project_id]
        if moment - self._compared_at > ALL_EVERY:
            self._compared, self._compared_at = set(), moment
        if self._compared:
            with stores.db.read() as tx:
                gone = vectors.removed_since(tx, self._followed_to - OVERLAP)
                came = vectors.added_since(tx, encoder, self._followed_to - OVERLAP)
            for project_id, ids in _by_project(gone, self._compared):
                again = {id_ for of, id_ in came if of == project_id}
                self._files[project_id].remove(sorted(set(ids) - again))
            for project_id, ids in _by_project(came, self._compared):
                self._read(stores, encoder, project_id, ids)
        for project_id in set(self._files) - self._compared:
            with stores.db.read() as tx:
                there = set(vectors.image_ids(tx, project_id, encoder))
            file = self._files[project_id]
            file.remove(sorted(file.ids() - there))
            self._read(stores, encoder, project_id, there)
            self._searched[encoder, project_id] = file
            self._compared.add(project_id)
        self._followed_to = moment

    def _read(self, stores: Stores, encoder: str, project_id: str, ids: Iterable[str]) -> None:
        """Read the vectors of the pictures that are not in the project's file."""
        file = self._files[project_id]
        new = sorted(id_ for id_ in ids if id_ not in file)
        for start in range(0, len(new), PART):
            if self._over.is_set():
                return
            with stores.db.read() as tx:
                rows = vectors.of(tx, project_id, encoder, new[start : start + PART])
            if rows:
                matrix = np.stack([np.frombuffer(row.vector, "<f4") for row in rows])
                file.add([row.image_id for row in rows], matrix)

    def _change(self, encoder: str, folder: Path) -> None:
        """Begin with another encoder; what former ones saw is of no use."""
        files, self._files, self._searched = self._files, {}, {}
        self._encoder, self._compared = encoder, set()
        for file in files.values():
            file.close()
        for former in folder.iterdir():
            if former.is_dir() and former.name != encoder:
                shutil.rmtree(former, ignore_errors=True)


def _by_project(pairs: Sequence[tuple[str, str]], known: set[str]) -> Iterator[tuple[str, list[str]]]:
    for project_id in {project_id for project_id, _ in pairs} & known:
        yield project_id, [id_ for of, id_ in pairs if of == project_id]


@contextlib.contextmanager
def _folder_of_ours(folder: Path) -> Iterator[Path]:
    """The first folder in which no other replica on this machine is at work. Raises OSError."""
    for number in range(REPLICAS):
        own = folder / str(number)
        own.mkdir(parents=True, exist_ok=True)
        with (own / "taken").open("wb") as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            yield own
            return
    raise OSError(f"{REPLICAS} replicas are at work in {folder}")
