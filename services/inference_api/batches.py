"""Many pictures in one request: a form or a tar comes in, a line of JSON goes out for each, in their order."""

import asyncio
import contextlib
import json
import queue
import tarfile
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any

from python_multipart.multipart import parse_options_header
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from closedloop.errors import BadRequest, ClosedloopError, UploadTooLarge
from closedloop.logs import get_logger
from inference_api.bodies import MAX_BODY, Bodies, Form, Hold
from inference_api.callers import left
from inference_api.faults import BUSY

MOST = 10_000  # pictures of a batch
AT_ONCE = 32  # of them that are decoded, wait or are looked at
ROOM = 64 * 2**20  # bytes of these, unless one alone has more
SILENCE = 30  # s in which nothing more of the body comes
LINES = "application/x-ndjson"
END = bytes(1024)  # two blocks of nothing mark the end of a tar (POSIX.1-2017, pax)
TAR = (b"application/x-tar", b"application/tar")

Sent = tuple[str, bytes | ClosedloopError]  # a picture's name, and its bytes or why they are not taken
Pictures = AsyncGenerator[Sent, None]
Answer = Callable[[bytes], Awaitable[dict[str, Any]]]


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


class Lines(Response):
    """What is said of each picture: its `index` (from 0), its `name`, and the answer, or the one shape of errors.

    Where the body cannot be read to its end, a last line without an index says why. Lines that the caller does not read
    yet are kept, so that one who sends everything before he reads anything is answered, too.
    """

    def __init__(self, request: Request, sent: Pictures, answer: Answer, bodies: Bodies) -> None:
        super().__init__(media_type=LINES)
        del self.headers["content-length"]
        self._request, self._sent, self._answer, self._bodies = request, sent, answer, bodies
        self._lines: deque[bytes] = deque()
        self._change = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        answering = asyncio.create_task(self._answer_all())
        answering.add_done_callback(lambda _: self._change.set())
        try:
            while self._lines or not answering.done():
                if not self._lines:
                    self._change.clear()
                    await self._change.wait()
                body = b"".join(self._lines)
                self._lines.clear()
                await send({"type": "http.response.body", "body": body, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            answering.cancel()

    async def _answer_all(self) -> None:
        coming: asyncio.Queue[asyncio.Task[dict[str, Any]] | None] = asyncio.Queue(AT_ONCE)
        pending: set[asyncio.Task[dict[str, Any]]] = set()
        writing = asyncio.create_task(self._write(coming))
        with self._bodies.holding() as hold:
            try:
                last = await self._begin_all(coming, pending, hold)
                await coming.put(None)
                leaving = asyncio.create_task(left(self._request))
                await asyncio.wait((writing, leaving), return_when=asyncio.FIRST_COMPLETED)
                leaving.cancel()
                if last and writing.done():
                    self._put(last)
            except Exception:
                get_logger().exception("batch failed")
                self._put(ClosedloopError().as_json())
            finally:  # nothing of a batch goes on without it
                for task in (writing, *pending):
                    task.cancel()
                await asyncio.gather(writing, *pending, return_exceptions=True)

    async def _begin_all(
        self,
        coming: "asyncio.Queue[asyncio.Task[dict[str, Any]] | None]",
        pending: set[asyncio.Task[dict[str, Any]]],
        hold: Hold,
    ) -> dict[str, Any] | None:
        """Have each picture answered as it comes; returns why no more of them can come, None where these were all."""
        count = 0
        try:
            async with contextlib.aclosing(self._sent) as sent:
                async for name, data in sent:
                    size = len(data) if isinstance(data, bytes) else 0
                    while pending and hold.bytes + size > ROOM:
                        await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                    hold(size)
                    task = asyncio.create_task(self._one(count, name, data))
                    pending.add(task)
                    task.add_done_callback(pending.discard)
                    task.add_done_callback(lambda _, size=size: hold.let_go(size))
                    await coming.put(task)
                    count += 1
        except ClosedloopError as error:
            return error.as_json()
        except HTTPException:  # others hold too much
            return {"ok": False, "error": BUSY[1], "code": BUSY[0]}
        return None

    async def _write(self, coming: "asyncio.Queue[asyncio.Task[dict[str, Any]] | None]") -> None:
        while task := await coming.get():
            self._put(await task)

    async def _one(self, index: int, name: str, data: bytes | ClosedloopError) -> dict[str, Any]:
        of = {"index": index, "name": name}
        try:
            if isinstance(data, ClosedloopError):
                raise data
            return {**of, **await self._answer(data)}
        except ClosedloopError as error:
            return {**of, **error.as_json()}
        except Exception:
            get_logger().exception("picture of a batch failed", index=index)
            return {**of, **ClosedloopError().as_json()}

    def _put(self, said: dict[str, Any]) -> None:
        self._lines.append(json.dumps(said).encode() + b"\n")
        self._change.set()


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
