"""From the bytes of a picture to what the encoder sees of it, by the `Workers`; what was seen lately is remembered."""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from closedloop.image import decode
from closedloop.models import saliency
from closedloop.models.encoder import Encoder
from closedloop.processor import cores
from inference_api.workers import GRID, LOOK, Seen, Workers

REMEMBERED = 64 * 2**20  # bytes of what was seen of pictures that may come again
NEVER = float("inf")


@dataclass(frozen=True)
class Asked:
    """How a request wants its pictures looked at."""

    deadline: float = NEVER  # `time.monotonic()`
    later: bool = False  # after the pictures of single requests


UNHURRIED = Asked()


@dataclass(frozen=True)
class Laid:
    """What lies where in a picture."""

    cells: np.ndarray  # float32 (side, side, channels)
    saliency: np.ndarray  # float32 (side, side)
    aspect: float  # width over height


class Pipeline:
    """Has pictures decoded and looked at by its workers, and remembers what they saw."""

    def __init__(self) -> None:
        self.workers = Workers(cores())
        self._seen: OrderedDict[tuple[str, bytes], tuple[np.ndarray, np.ndarray]] = OrderedDict()
        self._bytes = 0
        self.hits: Callable[[], None] = lambda: None  # told when what comes again was remembered

    def start(self) -> None:
        """Be ready to look."""
        self.workers.start()

    def stop(self) -> None:
        """See to what waits, then end."""
        self.workers.stop()

    async def look(self, encoder: Encoder, data: bytes, asked: Asked = UNHURRIED) -> tuple[np.ndarray, np.ndarray]:
        """A picture's vector (dimension,) and texture. Raises the errors of `decode`, and TooLate."""
        key = encoder.digest, hashlib.sha256(data).digest()
        if known := self._seen.get(key):
            self._seen.move_to_end(key)
            self.hits()
            return known
        vector, texture = await self._worked(encoder, LOOK, lambda: encoder.prepare(decode(data, encoder.size)), asked)
        self._remember(key, (vector, texture))
        return vector, texture

    async def grid(self, encoder: Encoder, data: bytes, asked: Asked = UNHURRIED) -> Laid:
        """What lies where in a picture. Raises as `look` does."""

        salient, aspect = np.empty(0), 1.0

        def prepare() -> np.ndarray:
            nonlocal salient, aspect
            image = decode(data, encoder.grid_size)
            salient, aspect = saliency.saliency(image, encoder.grid_side), image.width / image.height
            return encoder.prepare_grid(image)

        (cells,) = await self._worked(encoder, GRID, prepare, asked)
        return Laid(cells, salient, aspect)

    async def check(self, encoder: Encoder, data: bytes, asked: Asked = UNHURRIED) -> None:
        """Raise what `look` would raise, without looking."""

        def prepare() -> None:
            decode(data, encoder.size)

        await self._worked(encoder, None, prepare, asked)

    async def _worked(
        self, encoder: Encoder, way: str | None, prepare: Callable[[], np.ndarray | None], asked: Asked
    ) -> Seen:
        return await asyncio.wrap_future(self.workers.submit(encoder.tower, way, prepare, asked.deadline, asked.later))

    def _remember(self, key: tuple[str, bytes], seen: tuple[np.ndarray, np.ndarray]) -> None:
        if key not in self._seen:
            # Copies: a row of what was seen of several would keep all of them.
            self._seen[key] = seen[0].copy(), seen[1].copy()
            self._bytes += sum(part.nbytes for part in seen)
        while self._bytes > REMEMBERED:
            _, gone = self._seen.popitem(last=False)
            self._bytes -= sum(part.nbytes for part in gone)
