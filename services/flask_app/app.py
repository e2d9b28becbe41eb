"""Puts the pages together: settings, stores, error answers, headers, health."""

import re
import time

from flask import Flask, Response, g, request
from markupsafe import Markup, escape
from prometheus_client import CollectorRegistry, Counter, Histogram
from werkzeug.exceptions import NotFound

from closedloop import gauges, health
from closedloop.errors import CrossSite
from closedloop.image import MAX_BYTES
from closedloop.inference import Inference
from closedloop.logs import REQUEST_ID_HEADER, bind_request_id
from closedloop.settings import Settings
from closedloop.storage import open_stores
from closedloop.storage.objects import PRODUCTION
from flask_app import context, errors, feedback, upload

MAX_BODY = MAX_BYTES + 64 * 1024  # the picture and what multipart puts around it
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}


def create_app(settings: Settings) -> Flask:
    """The application of one installation."""
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    app.json.sort_keys = False  # type: ignore[attr-defined]
    registry = CollectorRegistry()
    stores = open_stores(settings)
    checks = {"database": stores.db.check, "store": lambda: stores.objects.check(PRODUCTION)}
    ready = health.Readiness(checks)
    registry.register(gauges.Ready(ready))
    uploads = Counter("closedloop_uploads_total", "Pictures taken.", ["project", "status"], registry=registry)
    for status in ("done", "pending"):
        uploads.labels(settings.closedloop_default_project, status)  # from 0 on, so that the first one is seen as new
    app.extensions[context.EXTENSION] = {
        "settings": settings,
        "stores": stores,
        "inference": Inference(settings.inference_url, settings.closedloop_inference_budget),
        "uploads": uploads,
    }
    answered = Counter("closedloop_responses_total", "Responses.", ["method", "status"], registry=registry)
    seconds = Histogram("closedloop_upload_seconds", "Seconds from a taken picture to its page.", registry=registry)
    app.register_blueprint(upload.pages)
    app.register_blueprint(feedback.pages)
    app.template_filter("commands")(commands)
    errors.register(app)

    @app.before_request
    def begin() -> None:
        g.started = time.perf_counter()
        g.request_id = bind_request_id(request.headers.get(REQUEST_ID_HEADER))
        if request.method == "POST" and request.headers.get("Sec-Fetch-Site", "same-origin") in (
            "cross-site",
            "same-site",
        ):
            raise CrossSite
        if "\0" in request.path:  # no name has one, and Postgres refuses to look for it
            raise NotFound

    @app.after_request
    def finish(response: Response) -> Response:
        response.headers.update(HEADERS)
        response.headers[REQUEST_ID_HEADER] = g.get("request_id", "")
        answered.labels(
            request.method if request.method in ("GET", "HEAD", "POST") else "other", response.status_code
        ).inc()
        if request.endpoint == "upload.predict" and response.status_code < 400:
            seconds.observe(time.perf_counter() - g.started)
        return response

    @app.get("/healthz")
    def healthz() -> dict[str, bool]:
        return {"ok": True}

    @app.get("/readyz")
    def readyz() -> tuple[dict[str, object], int]:
        said = ready.report()
        return said, 200 if said["ok"] else 503

    @app.get("/metrics")
    def metrics() -> Response:
        text, kind = health.metrics_text(registry)
        return Response(text, content_type=kind)

    return app


def commands(text: str) -> Markup:
    """A sentence as HTML, with what stands between backticks set as a command."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704
