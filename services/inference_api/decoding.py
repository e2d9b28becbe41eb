"""The pictures of a set: decoded while earlier ones are looked at, some together, never many in memory."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from PIL import Image

from closedloop.errors import ClosedloopError, PictureOfSet
from closedloop.image import decode

AT_ONCE = 2  # as many as `decode` lets in
TOGETHER = 4  # pictures of one pass of the encoder: fewer keep waiting for its threads, more for the decoder
PIXELS_TOGETHER = 10_000_000  # 30 MB; a stored JPEG is decoded to far less, another caller's PNG in full


def in_batches(pictures: Sequence[bytes], size: int) -> Iterator[list[Image.Image]]:
    """The pictures in their order, as `decode` makes them, some at a time.

    Raises PictureOfSet with the number and the fault of a bad one.
    """
    batch: list[Image.Image] = []
    pixels = 0
    for image in _decoded(pictures, size):
        batch.append(image)
        pixels += image.width * image.height
        if len(batch) == TOGETHER or pixels > PIXELS_TOGETHER:
            yield batch
            batch, pixels = [], 0
    if batch:
        yield batch


def _decoded(pictures: Sequence[bytes], size: int) -> Iterator[Image.Image]:
    coming: deque[Future[Image.Image]] = deque()
    waiting = deque(pictures)
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="decoding") as pool:
        try:
            for number in range(1, len(pictures) + 1):
                while waiting and len(coming) < AT_ONCE:
                    coming.append(pool.submit(decode, waiting.popleft(), size))
                try:
                    yield coming.popleft().result()
                except ClosedloopError as fault:
                    raise PictureOfSet.of(number, fault) from None
        finally:
            for future in coming:
                future.cancel()
