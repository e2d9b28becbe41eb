"""Everything that goes wrong, in the one error shape; and what the schema says of it."""

from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from closedloop.errors import ClosedloopError
from closedloop.logs import get_logger
from inference_api.callers import Left

CLIENT_CLOSED_REQUEST = 499  # as nginx counts those who hung up; nobody reads it
BUSY = ("busy", "Too many pictures are waiting. Try again in a moment.")
_HTTP_ERRORS = {
    404: ("not_found", "There is nothing at this address. /docs lists what there is."),
    405: ("method_not_allowed", "This address does not answer to that method. /docs lists what there is."),
    503: BUSY,
}


class Fault(BaseModel):
    """The one shape of every error."""

    ok: bool = False
    error: str  # for a person
    code: str  # for a program


FAULTS: dict[int | str, dict[str, Any]] = {
    400: {"model": Fault, "description": "The body holds no picture, or is no form"},
    404: {"model": Fault, "description": "Unknown project"},
    413: {"model": Fault, "description": "Too many bytes or pixels"},
    415: {"model": Fault, "description": "Not a JPEG, PNG or WebP, or a set that is no form"},
    422: {"model": Fault, "description": "A picture, a set or a project that cannot be used, or a query not valid"},
    503: {"model": Fault, "description": "Not ready, or too many pictures are waiting"},
    504: {"model": Fault, "description": "The deadline is over"},
}
AWAY: dict[int | str, dict[str, Any]] = {503: FAULTS[503]}


def say(app: FastAPI) -> None:
    """Have an application answer whatever goes wrong in the one shape."""

    @app.exception_handler(ClosedloopError)
    async def said(_request: Request, error: ClosedloopError) -> JSONResponse:
        headers = {"Retry-After": "2"} if error.status == 503 else None
        return JSONResponse(error.as_json(), error.status, headers)

    @app.exception_handler(Left)
    async def left(_request: Request, _error: Left) -> Response:
        return Response(status_code=CLIENT_CLOSED_REQUEST)

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
