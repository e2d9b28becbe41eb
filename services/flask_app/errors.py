"""Every error in one shape: JSON for programs, a fragment for htmx, a page for people."""

from flask import Flask, Response, g, make_response, render_template, request
from flask.globals import request_ctx
from werkzeug.exceptions import HTTPException

from closedloop.errors import ClosedloopError, UploadTooLarge
from closedloop.image import MAX_BYTES
from closedloop.logs import get_logger
from flask_app import context

_TEXTS = {
    400: ("bad_request", "The request cannot be understood."),
    404: ("not_found", "There is no page at this address."),
    405: ("method_not_allowed", "This address does not answer to that method."),
    415: ("unsupported_media_type", "This kind of content is not taken here."),
    431: ("bad_request", "The request's headers are too large."),
}


def register(app: Flask) -> None:
    """Answer every error of the application in the one shape."""

    @app.errorhandler(ClosedloopError)
    def ours(error: ClosedloopError) -> Response:
        if error.status >= 500:
            get_logger().warning("request failed", path=request.path, reason=error.explained())
        return _answer(str(error), error.code, error.status)

    @app.errorhandler(HTTPException)
    def http(error: HTTPException) -> Response:
        status = error.code or 500
        if status == 413:
            return ours(UploadTooLarge(limit_mb=MAX_BYTES // 10**6))
        code, text = _TEXTS.get(status, ("bad_request" if status < 500 else "error", error.description or error.name))
        answer = _answer(text, code, 400 if status == 431 else status)
        answer.headers.extend(h for h in error.get_headers() if h[0] in ("Allow", "Location", "Retry-After"))
        return answer

    @app.errorhandler(Exception)
    def unexpected(error: Exception) -> Response:
        get_logger().exception("request failed", path=request.path)
        return _answer(str(ClosedloopError()), ClosedloopError.code, 500)


def _answer(text: str, code: str, status: int) -> Response:
    has_addresses = (
        request_ctx.url_adapter is not None
    )  # a page has links, and a rubbish Host leaves nowhere to link to
    if "HX-Request" in request.headers:
        answer = make_response(render_template("_error.html", error=text), status)
    elif has_addresses and context.is_navigation() and not context.wants_json():
        answer = make_response(
            render_template("error.html", error=text, status=status, request_id=g.get("request_id", "")), status
        )
    else:
        answer = make_response({"ok": False, "error": text, "code": code}, status)
    if status == 503:
        answer.headers["Retry-After"] = "2"
    return answer
