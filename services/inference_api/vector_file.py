"""The unit vectors of a project's pictures on disk, mapped into memory, for exact search in one matrix product.

Two files: rows of numbers, and rows of names. A row counts once its name is written, and its vector is of unit length;
so whatever a power cut leaves of the last rows is found at the next start, and read from the records again.
"""

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

NAME = 32  # characters of a picture's id
AT_ONCE = 65_536  # rows that are looked at together when the file is opened
HOLES = 0.1  # the share of rows without a picture from which on the file is made anew
_NOBODY = bytes(NAME)


@dataclass(frozen=True)
class Neighbour:
    """A picture that is similar to the one asked about."""

    image_id: str
    similarity: float  # cosine, -1 to 1


class VectorFile:
    """Vectors by the ids of their pictures. One thread changes it, any number search."""

    def __init__(self, place: Path, dimension: int) -> None:
        """`place` is the files' path without its ending. Raises OSError."""
        place.parent.mkdir(parents=True, exist_ok=True)
        self._dimension = dimension
        self._width = 4 * dimension
        self._numbers = os.open(place.with_suffix(".vectors"), os.O_RDWR | os.O_CREAT, 0o600)
        self._names = os.open(place.with_suffix(".names"), os.O_RDWR | os.O_CREAT, 0o600)
        self._rows: dict[str, int] = {}
        self._used = 0  # rows that were ever written
        self._changing = threading.Lock()
        self._map()
        self._read()

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, image_id: str) -> bool:
        return image_id in self._rows

    def ids(self) -> set[str]:
        """The pictures that are in it."""
        return set(self._rows)

    def add(self, ids: Sequence[str], vectors: np.ndarray) -> None:
        """Add pictures that are not in it; `vectors` float32 (n, dimension), of unit length. Raises OSError."""
        with self._changing:
            if self._used + len(ids) > len(self._mapped):
                self._grow(self._used + len(ids))
            _write(self._numbers, np.ascontiguousarray(vectors, "<f4").tobytes(), self._used * self._width)
            _write(self._names, "".join(ids).encode(), self._used * NAME)
            for number, image_id in enumerate(ids):
                self._rows[image_id] = self._used + number
            self._used += len(ids)

    def remove(self, ids: Sequence[str]) -> None:
        """Forget pictures; those that are not in it are none of its business. Raises OSError."""
        with self._changing:
            for image_id in ids:
                if (row := self._rows.pop(image_id, None)) is not None:
                    _write(self._names, _NOBODY, row * NAME)
                    _write(self._numbers, bytes(self._width), row * self._width)

    def nearest(self, vector: np.ndarray, count: int) -> list[Neighbour]:
        """The `count` pictures with the greatest cosine to a unit vector (dimension,), the most similar first."""
        with self._changing:
            numbers, names = self._mapped[: self._used], self._named[: self._used]
            holes = self._used - len(self._rows)
        if not len(numbers):
            return []
        cosines = numbers @ np.asarray(vector, np.float32)
        wanted = min(count + holes, len(cosines))  # a row without a picture is as good as one across
        best = np.argpartition(-cosines, wanted - 1)[:wanted]
        best = best[np.argsort(-cosines[best], kind="stable")]
        found = ((names[row], cosines[row]) for row in best)
        return [Neighbour(bytes(name).decode(), float(cosine)) for name, cosine in found if name.any()][:count]

    def close(self) -> None:
        """Let go of the files; a search that is under way ends well."""
        os.close(self._numbers)
        os.close(self._names)

    def _map(self) -> None:
        """Map both files, as far as they have whole rows."""
        rows = min(os.fstat(self._numbers).st_size // self._width, os.fstat(self._names).st_size // NAME)
        self._mapped = _mapped(self._numbers, np.dtype("<f4"), (rows, self._dimension))
        self._named = _mapped(self._names, np.dtype("u1"), (rows, NAME))

    def _grow(self, rows: int) -> None:
        rows = max(1024, 2 * rows)  # the file is sparse: what is not used takes no room
        os.ftruncate(self._numbers, rows * self._width)
        os.ftruncate(self._names, rows * NAME)
        self._map()

    def _read(self) -> None:
        """Find out what is in the files; what is not whole is forgotten."""
        for start in range(0, len(self._mapped), AT_ONCE):
            names = self._named[start : start + AT_ONCE]
            lengths = np.einsum("nd,nd->n", *[self._mapped[start : start + AT_ONCE]] * 2)
            named = names.any(axis=1)
            whole = named & (np.abs(lengths - 1) < 0.01)
            for row in np.flatnonzero(whole):
                self._rows[names[row].tobytes().decode("ascii", "replace")] = start + int(row)
            for row in np.flatnonzero(named & ~whole):
                _write(self._names, _NOBODY, (start + int(row)) * NAME)
        self._used = 1 + max(self._rows.values(), default=-1)
        if self._used - len(self._rows) > HOLES * self._used:  # holes: what was removed
            os.ftruncate(self._numbers, 0)
            os.ftruncate(self._names, 0)
            self._rows, self._used = {}, 0
            self._map()


def _write(file: int, data: bytes, at: int) -> None:
    """Through the file rather than the map: a disk that is full is an error then, and not the end of the process."""
    while data:
        written = os.pwrite(file, data, at)
        data, at = data[written:], at + written


def _mapped(file: int, kind: np.dtype, shape: tuple[int, int]) -> np.ndarray:
    if not shape[0]:
        return np.empty(shape, kind)
    with os.fdopen(os.dup(file), "rb") as opened:
        return np.asarray(np.memmap(opened, kind, "r", shape=shape))
