"""`python -m flask_app`: the pages, served by waitress.

Waitress reads a body whole before a thread sees it, so slow uploads hold no thread and `/healthz` always answers.
"""

import signal
import threading
import time
from typing import Any

import waitress.server
import waitress.wasyncore

from closedloop.logs import configure_logs, get_logger
from closedloop.settings import load_settings
from flask_app.app import MAX_BODY, create_app
from flask_app.refusals import Channel

THREADS = 16
SILENT_SECONDS = 30  # a connection that sends nothing for so long is closed
MAX_HEADER = 32 * 1024
DRAIN_SECONDS = 10


def create_server(app: Any, host: str, port: int, sockets: dict[int, Any], proxies: int = 0) -> Any:
    """The server, listening but not running; `sockets` will hold what it listens on and talks through.

    `proxies` is how many stand before it: what their headers say of the client is believed, and nobody else's.
    """
    believed: dict[str, Any] = {}
    if proxies:
        told = {"x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"}
        believed = {"trusted_proxy": "*", "trusted_proxy_count": proxies, "trusted_proxy_headers": told}
    server = waitress.server.create_server(
        app,
        map=sockets,
        host=host,
        port=port,
        threads=THREADS,
        connection_limit=1000,
        channel_timeout=SILENT_SECONDS,
        cleanup_interval=5,
        max_request_body_size=MAX_BODY,
        max_request_header_size=MAX_HEADER,
        ident=None,
        clear_untrusted_proxy_headers=True,
        **believed,
    )
    # A name that stands for several addresses (localhost) gives a listener for each.
    for one in listeners(sockets):
        one.channel_class = type("_ChannelOfPages", (Channel,), {"pages": app})
    return server


def listeners(sockets: dict[int, Any]) -> list[Any]:
    """What takes new connections."""
    return [one for one in sockets.values() if isinstance(one, waitress.server.BaseWSGIServer)]


def serve(sockets: dict[int, Any], stopping: threading.Event) -> None:
    """Serve until `stopping`; then take no new connection, and give the requests under way their answers."""
    while not stopping.is_set():
        waitress.wasyncore.loop(timeout=0.5, map=sockets, count=1)
    for one in listeners(sockets):
        waitress.wasyncore.dispatcher.close(one)  # its trigger stays: the answers still need it
    until = time.monotonic() + DRAIN_SECONDS
    while time.monotonic() < until and any(
        one.requests or one.request or one.total_outbufs_len for one in sockets.values() if isinstance(one, Channel)
    ):
        waitress.wasyncore.loop(timeout=0.1, map=sockets, count=1)


def main() -> None:
    """Serve until the process is told to stop."""
    settings = load_settings()
    configure_logs("web", settings.closedloop_log_level)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    sockets: dict[int, Any] = {}
    bind, port, proxies = settings.closedloop_bind, settings.closedloop_web_port, settings.closedloop_proxies
    server = create_server(create_app(settings), bind, port, sockets, proxies)
    get_logger().info("serving", address=f"http://{settings.closedloop_bind}:{settings.closedloop_web_port}")
    serve(sockets, stopping)
    server.task_dispatcher.shutdown()


if __name__ == "__main__":
    main()
