"""What is answered about the pictures of a batch: a line of JSON for each, in their order, as they come."""

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from closedloop.errors import ClosedloopError
from closedloop.logs import get_logger
from inference_api.batch_pictures import Pictures
from inference_api.bodies import Bodies, Hold
from inference_api.callers import left
from inference_api.faults import BUSY

AT_ONCE = 32  # pictures of a batch that are decoded, wait or are looked at
ROOM = 64 * 2**20  # bytes of these, unless one alone has more
LINES = "application/x-ndjson"

Answer = Callable[[bytes], Awaitable[dict[str, Any]]]


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
