"""Who asks: until when an answer is wanted, whether anybody still waits for it, and the id of the request."""

import asyncio
import math
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from closedloop.errors import ClosedloopError, TooLate
from closedloop.inference import DEADLINE_HEADER
from closedloop.logs import REQUEST_ID_HEADER, bind_request_id

T = TypeVar("T")


class BadDeadline(ClosedloopError):
    """The deadline is no number of seconds since 1970. Send X-Request-Deadline as in 1764000000.25, or leave it out."""

    code = "bad_deadline"
    status = 422


class Left(Exception):
    """The one who asked has hung up."""


def deadline(request: Request, wall: float, monotonic: float) -> float:
    """Until when (`time.monotonic()`) an answer is wanted; infinity where nobody said.

    The header X-Request-Deadline has seconds since 1970, UTC. Raises BadDeadline, and TooLate where it is over.
    """
    given = request.headers.get(DEADLINE_HEADER)
    if given is None:
        return math.inf
    try:
        left = float(given) - wall
    except ValueError:
        raise BadDeadline from None
    if math.isnan(left):
        raise BadDeadline
    if left <= 0:
        raise TooLate
    return monotonic + left


async def unless_left(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of some work, which ends where the one who asked for it hangs up. Raises Left."""
    doing = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(left(request))
    try:
        await asyncio.wait((doing, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise Left
        return doing.result()
    finally:
        doing.cancel()
        leaving.cancel()


async def left(request: Request) -> None:
    """Wait until the one who asked, whose body is read, hangs up."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


class RequestIds:
    """Takes over each request's id, or makes one; the answer names it. Pure ASGI: it sees a client that hangs up."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        known = bind_request_id(Headers(scope=scope).get(REQUEST_ID_HEADER))

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = known
            await send(message)

        await self._app(scope, receive, named)
