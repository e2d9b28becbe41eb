"""What uvicorn itself refuses, in the one error shape."""

import json

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from closedloop.errors import BadRequest

LINGER = 1.0  # s in which the rest of a refused request is still listened to, so that its sender sees the answer


class Protocol(H11Protocol):
    """HTTP/1.1 by h11; what is not HTTP, or has headers without end, is told so like any other bad request."""

    _refused = False

    def data_received(self, data: bytes) -> None:
        """Take in what came, unless the request was refused."""
        if not self._refused:
            super().data_received(data)

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
