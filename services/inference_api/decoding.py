"""The pictures of a set decoded while earlier ones are looked at, a few at a time in memory."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from PIL import Image

from closedloop.errors import ClosedloopError, PictureOfSet
from closedloop.image import decode

AT_ONCE = 2  # as many as `decode` lets in


def each_decoded(pictures: Sequence[bytes], size: int) -> Iterator[Image.Image]:
    """Each picture in turn, as `decode` makes it. Raises PictureOfSet with the number and the fault of a bad one."""
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
