"""`python -m flask_app`: the pages, served by waitress.

Waitress reads a body whole before a thread sees it, so slow uploads hold no thread and `/healthz` always answers.
"""

from typing import Any

import waitress.server

from closedloop.logs import configure_logs, get_logger
from closedloop.settings import load_settings
from flask_app.app import MAX_BODY, create_app
from flask_app.refusals import Channel

THREADS = 16
SILENT_SECONDS = 30  # a connection that sends nothing for so long is closed
MAX_HEADER = 32 * 1024


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
            one.channel_class = type("_ChannelOfPages", (Channel,), {"pages": app})
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
