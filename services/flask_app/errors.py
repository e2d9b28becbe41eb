"""Every error in one shape: JSON for programs, a fragment for htmx, a page for people."""

from urllib.parse import urlsplit

from flask import Flask, Response, g, make_response, redirect, render_template, request, url_for
from flask.globals import request_ctx
from werkzeug.exceptions import HTTPException

from closedloop.errors import (
    ClosedloopError,
    EmptyUpload,
    PictureOfSet,
    ProjectClosed,
    SignInNeeded,
    TooManyRequests,
    UploadTooLarge,
)
from closedloop.logs import get_logger
from flask_app import bodies, context
from flask_app.texts import error_text, text

_CODES = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    415: "unsupported_media_type",
    431: "bad_headers",
}


def register(app: Flask) -> None:
    """Answer every error of the application in the one shape."""

    @app.errorhandler(ClosedloopError)
    def ours(error: ClosedloopError) -> Response:
        if error.status >= 500:
            get_logger().warning("request failed", page=str(request.url_rule), reason=error.explained())
        if isinstance(error, SignInNeeded) and _is_page() and request.method == "GET":
            closed = "1" if isinstance(error, ProjectClosed) else None
            wanted = request.full_path.rstrip("?")
            return make_response(redirect(url_for("sign_in.page", next=wanted, closed=closed), 303))
        answer = _answer(str(error), shown(error), error.code, error.status)
        if isinstance(error, TooManyRequests):
            answer.headers["Retry-After"] = str(error.details["seconds"])
        return answer

    @app.errorhandler(HTTPException)
    def http(error: HTTPException) -> Response:
        status = error.code or 500
        if status == 413:
            return ours(UploadTooLarge(limit_mb=bodies.megabytes(request.path)))
        code = _CODES.get(status, "bad_request" if status < 500 else "error")
        said = error_text(code, error.description or error.name) if status in _CODES else error.description or ""
        answer = _answer(said, said, code if status != 431 else "bad_request", 400 if status == 431 else status)
        answer.headers.extend(h for h in error.get_headers() if h[0] in ("Allow", "Location", "Retry-After"))
        return answer

    @app.errorhandler(Exception)
    def unexpected(error: Exception) -> Response:
        get_logger().exception("request failed", page=str(request.url_rule))
        said = str(ClosedloopError())
        return _answer(said, error_text(ClosedloopError.code, said), ClosedloopError.code, 500)


def shown(error: ClosedloopError) -> str:
    """What a page says about an error."""
    if isinstance(error, PictureOfSet):
        reason = text("sets.empty") if error.code == EmptyUpload.code else error.details["reason"]
        return text("sets.fault", number=error.details["number"], reason=reason)
    return error_text(error.code, str(error), **error.details)


def _is_page() -> bool:
    """Whether the answer goes to a person: a page has links, and a rubbish Host leaves nowhere to link to."""
    return request_ctx.url_adapter is not None and context.is_navigation() and not context.wants_json()


def _answer(said: str, for_people: str, code: str, status: int) -> Response:
    """`said` is for programs."""
    if "HX-Request" in request.headers:
        answer = make_response(render_template("_error.html", error=for_people), status)
        # What was asked for stays as it is, with the error elsewhere on the page; what is gone goes.
        if request.method == "POST":
            answer.headers.update({"HX-Retarget": "#trouble", "HX-Reswap": "innerHTML"})
        else:
            answer.headers["HX-Reswap"] = "delete" if status == 404 else "none"
    elif _is_page():
        answer = make_response(
            render_template(
                "error.html", error=for_people, status=status, request_id=g.get("request_id", ""), back=_back()
            ),
            status,
        )
    else:
        answer = make_response({"ok": False, "error": said, "code": code}, status)
    if status == 503:
        answer.headers["Retry-After"] = "2"
    return answer


def _back() -> str:
    """The page from which a form was sent, if it is one of ours: what was typed is still in it."""
    try:
        sent_from = urlsplit(request.referrer or "")
    except ValueError:
        return "/"
    return sent_from.path if sent_from.netloc == request.host and request.method == "POST" else "/"
