"""What uvicorn itself refuses, in the one error shape."""

import json

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from closedloop.errors import BadRequest


class Protocol(H11Protocol):
    """HTTP/1.1 by h11; what is not HTTP, or has headers of more than 64 KiB, is told so like any other bad request."""

    def send_400_response(self, msg: str) -> None:
        """Answer 400 and hang up."""
        error = BadRequest(reason="it is not valid HTTP, or its headers are longer than 64 KiB")
        headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
        for event in (
            h11.Response(status_code=error.status, headers=headers, reason=b"Bad Request"),
            h11.Data(data=json.dumps(error.as_json()).encode()),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
