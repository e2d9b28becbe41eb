"""The inference service over HTTP. A route parses, asks `Serving`, answers."""

import contextlib
import datetime as dt
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.exceptions import HTTPException
from swagger_ui_bundle import swagger_ui_path

from closedloop import gauges
from closedloop.health import Readiness, metrics_text
from closedloop.models.converted import Converted
from closedloop.sets import LEAST, MOST
from closedloop.settings import Settings
from closedloop.storage import open_stores
from inference_api import batch_lines, batch_pictures, faults
from inference_api.bodies import Bodies
from inference_api.callers import RequestIds, deadline, unless_left
from inference_api.faults import AWAY, FAULTS
from inference_api.following import Follower
from inference_api.pipeline import Asked, Pipeline
from inference_api.serving import Serving
from inference_api.similar import Similar

MAX_WAITING = 64  # pictures; beyond it 503 at once
MAX_SIMILAR = 100
BYTES = {"type": "string", "format": "binary"}
PICTURE = {"requestBody": {"required": True, "content": {"image/*": {"schema": BYTES}}}}
_FILES = {"type": "array", "items": BYTES, "minItems": LEAST, "maxItems": MOST}
_FORM = {"type": "object", "properties": {"file": _FILES}, "required": ["file"], "additionalProperties": False}
SET = {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}}
_MANY = {"type": "object", "properties": {"file": {"type": "array", "items": BYTES}}, "required": ["file"]}
BATCH = {
    "requestBody": {
        "required": True,
        "content": {"multipart/form-data": {"schema": _MANY}, "application/x-tar": {"schema": BYTES}},
    }
}
Take = Callable[[Request], AbstractAsyncContextManager[Any]]


