"""Puts the pages together: settings, stores, rights, error answers, headers, health."""

import datetime as dt
import hashlib
import re
import time
from pathlib import Path
from typing import Any

from flask import Flask, Response, g, request
from flask_compress import Compress
from markupsafe import Markup, escape
from prometheus_client import CollectorRegistry, Counter, Histogram
from werkzeug.exceptions import NotFound

from closedloop import gauges, health
from closedloop.crops import Box
from closedloop.errors import BadRequest, CrossSite
from closedloop.inference import Inference
from closedloop.logs import REQUEST_ID_HEADER, bind_request_id
from closedloop.settings import Settings
from closedloop.storage import open_stores
from closedloop.storage.objects import PRODUCTION
from flask_app import (
    bodies,
    context,
    dashboard,
    errors,
    feedback,
    images,
    projects,
    releases,
    rights,
    sets,
    sign_in,
    upload,
)
from flask_app.bodies import MAX_BODY
from flask_app.texts import text

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}


def create_app(settings: Settings) -> Flask:
    """The application of one installation. Raises MissingSetting where the key of its cookies is missing."""
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

    @app.before_request
    def begin() -> None:
        g.started = time.perf_counter()
        request.max_content_length = bodies.limit(request.path)
        g.request_id = bind_request_id(request.headers.get(REQUEST_ID_HEADER))
        if request.method == "POST" and request.headers.get("Sec-Fetch-Site", "same-origin") in (
            "cross-site",
            "same-site",
        ):
            raise CrossSite
        if "\0" in request.path:  # no name has one, and Postgres refuses to look for it
            raise NotFound
        typed = request.values if request.mimetype == "application/x-www-form-urlencoded" else request.args
        if request.blueprint != "feedback" and any("\0" in value for value in typed.values()):  # which looks itself
            raise BadRequest(reason="no text has the character NUL in it")

    rights.register(app, settings)
    for room in (upload, sets, feedback, sign_in, dashboard, releases, images, projects):
        app.register_blueprint(room.pages)
    errors.register(app)
    _dress(app)

    @app.after_request
    def finish(response: Response) -> Response:
        response.headers.update(HEADERS)
        response.headers[REQUEST_ID_HEADER] = g.get("request_id", "")
        if request.endpoint == "static":
            response.headers["Cache-Control"] = "public, max-age=31536000, immutable"  # its address has its digest
        elif "Cache-Control" not in response.headers:
            # After signing out, going back must show nothing; a visitor who goes back finds what was typed.
            response.headers["Cache-Control"] = "no-store" if rights.has_session() else "private, no-cache"
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
        exposed, kind = health.metrics_text(registry)
        return Response(exposed, content_type=kind)

    return app


def _dress(app: Flask) -> None:
    """What templates speak with, and the files that go with them."""
    app.config["COMPRESS_MIMETYPES"] = ["text/css", "text/javascript", "application/javascript", "image/svg+xml"]
    Compress(app)
    app.jinja_env.globals.update(t=text, signed_in=rights.signed_in_if_known)
    app.jinja_env.filters.update(
        commands=commands, percent=percent, number=number, moment=moment, pairs=pairs, age=dashboard.age, edges=edges
    )
    digests: dict[str, str] = {}

    @app.url_defaults
    def digest(endpoint: str, values: dict[str, str]) -> None:
        if endpoint == "static":
            name = values["filename"]
            if name not in digests:
                content = Path(str(app.static_folder), name).read_bytes()
                digests[name] = hashlib.sha256(content).hexdigest()[:12]
            values["v"] = digests[name]


def commands(sentence: str) -> Markup:
    """A sentence as HTML, with what stands between backticks set as a command."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(sentence))))  # noqa: S704


def percent(share: float | None, digits: int = 0) -> str:
    """A share (0-1) in percent; a dash where there is none."""
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def number(value: float | None) -> str:
    """A count, with a thin space between thousands; a dash where there is none."""
    return "–" if value is None else f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def pairs(values: dict[str, Any]) -> str:
    """Names with their values, as of a recipe; without those that have none."""
    said = {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in values.items()}
    return ", ".join(f"{name} {value}" for name, value in said.items() if value is not None)


def edges(box: Box | str | None) -> str:
    """A crop in words: what it keeps of width and height, in percent. As text (JSON) it comes from an annotation."""
    if box is None:
        return ""
    try:
        kept = Box.from_text(box) if isinstance(box, str) else box
    except (ValueError, TypeError):
        return str(box)
    sides = {name: f"{100 * getattr(kept, name):.0f}" for name in ("x1", "y1", "x2", "y2")}
    return text("sets.edges", **sides)


def moment(when: dt.datetime | str | None) -> Markup:
    """A moment in UTC, which the page's script turns to the visitor's own zone."""
    if when is None:
        return Markup("–")
    at = dt.datetime.fromisoformat(when) if isinstance(when, str) else when
    utc = at.astimezone(dt.UTC)
    return Markup('<time datetime="{}">{} UTC</time>').format(utc.isoformat(), f"{utc:%Y-%m-%d %H:%M}")
