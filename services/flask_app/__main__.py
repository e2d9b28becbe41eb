"""`python -m flask_app`: the pages, served by waitress.

Waitress reads a body whole before a thread sees it, so slow uploads hold no thread and `/healthz` always answers.
"""

import json
from typing import Any

import waitress.channel
import waitress.server
import waitress.task

from closedloop.logs import configure_logs, get_logger
from closedloop.settings import load_settings
from flask_app.app import HEADERS, MAX_BODY, create_app

THREADS = 16
SILENT_SECONDS = 30  # a connection that sends nothing for so long is closed
MAX_HEADER = 32 * 1024
_CODES = {413: "too_large", 431: "bad_request"}


class _ErrorTask(waitress.task.ErrorTask):
    """What waitress itself refuses (a body that is announced too large, broken headers), in the one error shape."""

    def execute(self) -> None:
        error = self.request.error  # type: ignore[union-attr]
        status = 400 if error.code == 431 else error.code
        text = f"The request was refused: {error.reason} ({error.body})."
        body = json.dumps({"ok": False, "error": text, "code": _CODES.get(error.code, "bad_request")}).encode()
        self.status = f"{status} {error.reason}"
        self.response_headers.extend([("Content-Type", "application/json"), *HEADERS.items()])
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class _Channel(waitress.channel.HTTPChannel):
    error_task_class = _ErrorTask


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
    server.channel_class = _Channel
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
