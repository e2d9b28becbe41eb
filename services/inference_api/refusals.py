"""What uvicorn itself refuses, in the one error shape; and for how long it listens to who asks for nothing."""

import asyncio
import json

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from closedloop.errors import BadRequest

HEAD_SECONDS = 10.0  # for the head of a request to arrive, from the first moment of a connection on
LINGER = 1.0  # s in which the rest of a refused request is still listened to, so that its sender sees the answer


class Protocol(H11Protocol):
    """HTTP/1.1 by h11; what is not HTTP, or has headers without end, is told so like any other bad request.

    Who connects and sends no request in time is hung up on, as is who does not finish what was refused already.
    """

    _refused = False
    _until: float | None = None  # in the loop's time

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Listen, but not for ever."""
        super().connection_made(transport)
        self._hang_up_in_time()

    def data_received(self, data: bytes) -> None:
        """Take in what came, unless the request was refused."""
        if self._refused:
            return
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._until = None
        elif before is None or before.response_complete:
            self._hang_up_in_time()

    def _hang_up_in_time(self) -> None:
        now = self.loop.time()
        self._until = self._until or now + HEAD_SECONDS
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(self._until - now, self.timeout_keep_alive_handler)

    def send_400_response(self, msg: str) -> None:
        """Answer 400, and hang up when the sender has had time to read it."""
        error = BadRequest(reason="it is not valid HTTP, or its headers are too long")
        body = json.dumps(error.as_json()).encode()
        headers = [
            ("content-type", "application/json"), ("content-length", str(len(body))), ("connection", "close")
        ]  # fmt: skip
        refusal = h11.Response(status_code=error.status, headers=headers, reason=b"Bad Request")
        for event in (refusal, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self._refused = True
        self.loop.call_later(LINGER, self.transport.close)
