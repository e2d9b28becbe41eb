"""What visitors say about an answer: that it is wrong, or what the picture shows."""

from typing import TypeVar

from flask import Blueprint, Response, jsonify, redirect, render_template, request, url_for
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from werkzeug.wrappers import Response as AnyResponse

from closedloop import feedback
from closedloop.errors import BadRequest, ClosedloopError, UnknownClass
from flask_app import context, upload

pages = Blueprint("feedback", __name__)

MAX_BODY = 64 * 1024
THANKS = "Thank you for your feedback!"

Fields = TypeVar("Fields", bound=BaseModel)


class InvalidFields(ClosedloopError):
    """The request is not valid: {faults}."""

    code = "invalid"
    status = 422


class TooMuchText(ClosedloopError):
    """What was sent is far longer than any feedback. Send the prediction's id and, for a label, its name."""

    code = "too_large"
    status = 413


class NotJson(ClosedloopError):
    """Send this as JSON (Content-Type: application/json) or as a form."""

    code = "not_json"
    status = 415


class _Flag(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)
    prediction_id: str = Field(max_length=64, pattern=r"^[^\x00]*$")


class _Label(_Flag):
    label: str = Field(max_length=200)


@pages.post("/feedback")
def flag() -> AnyResponse:
    """The visitor says that the answer is wrong. Saying it twice is saying it once."""
    said = _parse(_Flag)
    upload.visited(said.prediction_id)
    feedback.flag(context.stores(), said.prediction_id, context.now())
    return _thanks(said.prediction_id)


@pages.post("/feedback/undo")
def undo_flag() -> AnyResponse:
    """The visitor flagged by mistake."""
    said = _parse(_Flag)
    upload.visited(said.prediction_id)
    feedback.take_back_flag(context.stores(), said.prediction_id, context.now())
    return _thanks(said.prediction_id)


@pages.post("/label")
def label() -> AnyResponse:
    """The visitor says what the picture shows."""
    said = _parse(_Label)
    made, project = upload.visited(said.prediction_id)
    try:
        feedback.relabel(context.stores(), said.prediction_id, said.label, context.now())
    except UnknownClass as error:
        if context.wants_json() or request.is_json:
            raise
        # Beside its field, with what was typed.
        if "HX-Request" in request.headers:
            return Response(upload.fragment(made, project, str(error), said.label), error.status)
        shown = render_template(
            "prediction.html", project=project, fragment=upload.fragment(made, project, str(error), said.label)
        )
        return Response(shown, error.status)
    return _thanks(said.prediction_id)


@pages.post("/label/undo")
def undo_label() -> AnyResponse:
    """The visitor named the picture by mistake."""
    said = _parse(_Flag)
    upload.visited(said.prediction_id)
    feedback.take_back_label(context.stores(), said.prediction_id, context.now())
    return _thanks(said.prediction_id)


def _parse(kind: type[Fields]) -> Fields:
    if (request.content_length or 0) > MAX_BODY:
        raise TooMuchText
    try:
        if request.is_json:
            return kind.model_validate_json(request.get_data())
        if request.mimetype in ("application/x-www-form-urlencoded", "multipart/form-data"):
            return kind.model_validate(request.form.to_dict())
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, fault['loc']))} {fault['msg']}".strip() for fault in error.errors()]
        if any(fault["type"] == "json_invalid" for fault in error.errors()):
            raise BadRequest(reason=faults[0][:200]) from None
        raise InvalidFields(faults="; ".join(faults)[:500]) from None
    raise NotJson


def _thanks(prediction_id: str) -> AnyResponse:
    if "HX-Request" in request.headers:
        return Response(upload.fragment(*upload.visited(prediction_id)))
    if context.is_navigation() and not context.wants_json():
        return redirect(url_for("upload.show", prediction_id=prediction_id), 303)
    return jsonify(success=True, message=THANKS)
