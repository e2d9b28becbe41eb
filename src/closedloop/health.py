"""What every process says about itself: `/healthz` (it runs), `/readyz` (what it needs is there), `/metrics`."""

import importlib.metadata
import json
import threading
from collections.abc import Callable, Iterable, Mapping
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from closedloop.errors import ClosedloopError
from closedloop.logs import get_logger

Check = Callable[[], object]
VERSION = importlib.metadata.version("closedloop")


def readiness(checks: Mapping[str, Check]) -> dict[str, Any]:
    """Run every check: `ok`, `version`, `checks` (by name "ok" or what is wrong), and if not ok `error` and `code`."""
    said = {}
    for name, check in checks.items():
        try:
            check()
            said[name] = "ok"
        except ClosedloopError as error:
            said[name] = error.explained()
        except Exception as error:
            get_logger().exception("readiness check failed", check=name)
            said[name] = f"{type(error).__name__}: {error}"
    faults = [f"{name}: {text}" for name, text in said.items() if text != "ok"]
    if not faults:
        return {"ok": True, "version": VERSION, "checks": said}
    return {
        "ok": False,
        "version": VERSION,
        "error": f"Not ready. {' '.join(faults)}",
        "code": "not_ready",
        "checks": said,
    }


def metrics_text(registry: CollectorRegistry) -> tuple[bytes, str]:
    """The Prometheus text of a registry and its content type."""
    return generate_latest(registry), CONTENT_TYPE_LATEST


def serve(host: str, port: int, registry: CollectorRegistry, checks: Mapping[str, Check]) -> None:
    """Serve the three addresses from a thread of their own, for a process that has no pages."""

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        kind, status = "application/json", "200 OK"
        path, method = environ.get("PATH_INFO"), environ.get("REQUEST_METHOD")
        if method not in ("GET", "HEAD"):
            status, body = "405 Method Not Allowed", _error("Only GET is answered here.", "method_not_allowed")
        elif path == "/healthz":
            body = b'{"ok": true}'
        elif path == "/readyz":
            said = readiness(checks)
            status = status if said["ok"] else "503 Service Unavailable"
            body = json.dumps(said).encode()
        elif path == "/metrics":
            body, kind = metrics_text(registry)
        else:
            status, body = "404 Not Found", _error("There is nothing here.", "not_found")
        start_response(status, [("Content-Type", kind), ("Content-Length", str(len(body)))])
        return [body]

    def _error(text: str, code: str) -> bytes:
        return json.dumps({"ok": False, "error": text, "code": code}).encode()

    server = make_server(host, port, app, server_class=_ThreadingServer, handler_class=_QuietHandler)
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()


class _ThreadingServer(ThreadingMixIn, WSGIServer):
    daemon_threads = True  # a connection that says nothing holds up nobody


class _QuietHandler(WSGIRequestHandler):
    timeout = 10  # s

    def log_message(self, format: str, *args: Any) -> None:
        pass
