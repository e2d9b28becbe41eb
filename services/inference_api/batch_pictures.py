"""The pictures of a batch as they come: of a form (RFC 7578), or of a tar (POSIX.1-2017, pax)."""

import asyncio
import contextlib
import queue
import tarfile
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

from python_multipart.multipart import parse_options_header
from starlette.requests import ClientDisconnect, Request

from closedloop.errors import BadRequest, ClosedloopError, UploadTooLarge
from inference_api.bodies import MAX_BODY, Form

MOST = 10_000  # pictures of a batch
SILENCE = 30  # s in which nothing more of the body comes
END = bytes(1024)  # two blocks of nothing mark the end of a tar
TAR = (b"application/x-tar", b"application/tar")

Sent = tuple[str, bytes | ClosedloopError]  # a picture's name, and its bytes or why they are not taken
Pictures = AsyncGenerator[Sent, None]


class NotABatch(ClosedloopError):
    """A batch comes as a form (multipart/form-data), each picture in a field "file", or as application/x-tar."""

    code = "not_a_batch"
    status = 415


class BatchTooLarge(ClosedloopError):
    """A batch has at most {most} pictures; the first {most} were answered. Send the others in another one."""

    code = "batch_too_large"
    status = 413


def pictures(request: Request) -> Pictures:
    """The pictures of a body as they come.

    Raises NotABatch or BadRequest at once; while they come BadRequest, or BatchTooLarge after the last that is taken.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind in TAR:
        return _at_most(_of_tar(_arriving(request)))
    if kind == b"multipart/form-data":
        return _at_most(_of_form(_arriving(request), _BatchForm(options.get(b"boundary", b""))))
    raise NotABatch


async def _arriving(request: Request) -> AsyncIterator[bytes]:
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout(SILENCE):
                chunk = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise BadRequest(reason=f"nothing of its body came for {SILENCE} s") from None
        except ClientDisconnect:
            raise BadRequest(reason="the connection ended before its body was whole") from None
        if chunk:
            yield chunk


async def _at_most(sent: Pictures) -> Pictures:
    count = 0
    async with contextlib.aclosing(sent):
        async for one in sent:
            if count == MOST:
                raise BatchTooLarge(most=MOST)
            yield one
            count += 1


class _BatchForm(Form):
    """The pictures of a form, each when it is whole."""

    def __init__(self, boundary: bytes) -> None:
        super().__init__(boundary)
        self.ready: deque[Sent] = deque()

    def begun(self) -> None:
        """As many as come."""

    def is_too_large(self) -> None:
        """It is said of this one alone."""

    def is_whole(self, name: str, data: bytes | None) -> None:
        """To be taken."""
        self.ready.append((name, UploadTooLarge(limit_mb=MAX_BODY // 10**6) if data is None else data))


async def _of_form(arriving: AsyncIterator[bytes], form: _BatchForm) -> Pictures:
    async for chunk in arriving:
        form.take(chunk)
        while form.ready:
            yield form.ready.popleft()
    form.check_over()


async def _of_tar(arriving: AsyncIterator[bytes]) -> Pictures:
    """The files of a tar. Python's reader of tars waits for bytes, so it does that in a thread."""
    tar = _Tar()
    feeding = asyncio.create_task(_feed(tar, arriving))
    try:
        while (one := await asyncio.to_thread(tar.next)) is not None:
            if isinstance(one, Exception):
                raise one
            yield one
        await feeding
    finally:
        tar.end()
        feeding.cancel()
        with contextlib.suppress(asyncio.CancelledError, ClosedloopError):
            await feeding


async def _feed(tar: "_Tar", arriving: AsyncIterator[bytes]) -> None:
    try:
        async for chunk in arriving:
            await asyncio.to_thread(tar.put, chunk)
    finally:
        await asyncio.to_thread(tar.put, b"")


class _Tar:
    """A tar as it comes, read by a thread of its own."""

    def __init__(self) -> None:
        self._found: queue.Queue[Sent | Exception | None] = queue.Queue(2)  # None: that was all
        self._chunks: queue.Queue[bytes] = queue.Queue(4)
        self._rest, self._last, self._all_came = b"", b"", False
        self._over = threading.Event()
        threading.Thread(target=self._read_all, name="tar", daemon=True).start()

    def put(self, chunk: bytes) -> None:
        """Bytes that came; none: these were all."""
        self._wait(lambda: self._chunks.put(chunk, timeout=0.1), queue.Full)

    def next(self) -> Sent | Exception | None:
        """A picture, or why there is none; None: that was all."""
        return self._wait(lambda: self._found.get(timeout=0.1), queue.Empty)

    def end(self) -> None:
        """Nobody wants more."""
        self._over.set()

    def read(self, count: int) -> bytes:
        """For `tarfile`."""
        parts, size = [self._rest], len(self._rest)
        while size < count and not self._all_came:
            chunk = self._wait(lambda: self._chunks.get(timeout=0.1), queue.Empty)
            if not chunk:
                self._all_came = True
                break
            parts.append(chunk)
            size += len(chunk)
        whole = b"".join(parts)
        self._rest = whole[count:]
        self._last = (self._last + whole[:count])[-len(END) :]
        return whole[:count]

    def _read_all(self) -> None:
        try:
            with tarfile.open(fileobj=self, mode="r|") as tar:  # type: ignore[call-overload]
                for member in tar:
                    if not member.isfile():
                        continue
                    if member.size > MAX_BODY:
                        self._tell((member.name, UploadTooLarge(limit_mb=MAX_BODY // 10**6)))
                    else:
                        file = tar.extractfile(member)
                        assert file is not None
                        self._tell((member.name, file.read()))
            while self.read(2**16):  # what pads a tar
                pass
            # Where one is cut off between two files, `tarfile` says nothing.
            self._tell(None if self._last == END else BadRequest(reason="the tar ends before its end is marked"))
        except (tarfile.TarError, EOFError, OSError, ValueError) as error:
            self._tell(BadRequest(reason=f"it is no whole tar ({error})"))

    def _tell(self, what: Sent | Exception | None) -> None:
        self._wait(lambda: self._found.put(what, timeout=0.1), queue.Full)

    def _wait(self, attempt: Callable[[], Any], not_yet: type[Exception]) -> Any:
        """The attempt's result; None when nobody wants more."""
        while not self._over.is_set():
            with contextlib.suppress(not_yet):
                return attempt()
        return None
