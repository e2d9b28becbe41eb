"""From the bytes of a picture to what the encoder sees of it: decoded beside the tower, and looked at with others."""

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from closedloop.errors import TooLate
from closedloop.image import decode
from closedloop.models import saliency
from closedloop.models.encoder import Encoder
from closedloop.processor import cores
from inference_api.batching import GRID, LOOK, Batcher

REMEMBERED = 64 * 2**20  # bytes of what was seen of pictures that may come again
NEVER = float("inf")
T = TypeVar("T")


@dataclass(frozen=True)
class Asked:
    """How a request wants its pictures looked at."""

    deadline: float = NEVER  # `time.monotonic()`
    later: bool = False  # after the pictures of single requests

    def check(self) -> None:
        """Raise TooLate where the deadline is over."""
        if self.deadline < time.monotonic():
            raise TooLate


UNHURRIED = Asked()


@dataclass(frozen=True)
class Laid:
    """What lies where in a picture."""

    cells: np.ndarray  # float32 (side, side, channels)
    saliency: np.ndarray  # float32 (side, side)
    aspect: float  # width over height


class Pipeline:
    """Decodes in threads of its own, one a core, looks through a `Batcher`, and remembers what it saw."""

    def __init__(self) -> None:
        self.batcher = Batcher()
        self._decoders = ThreadPoolExecutor(cores(), thread_name_prefix="decoding")
        self._seen: OrderedDict[tuple[str, bytes], tuple[np.ndarray, np.ndarray]] = OrderedDict()
        self._bytes = 0
        self.hits: Callable[[], None] = lambda: None  # told when what comes again was remembered

    def start(self) -> None:
        """Be ready to look."""
        self.batcher.start()

    def stop(self) -> None:
        """Finish what was begun."""
        self._decoders.shutdown(cancel_futures=True)
        self.batcher.stop()

    async def look(self, encoder: Encoder, data: bytes, asked: Asked = UNHURRIED) -> tuple[np.ndarray, np.ndarray]:
        """A picture's vector (dimension,) and texture. Raises the errors of `decode`, and TooLate."""
        key = encoder.digest, hashlib.sha256(data).digest()
        if known := self._seen.get(key):
            self._seen.move_to_end(key)
            self.hits()
            return known
        with self.batcher.coming():
            pixels = await self._decoded(lambda: encoder.prepare(decode(data, encoder.size)), asked)
            seen = self._submit(encoder, LOOK, pixels, asked)
        vector, texture = await seen
        self._remember(key, (vector, texture))
        return vector, texture

    async def grid(self, encoder: Encoder, data: bytes, asked: Asked = UNHURRIED) -> Laid:
        """What lies where in a picture. Raises as `look` does."""

        def prepare() -> tuple[np.ndarray, np.ndarray, float]:
            image = decode(data, encoder.grid_size)
            salient = saliency.saliency(image, encoder.grid_side)
            return encoder.prepare_grid(image), salient, image.width / image.height

        with self.batcher.coming():
            pixels, salient, aspect = await self._decoded(prepare, asked)
            seen = self._submit(encoder, GRID, pixels, asked)
        (cells,) = await seen
        return Laid(cells, salient, aspect)

    async def check(self, encoder: Encoder, data: bytes, asked: Asked = UNHURRIED) -> None:
        """Raise what `look` would raise, without looking."""
        await self._decoded(lambda: decode(data, encoder.size), asked)

    async def _decoded(self, work: Callable[[], T], asked: Asked) -> T:
        def in_time() -> T:
            self.batcher.resting.wait()
            asked.check()
            return work()

        return await asyncio.wrap_future(self._decoders.submit(in_time))

    def _submit(
        self, encoder: Encoder, way: str, pixels: np.ndarray, asked: Asked
    ) -> "asyncio.Future[tuple[np.ndarray, ...]]":
        return asyncio.wrap_future(self.batcher.submit(encoder.tower, way, pixels, asked.deadline, asked.later))

    def _remember(self, key: tuple[str, bytes], seen: tuple[np.ndarray, np.ndarray]) -> None:
        if key not in self._seen:
            # Copies: a row of what was seen of several would keep all of them.
            self._seen[key] = seen[0].copy(), seen[1].copy()
            self._bytes += sum(part.nbytes for part in seen)
        while self._bytes > REMEMBERED:
            _, gone = self._seen.popitem(last=False)
            self._bytes -= sum(part.nbytes for part in gone)
