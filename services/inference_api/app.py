"""The inference service over HTTP. A route parses, asks `Serving`, answers."""

import contextlib
import datetime as dt
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from swagger_ui_bundle import swagger_ui_path

from closedloop import gauges
from closedloop.errors import ClosedloopError
from closedloop.health import Readiness, metrics_text
from closedloop.logs import REQUEST_ID_HEADER, bind_request_id, get_logger
from closedloop.sets import LEAST, MOST
from closedloop.settings import Settings
from closedloop.storage import open_stores
from inference_api import bodies
from inference_api.following import Follower
from inference_api.serving import Serving

MAX_WAITING = 64  # requests; beyond it 503 at once
PICTURE = {
    "requestBody": {"required": True, "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}}
}
SET = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                            "minItems": LEAST,
                            "maxItems": MOST,
                        }
                    },
                }
            }
        },
    }
}

_HTTP_ERRORS = {
    404: ("not_found", "There is nothing at this address. /docs lists what there is."),
    405: ("method_not_allowed", "This address does not answer to that method. /docs lists what there is."),
    503: ("busy", "Too many pictures are waiting. Try again in a moment."),
}


class Fault(BaseModel):
    """The one shape of every error."""

    ok: bool = False
    error: str  # for a person
    code: str  # for a program


_FAULTS: dict[int | str, dict[str, Any]] = {
    400: {"model": Fault, "description": "The body holds no picture"},
    404: {"model": Fault, "description": "Unknown project"},
    413: {"model": Fault, "description": "Too many bytes or pixels"},
    415: {"model": Fault, "description": "Not a JPEG, PNG or WebP"},
    422: {"model": Fault, "description": "A picture that cannot be used, or a query that is not valid"},
    503: {"model": Fault, "description": "Not ready, or too many pictures are waiting"},
}
_AWAY: dict[int | str, dict[str, Any]] = {503: _FAULTS[503]}


def create_app(settings: Settings) -> FastAPI:
    """The application; what it serves follows the records from start-up to shut-down."""
    serving = Serving(settings.closedloop_encoder)
    follower = Follower(
        serving, lambda: open_stores(settings), settings.home / "inference", lambda: dt.datetime.now(dt.UTC)
    )

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        follower.start()
        yield
        follower.stop()

    app = FastAPI(title="Closedloop inference", version="1", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.openapi_version = "3.0.2"  # the newest that the bundled page of /docs reads
    registry = CollectorRegistry()
    answers = Counter("closedloop_answers_total", "Answers given.", ["project"], registry=registry)
    seconds = Histogram("closedloop_answer_seconds", "Seconds from a picture to its answer.", registry=registry)
    waiting = Gauge("closedloop_waiting_requests", "Pictures being answered or waiting for it.", registry=registry)
    ready = Readiness({"encoder": serving.snapshot})
    registry.register(gauges.Ready(ready))
    registry.register(
        gauges.Releases(
            "closedloop_serving_release_info",
            "1 for each release that answers here.",
            lambda: [
                (id_, head, ready.release)
                for id_, served in serving.snapshot().projects.items()
                for head, ready in served.heads.items()
                if ready.release
            ],
        )
    )
    under_way = 0
    app.mount("/static", StaticFiles(directory=Path(swagger_ui_path)), name="static")

    @app.middleware("http")
    async def request_id(request: Request, call_next: Any) -> Response:
        known = bind_request_id(request.headers.get(REQUEST_ID_HEADER))
        response = await call_next(request)
        response.headers[REQUEST_ID_HEADER] = known
        return response

    def refuse_if_full() -> None:
        if under_way >= MAX_WAITING:
            raise HTTPException(503, headers={"Retry-After": "1"})

    async def ask(request: Request, method: Any, *arguments: Any, read: Any = bodies.picture) -> Any:
        nonlocal under_way
        refuse_if_full()  # before the picture is taken in, too
        body = await read(request)
        refuse_if_full()
        under_way += 1
        waiting.set(under_way)
        started = time.perf_counter()
        try:
            answer = await run_in_threadpool(method, *arguments, body)
            seconds.observe(time.perf_counter() - started)
            return answer
        finally:
            under_way -= 1
            waiting.set(under_way)

    @app.post("/v1/predict", openapi_extra=PICTURE, responses=_FAULTS)
    async def predict(request: Request, project: str = Query(max_length=40), vector: bool = False) -> dict[str, Any]:
        """The live release's answer about the body's picture; `vector=true` adds its embedding (base64 float32)."""
        answer = await ask(request, serving.predict, project)
        answers.labels(project).inc()
        if not vector:
            del answer["vector"]
        return answer

    @app.post("/v1/rank", openapi_extra=SET, responses=_FAULTS)
    async def rank(request: Request, project: str = Query(max_length=40)) -> dict[str, Any]:
        """Which picture of a set is best: a score each, the place of the best, and how probably it is chosen."""
        answer = await ask(request, serving.rank, project, read=bodies.pictures)
        answers.labels(project).inc()
        return answer

    @app.post("/v1/crop", openapi_extra=PICTURE, responses=_FAULTS)
    async def crop(request: Request, project: str = Query(max_length=40)) -> dict[str, Any]:
        """Which part of the body's picture to keep, and the overlap (IoU) with what people would keep, as expected."""
        answer = await ask(request, serving.crop, project)
        answers.labels(project).inc()
        return answer

    @app.post("/v1/embed", openapi_extra=PICTURE, responses=_FAULTS)
    async def embed(request: Request) -> dict[str, Any]:
        """The unit vector of the picture in the body, and the digest of the encoder that made it."""
        values, snapshot = await ask(request, serving.embed)
        return {"ok": True, "encoder": snapshot.chosen.digest, "vector": [float(v) for v in values]}

    @app.get("/v1/releases", responses=_AWAY)
    async def releases() -> dict[str, Any]:
        """Which release answers for each project, the encoder, and what everyone should know about both."""
        return serving.describe()

    @app.get("/healthz")
    async def healthz() -> dict[str, Any]:
        """The process runs."""
        return {"ok": True}

    @app.get("/readyz", responses=_AWAY)
    def readyz() -> JSONResponse:
        """Whether pictures can be answered."""
        said = ready.report()
        return JSONResponse(said, status_code=200 if said["ok"] else 503)

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Prometheus text."""
        text, kind = metrics_text(registry)
        return Response(text, media_type=kind)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="/openapi.json",
            title=app.title,
            swagger_js_url="/static/swagger-ui-bundle.js",
            swagger_css_url="/static/swagger-ui.css",
            swagger_favicon_url="/static/favicon-32x32.png",
        )

    @app.exception_handler(ClosedloopError)
    async def said(_request: Request, error: ClosedloopError) -> JSONResponse:
        headers = {"Retry-After": "2"} if error.status == 503 else None
        return JSONResponse(error.as_json(), error.status, headers)

    @app.exception_handler(HTTPException)
    async def http_error(_request: Request, error: HTTPException) -> JSONResponse:
        code, text = _HTTP_ERRORS.get(error.status_code, ("bad_request", f"The request was refused: {error.detail}."))
        return JSONResponse({"ok": False, "error": text, "code": code}, error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        return JSONResponse({"ok": False, "error": f"The request is not valid: {faults}.", "code": "invalid"}, 422)

    @app.exception_handler(Exception)
    async def unexpected(_request: Request, error: Exception) -> JSONResponse:
        get_logger().error("request failed", exc_info=error)
        return JSONResponse(ClosedloopError().as_json(), 500)

    return app
