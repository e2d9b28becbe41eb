"""What every process says about itself: `/healthz` (it runs), `/readyz` (what it needs is there), `/metrics`."""

import importlib.metadata
import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from socketserver import ThreadingMixIn
from typing import Any, Generic, TypeVar
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from closedloop.errors import ClosedloopError
from closedloop.logs import get_logger

Check = Callable[[], object]
T = TypeVar("T")
PATIENCE = 3.0  # s that a look waits; Docker's and Prometheus' own give up soon after
VERSION = importlib.metadata.version("closedloop")


class InTime(Generic[T]):
    """A function that is called from a thread of its own, so that nobody waits longer for it than he wants to.

    While a call is under way, whoever asks waits for that one: a part that hangs costs one thread, not one per look.
    """

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._lock = threading.Lock()
        self._call: Future[T] | None = None

    def start(self) -> "Future[T]":
        """The call under way, or a new one."""
        with self._lock:
            if self._call is None or self._call.done():
                self._call = Future()
                threading.Thread(target=self._run, args=(self._call,), name="look", daemon=True).start()
            return self._call

    def _run(self, call: "Future[T]") -> None:
        try:
            call.set_result(self._function())
        except BaseException as error:
            call.set_exception(error)


class Readiness:
    """Whether what a process needs is there. A look takes PATIENCE at most, whatever hangs."""

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self._checks = {name: InTime(check) for name, check in checks.items()}

    def faults(self) -> dict[str, str | None]:
        """Run every check, all at once: what is wrong by name, None where nothing is."""
        ends = time.monotonic() + PATIENCE
        calls = {name: check.start() for name, check in self._checks.items()}
        return {name: _fault(name, call, ends) for name, call in calls.items()}

    def report(self) -> dict[str, Any]:
        """`ok`, `version`, `checks` (by name "ok" or what is wrong), and if not ok `error` and `code`."""
        faults = self.faults()
        said = {"version": VERSION, "checks": {name: fault or "ok" for name, fault in faults.items()}}
        wrong = [f"{name}: {fault}" for name, fault in faults.items() if fault]
        if not wrong:
            return {"ok": True, **said}
        return {"ok": False, "error": f"Not ready. {' '.join(wrong)}", "code": "not_ready", **said}


def _fault(name: str, call: "Future[object]", ends: float) -> str | None:
    try:
        call.result(max(0.0, ends - time.monotonic()))
    except ClosedloopError as error:
        return error.explained()
    except TimeoutError:
        return f"It does not answer within {PATIENCE:g} s."
    except Exception as error:
        get_logger().error("readiness check failed", check=name, exc_info=error)
        return f"{type(error).__name__}: {error}"
    return None


def metrics_text(registry: CollectorRegistry) -> tuple[bytes, str]:
    """The Prometheus text of a registry and its content type."""
    return generate_latest(registry), CONTENT_TYPE_LATEST


def serve(host: str, port: int, registry: CollectorRegistry, ready: Readiness) -> None:
    """Serve the three addresses from a thread of their own, for a process that has no pages."""

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        kind, status = "application/json", "200 OK"
        path, method = environ.get("PATH_INFO"), environ.get("REQUEST_METHOD")
        if method not in ("GET", "HEAD"):
            status, body = "405 Method Not Allowed", _error("Only GET is answered here.", "method_not_allowed")
        elif path == "/healthz":
            body = b'{"ok": true}'
        elif path == "/readyz":
            said = ready.report()
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
