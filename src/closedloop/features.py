"""What is computed of pictures once per encoder, and kept in Parquet beside them, for whoever learns from it.

A part is one file of some hundred pictures, named by its pictures, so that a run that is killed goes on where it was.
There are three kinds: `vector`, `look` (the vector beside the texture, for a ranker) and `grid` (what lies where, for a
crop proposer). All are what the encoder's reference sees, and not what uploads bring with their answers: backends that
serve agree with it to some digits alone, and a release must be able to be made again. A picture that is removed takes
its parts with it: the others are computed anew when somebody wants them.
"""

import datetime as dt
import io
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from closedloop import feature_places
from closedloop.errors import EncoderUnavailable, PictureRemoved
from closedloop.image import decode
from closedloop.models import saliency
from closedloop.models.encoder import Encoder
from closedloop.storage import Stores, asking, features, pictures

VECTOR, LOOK, GRID = "vector", "look", "grid"
PART = 256  # pictures
AT_ONCE = 8  # that are read and decoded together
ABANDONED = dt.timedelta(hours=1)  # after which the file of a part that no record names is removed
Progress = Callable[[int, int], None]  # done, of
Stages = Callable[[str], Progress]  # the title of what begins now
_NUMBERS = {"vector": pa.float32(), "texture": pa.float32(), "grid": pa.float16(), "saliency": pa.float32()}


@dataclass(frozen=True)
class Grids:
    """What a crop proposer sees of n pictures."""

    grids: np.ndarray  # (n, s, s, c) float16, each cell of about unit length
    aspects: np.ndarray  # (n,) width / height
    saliencies: np.ndarray  # (n, s, s) float32


