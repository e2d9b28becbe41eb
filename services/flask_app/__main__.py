"""`python -m flask_app`: the pages, served by waitress.

Waitress reads a body whole before a thread sees it, so slow uploads hold no thread and `/healthz` always answers.
"""

import json
from typing import Any

import waitress.channel
import waitress.parser
import waitress.server
import waitress.task
import waitress.utilities

from closedloop.errors import UploadTooLarge
from closedloop.image import MAX_BYTES
from closedloop.logs import configure_logs, get_logger
from closedloop.settings import load_settings
from flask_app.app import HEADERS, MAX_BODY, create_app

THREADS = 16
SILENT_SECONDS = 30  # a connection that sends nothing for so long is closed
MAX_HEADER = 32 * 1024
MAX_HEARD = 64 * 2**20  # bytes of a body that is too large which are still listened to, and dropped
_CODES = {413: "too_large", 500: "error"}


class _Parser(waitress.parser.HTTPRequestParser):
    """Hears a body that is too large to its end: a browser that is still sending never sees why it was refused."""

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
            elif self.content_length <= MAX_HEARD:
                self._unheard, self.completed = self.content_length, not self.content_length
        return consumed

    def parse_header(self, header_plus: bytes) -> None:
        try:
            super().parse_header(header_plus)
        except ValueError as error:  # an address that urllib cannot take apart
            raise waitress.parser.ParsingError(str(error)) from None


class _ErrorTask(waitress.task.ErrorTask):
    """What waitress itself refuses (a body that is announced too large, broken headers), in the one error shape."""

    def execute(self) -> None:
        request: Any = self.request
        error = request.error
        status = error.code if error.code in (400, 413, 500) else 400
        text = f"The request was refused: {error.reason} ({error.body})."
        if status == 413:
            text = str(UploadTooLarge(limit_mib=MAX_BYTES // 2**20))
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


class _Channel(waitress.channel.HTTPChannel):
    pages: Any  # the application, which waitress itself hands on only wrapped
    error_task_class = _ErrorTask
    parser_class = _Parser


def create_server(app: Any, host: str, port: int) -> Any:
    """The server, listening but not running."""
    server = waitress.server.create_server(
        app,
        host=host,
        port=port,
        threads=THREADS,
        connection_limit=1000,
        channel_timeout=SILENT_SECONDS,
        cleanup_interval=5,
        max_request_body_size=MAX_BODY,
        max_request_header_size=MAX_HEADER,
        ident=None,
    )
    # A name that stands for several addresses (localhost) gives a server for each.
    several = isinstance(server, waitress.server.MultiSocketServer)
    for one in list((server.map or {}).values()) if several else [server]:
        if isinstance(one, waitress.server.BaseWSGIServer):
            one.channel_class = type("_ChannelOfPages", (_Channel,), {"pages": app})
    return server


def main() -> None:
    """Serve until the process is told to stop."""
    settings = load_settings()
    configure_logs("web", settings.closedloop_log_level)
    server = create_server(create_app(settings), settings.closedloop_bind, settings.closedloop_web_port)
    get_logger().info("serving", address=f"http://{settings.closedloop_bind}:{settings.closedloop_web_port}")
    server.run()


if __name__ == "__main__":
    main()
