"""The upload page: a picture comes in, the answer goes out."""

from flask import Blueprint, Response, jsonify, make_response, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from closedloop import prediction
from closedloop import project as projects
from closedloop.errors import BadRequest, ClosedloopError, EmptyUpload, InferenceAway
from closedloop.prediction import Prediction
from flask_app import context

pages = Blueprint("upload", __name__)

MAX_KEY = 200  # characters of an Idempotency-Key


class NotMultipart(ClosedloopError):
    """The picture must come as multipart/form-data, in the field "file"."""

    code = "not_multipart"
    status = 415


@pages.get("/")
@pages.get("/p/<project_id>/")
def page(project_id: str | None = None) -> str:
    """The upload page of a project, by default the installation's own."""
    project = projects.get(context.stores(), project_id or context.settings().closedloop_default_project)
    try:
        notices = context.inference().releases()["notices"]
    except (InferenceAway, KeyError):
        notices = ["No model answers at this moment. Pictures are kept and answered as soon as one is back."]
    return render_template("upload.html", project=project, notices=notices)


@pages.post("/predict")
@pages.post("/p/<project_id>/predict")
def predict(project_id: str | None = None) -> AnyResponse:
    """Take a picture: 201 with its answer, 202 where the answer comes later."""
    project = projects.get(context.stores(), project_id or context.settings().closedloop_default_project)
    key = request.headers.get("Idempotency-Key")
    if key is not None and not (0 < len(key) <= MAX_KEY and key.isprintable()):
        raise BadRequest(reason=f"an Idempotency-Key has 1 to {MAX_KEY} printable characters")
    if request.mimetype not in ("", "multipart/form-data"):
        raise NotMultipart
    file = request.files.get("file")
    if file is None:
        raise EmptyUpload
    made = prediction.receive(context.stores(), context.inference(), project, file.read(), context.now(), key)
    context.uploads().labels(project.id, made.status).inc()
    status = 202 if made.status == "pending" else 201
    if context.wants_json():
        return make_response(made.as_json(), status)
    if context.is_navigation():
        return redirect(url_for(".show", prediction_id=made.id), 303)
    return Response(fragment(made, project), status)


@pages.get("/predictions/<prediction_id>")
def show(prediction_id: str) -> AnyResponse:
    """One prediction: how a picture that was kept turned out."""
    made = prediction.get(context.stores(), prediction_id)
    project = projects.get(context.stores(), made.project)
    if "HX-Request" in request.headers:
        return Response(fragment(made, project))
    if context.is_navigation() and not context.wants_json():
        return Response(render_template("prediction.html", project=project, prediction=made, ranking=ranking(made)))
    return jsonify(made.as_json())


def fragment(made: Prediction, project: projects.Project) -> str:
    """The part of a page that shows one answer and asks whether it is right."""
    return render_template("_answer.html", prediction=made, project=project, ranking=ranking(made))


def ranking(made: Prediction) -> list[tuple[str, float]]:
    """The three likeliest classes, where a model answered."""
    if made.label is None:
        return []
    return sorted(made.probabilities.items(), key=lambda pair: -pair[1])[:3]