class Features:
    """What was computed of a project's pictures by one encoder; `encoder` is called when something is missing.

    Methods raise StoreAway, DatabaseAway, EncoderUnavailable, and PictureRemoved where a picture is removed meanwhile.
    """

    def __init__(
        self,
        stores: Stores,
        project_id: str,
        digest: str,
        encoder: Callable[[], Encoder],
        clock: Callable[[], dt.datetime],
        stages: Stages | None = None,
    ) -> None:
        self._stores, self._project_id, self._digest = stores, project_id, digest
        self._encoder, self._clock, self._stages = encoder, clock, stages
        self._loaded: Encoder | None = None

    def of_project(self, project_id: str) -> "Features":
        """The same of another project's pictures."""
        return Features(self._stores, project_id, self._digest, self._loaded_once, self._clock, self._stages)

    def vectors(self, image_ids: Sequence[str]) -> np.ndarray:
        """The pictures' embeddings, (n, d) float32, each of unit length."""
        read = self._read(VECTOR, image_ids, ("vector",), self._vectors)
        return read["vector"] if len(image_ids) else np.empty((0, 0), np.float32)

    def looks(self, image_ids: Sequence[str]) -> np.ndarray:
        """The embeddings beside the textures, (n, d + t) float32."""
        read = self._read(LOOK, image_ids, ("vector", "texture"), self._looks)
        if not len(image_ids):
            return np.empty((0, 0), np.float32)
        return np.concatenate([read["vector"], read["texture"]], axis=1)

    def grids(self, image_ids: Sequence[str]) -> Grids:
        """What a crop proposer sees of the pictures."""
        read = self._read(GRID, image_ids, ("grid", "saliency", "width", "height"), self._grids)
        n = len(image_ids)
        if not n:
            return Grids(np.empty((0, 0, 0, 0), np.float16), np.empty(0), np.empty((0, 0, 0), np.float32))
        cells = read["saliency"].shape[1]
        side = round(cells**0.5)
        return Grids(
            read["grid"].reshape(n, side, side, -1),
            read["width"] / read["height"],
            read["saliency"].reshape(n, side, side),
        )

    def _read(
        self,
        kind: str,
        image_ids: Sequence[str],
        columns: Sequence[str],
        compute: Callable[[list[str]], dict[str, Any]],
    ) -> dict[str, np.ndarray]:
        """Columns of these pictures in their order, part by part, so that nothing is twice in memory."""
        wanted = list(dict.fromkeys(image_ids))
        with self._stores.db.read() as tx:
            known = features.parts_with(tx, self._project_id, self._digest, kind, wanted)
        missing = [id_ for id_ in wanted if id_ not in known]
        self._there(missing)  # before an encoder is loaded, and thousands are computed, for one that is gone
        progress = self._stages("looking at pictures") if self._stages and missing else None
        for start in range(0, len(missing), PART):
            part = missing[start : start + PART]
            known.update(self._compute(kind, part, compute, progress, start, len(missing)))
        rows: dict[str, list[int]] = {}
        for row, id_ in enumerate(image_ids):
            rows.setdefault(id_, []).append(row)
        found: dict[str, np.ndarray] = {}
        for part_id in dict.fromkeys(known[id_] for id_ in wanted):
            table = self._table(kind, part_id, columns)
            of_part = table.column("image_id").to_pylist()
            pairs = [(at, row) for at, id_ in enumerate(of_part) for row in rows.get(id_, ())]
            here, there = np.array([at for at, _ in pairs]), np.array([row for _, row in pairs])
            for name in columns:
                values = _array(table.column(name))
                if name not in found:
                    found[name] = np.empty((len(image_ids), *values.shape[1:]), values.dtype)
                found[name][there] = values[here]
        return found

    def _table(self, kind: str, part_id: str, columns: Sequence[str]) -> pa.Table:
        place = feature_places.key(self._project_id, self._digest, kind, part_id)
        try:
            data = self._stores.objects.get(place)
            return pq.read_table(io.BytesIO(data), columns=["image_id", *columns])
        except (FileNotFoundError, pa.ArrowException):  # removed with a picture since the records were read, or lost
            with self._stores.db.write() as tx:
                features.drop_part(tx, self._project_id, self._digest, part_id)  # it is made anew
            raise PictureRemoved from None

    def _compute(
        self,
        kind: str,
        ids: list[str],
        compute: Callable[[list[str]], dict[str, Any]],
        progress: Progress | None,
        done: int,
        total: int,
    ) -> dict[str, str]:
        """Compute a part, put its file, record it; picture -> part."""
        columns: dict[str, list[Any]] = {}
        for start in range(0, len(ids), AT_ONCE):
            for name, values in compute(ids[start : start + AT_ONCE]).items():
                columns.setdefault(name, []).append(values)
            if progress:
                progress(done + min(start + AT_ONCE, len(ids)), total)
        with self._stores.db.read() as tx:
            there = pictures.images_of(tx, self._project_id, ids)
        plain = {name: [there[id_][name] for id_ in ids] for name in ("phash", "width", "height")}
        lists = {name: _lists(name, np.concatenate(values)) for name, values in columns.items()}
        buffer = io.BytesIO()
        pq.write_table(pa.table({"image_id": ids, **plain, **lists}), buffer, compression="zstd")
        part_id = uuid.uuid4().hex
        place = feature_places.key(self._project_id, self._digest, kind, part_id)
        with self._stores.db.write() as tx:  # should this process die, or a picture be removed, before it is recorded
            asking.promise(tx, "forget", place, self._clock() + ABANDONED)
        self._stores.objects.put(place, buffer.getvalue())
        try:
            with self._stores.db.write() as tx:
                if not features.add_part(tx, self._project_id, self._digest, part_id, kind, ids, self._clock()):
                    raise PictureRemoved
                asking.take_back_promise(tx, "forget", place)
        except PictureRemoved:
            self._forget(place)
            raise
        except features.InAnotherPart:  # which is as good
            self._forget(place)
            with self._stores.db.read() as tx:
                there = features.parts_with(tx, self._project_id, self._digest, kind, ids)
            rest = [id_ for id_ in ids if id_ not in there]
            return there | (self._compute(kind, rest, compute, progress, done, total) if rest else {})
        return dict.fromkeys(ids, part_id)

    def _forget(self, place: str) -> None:
        """Have the file of a part that no record will name removed now: the sampler alone may."""
        with self._stores.db.write() as tx:
            asking.take_back_promise(tx, "forget", place)
            asking.promise(tx, "forget", place, self._clock())

    def _vectors(self, ids: list[str]) -> dict[str, Any]:
        return {"vector": one_by_one(self._tower.embed, self._decoded(ids, self._tower.size))}

    def _looks(self, ids: list[str]) -> dict[str, Any]:
        images = self._decoded(ids, self._tower.size)
        seen = [self._tower.embed_with_texture([image]) for image in images]
        vectors, textures = (np.concatenate(parts) for parts in zip(*seen, strict=True))
        return {"vector": vectors, "texture": textures, "saliency": self._salient(images)}

    def _grids(self, ids: list[str]) -> dict[str, Any]:
        images = self._decoded(ids, self._tower.grid_size)
        maps = one_by_one(self._tower.grid, images).astype(np.float16)
        return {"grid": maps.reshape(len(ids), -1), "saliency": self._salient(images)}

    def _salient(self, images: Sequence[Any]) -> np.ndarray:
        side = self._tower.grid_side
        return np.stack([saliency.saliency(image, side).ravel() for image in images]).astype(np.float32)

    def _loaded_once(self) -> Encoder:
        if self._loaded is None:
            self._loaded = self._encoder()
            if self._loaded.digest != self._digest:
                reason = "its weights are not those that this installation records."
                raise EncoderUnavailable(name=self._loaded.name, reason=reason)
        return self._loaded

    @property
    def _tower(self) -> Encoder:
        return self._loaded_once()

    def _there(self, ids: Sequence[str]) -> dict[str, Any]:
        """Records of these pictures; PictureRemoved where one is gone."""
        with self._stores.db.read() as tx:
            there = pictures.images_of(tx, self._project_id, ids)
        if len([row for row in there.values() if row["removed_at"] is None]) < len(set(ids)):
            raise PictureRemoved
        return there

    def _decoded(self, ids: Sequence[str], size: int) -> list[Any]:
        there = self._there(ids)

        def one(id_: str) -> Any:
            try:
                return decode(self._stores.objects.get(there[id_]["key"]), size)
            except FileNotFoundError:
                raise PictureRemoved from None

        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(one, ids))


def one_by_one(look: Callable[[list[Any]], np.ndarray], images: Sequence[Any]) -> np.ndarray:
    """What an encoder says of pictures, each looked at alone.

    So it does not depend on who comes with whom, to the last bit, and a release can be made again after the pictures
    beside its own were removed. On a CPU it is no slower; grids take half as long as by eights.
    """
    return np.concatenate([look([image]) for image in images])


def _lists(name: str, values: np.ndarray) -> pa.Array:
    flat = pa.array(np.ascontiguousarray(values).ravel(), _NUMBERS[name])
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def _array(column: pa.ChunkedArray) -> np.ndarray:
    """A column as an array: (n,), or (n, width) of lists."""
    whole = column.combine_chunks()
    if pa.types.is_fixed_size_list(whole.type):
        return whole.flatten().to_numpy(zero_copy_only=False).reshape(len(whole), -1)
    return whole.to_numpy(zero_copy_only=False)
