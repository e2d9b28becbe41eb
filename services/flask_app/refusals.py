"""What waitress itself refuses (a body announced too large, broken headers), in the one error shape."""

import copy
import json
from typing import Any

import waitress.channel
import waitress.parser
import waitress.task
import waitress.utilities

from closedloop.errors import UploadTooLarge
from flask_app import bodies
from flask_app.app import HEADERS

MAX_HEARD = 64 * 2**20  # bytes of a body that is too large which are still listened to, and dropped
_CODES = {413: "too_large", 500: "error"}


class _Parser(waitress.parser.HTTPRequestParser):
    """Hears a body that is too large to its end: a browser that is still sending never sees why it was refused."""

    path: str  # known once its head is read
    _unheard = 0

    def received(self, data: bytes) -> int:
        if self._unheard:
            heard = min(len(data), self._unheard)
            self._unheard -= heard
            self.completed = not self._unheard
            return heard
        consumed = super().received(data)
        if isinstance(self.error, waitress.utilities.RequestEntityTooLarge):
            if self.expect_continue:
                self.expect_continue = False  # it asked before sending, and the answer is no
            elif self.content_length <= MAX_HEARD + self.adj.max_request_body_size - bodies.MAX_BODY:
                self._unheard, self.completed = self.content_length, not self.content_length
        return consumed

    def parse_header(self, header_plus: bytes) -> None:
        try:
            super().parse_header(header_plus)
        except ValueError as error:  # an address that urllib cannot take apart
            raise waitress.parser.ParsingError(str(error)) from None
        if bodies.limit(self.path) != bodies.MAX_BODY:
            self.adj = copy.copy(self.adj)  # which is all requests'
            self.adj.max_request_body_size = bodies.limit(self.path)


class _ErrorTask(waitress.task.ErrorTask):
    """One refusal: a fragment for the page's own script, else JSON."""

    def execute(self) -> None:
        request: Any = self.request
        error = request.error
        status = error.code if error.code in (400, 413, 500) else 400
        text = f"The request was refused: {error.reason} ({error.body})."
        if status == 413:
            text = str(UploadTooLarge(limit_mb=bodies.megabytes(request.path)))
        if "HX_REQUEST" in request.headers:  # the page puts what it gets where the answer would stand
            kind, body = "text/html; charset=utf-8", self._fragment(text)
        else:
            said = {"ok": False, "error": text, "code": _CODES.get(status, "bad_request")}
            kind, body = "application/json", json.dumps(said).encode()
        self.status = f"{status} {error.reason}"
        self.response_headers = [("Content-Type", kind), *HEADERS.items()]
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)

    def _fragment(self, text: str) -> bytes:
        channel: Any = self.channel
        return channel.pages.jinja_env.get_template("_error.html").render(error=text).encode()


class Channel(waitress.channel.HTTPChannel):
    """A connection whose refusals look like the pages' own."""

    pages: Any  # the application, which waitress itself hands on only wrapped
    error_task_class = _ErrorTask
    parser_class = _Parser