def create_app(settings: Settings) -> FastAPI:
    """The application; what it serves follows the records from start-up to shut-down."""
    pipeline = Pipeline()
    serving = Serving(settings.closedloop_encoder, pipeline)
    follower = Follower(
        serving,
        lambda: open_stores(settings),
        Converted(settings.cache, settings.closedloop_backend),
        settings.home / "inference",
        lambda: dt.datetime.now(dt.UTC),
    )

    similar = Similar(
        serving, lambda: open_stores(settings), settings.home / "inference" / "vectors", lambda: dt.datetime.now(dt.UTC)
    )

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        pipeline.start()
        follower.start()
        similar.start()
        yield
        similar.stop()
        follower.stop()
        pipeline.stop()

    app = FastAPI(title="Closedloop inference", version="1", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.openapi_version = "3.0.2"  # the newest that the bundled page of /docs reads
    registry = CollectorRegistry()
    answers = Counter("closedloop_answers_total", "Answers given.", ["project", "route"], registry=registry)
    seconds = Histogram(
        "closedloop_answer_seconds", "Seconds from a picture, or a set, to its answer.", ["route"], registry=registry
    )
    waiting = Gauge("closedloop_waiting_requests", "Pictures being answered or waiting for it.", registry=registry)
    ready = Readiness({"encoder": serving.snapshot})
    registry.register(gauges.Ready(ready))
    registry.register(
        gauges.Named(
            "closedloop_serving_release_info",
            "1 for each release that answers here.",
            lambda: [(*of, release) for of, release in serving.snapshot().releases.items() if release],
        )
    )
    registry.register(
        gauges.Named(
            "closedloop_backend_info",
            "1 for the backend that computes the encoder here.",
            lambda: [(serving.snapshot().backend.backend, serving.snapshot().chosen.name)],
            ("backend", "encoder"),
        )
    )
    sizes = Histogram(
        "closedloop_pass_pictures",
        "Pictures of a pass of the encoder.",
        buckets=(1, 2, 4, 8, 16, 32, 64),
        registry=registry,
    )
    remembered = Counter("closedloop_remembered_total", "Pictures that were seen before.", registry=registry)
    pipeline.workers.passes, pipeline.hits = sizes.observe, remembered.inc
    bodies = Bodies()
    app.state.pipeline, app.state.serving, app.state.bodies = pipeline, serving, bodies
    under_way = 0  # pictures
    app.add_middleware(RequestIds)
    app.mount("/static", StaticFiles(directory=Path(swagger_ui_path)), name="static")

    def refuse_if_full(asked: Asked, more: int = 1) -> None:
        # What would come too late is not begun, either.
        expected = time.monotonic() + (under_way + more) * pipeline.workers.seconds
        # What is alone is begun all the same: how long that takes corrects what was expected.
        if under_way + more > MAX_WAITING or (under_way and expected > asked.deadline):
            raise HTTPException(503, headers={"Retry-After": "1"})

    async def ask(request: Request, route: str, take: Take, method: Any, *arguments: Any) -> Any:
        nonlocal under_way
        asked = Asked(deadline(request, time.time(), time.monotonic()))
        refuse_if_full(asked)  # before the pictures are taken in, too
        async with take(request) as body:
            count = len(body) if isinstance(body, list) else 1
            refuse_if_full(asked, count)
            under_way += count
            waiting.set(under_way)
            started = time.perf_counter()
            try:
                answer = await unless_left(request, method(*arguments, body, asked))
                seconds.labels(route).observe(time.perf_counter() - started)
                return answer
            finally:
                under_way -= count
                waiting.set(under_way)

    @app.post("/v1/predict", openapi_extra=PICTURE, responses=FAULTS)
    async def predict(request: Request, project: str = Query(max_length=40), vector: bool = False) -> dict[str, Any]:
        """The live release's answer about the body's picture; `vector=true` adds its embedding (base64 float32)."""
        answer = await ask(request, "predict", bodies.picture, serving.predict, project)
        answers.labels(project, "predict").inc()
        if not vector:
            del answer["vector"]
        return answer

    @app.post("/v1/predict/batch", openapi_extra=BATCH, responses={**FAULTS, 200: {"content": {batch_lines.LINES: {}}}})
    async def predict_batch(
        request: Request, project: str = Query(max_length=40), vector: bool = False
    ) -> batch_lines.Lines:
        """The live release's answers about many pictures, 10,000 at most: a line of JSON for each, in their order, with
        its `index` and its `name`. One that cannot be answered is said in its line.
        """
        asked = Asked(deadline(request, time.time(), time.monotonic()), later=True)
        refuse_if_full(asked)
        serving.check(project)

        async def answer(data: bytes) -> dict[str, Any]:
            said = await serving.predict(project, data, asked)
            answers.labels(project, "batch").inc()
            if not vector:
                del said["vector"]
            return said

        return batch_lines.Lines(request, batch_pictures.pictures(request), answer, bodies)

    @app.post("/v1/rank", openapi_extra=SET, responses=FAULTS)
    async def rank(request: Request, project: str = Query(max_length=40)) -> dict[str, Any]:
        """Which of the form's two to twelve pictures is best: scores in their order, the position of the best (from 0),
        and the probability that it is the one which is chosen. With no release: scores of 0 and no best.
        """
        answer = await ask(request, "rank", bodies.pictures, serving.rank, project)
        answers.labels(project, "rank").inc()
        return answer

    @app.post("/v1/crop", openapi_extra=PICTURE, responses=FAULTS)
    async def crop(request: Request, project: str = Query(max_length=40)) -> dict[str, Any]:
        """Which part of the body's picture to keep, in fractions of its width and height, and the overlap (IoU) to
        expect with what a person would keep. With no release: all of it, and no confidence.
        """
        answer = await ask(request, "crop", bodies.picture, serving.crop, project)
        answers.labels(project, "crop").inc()
        return answer

    @app.post("/v1/similar", openapi_extra=PICTURE, responses=FAULTS)
    async def similar_pictures(
        request: Request, project: str = Query(max_length=40), count: int = Query(10, ge=1, le=MAX_SIMILAR)
    ) -> dict[str, Any]:
        """The kept pictures of a project that are most similar to the body's, with the cosine of their embeddings, and
        among how many they were found: those that were answered here, or that `closedloop embed` looked at.
        """
        return await ask(request, "similar", bodies.picture, similar.similar, project, count)

    @app.post("/v1/embed", openapi_extra=PICTURE, responses=FAULTS)
    async def embed(request: Request) -> dict[str, Any]:
        """The unit vector of the picture in the body, and the digest of the encoder that made it."""
        values, snapshot = await ask(request, "embed", bodies.picture, serving.embed)
        return {"ok": True, "encoder": snapshot.chosen.digest, "vector": [float(v) for v in values]}

    @app.get("/v1/releases", responses=AWAY)
    async def releases() -> dict[str, Any]:
        """Which release answers for each project and head, the encoder, and what everyone should know about both."""
        return serving.describe()

    @app.get("/healthz")
    async def healthz() -> dict[str, Any]:
        """The process runs."""
        return {"ok": True}

    @app.get("/readyz", responses=AWAY)
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

    faults.say(app)
    return app
