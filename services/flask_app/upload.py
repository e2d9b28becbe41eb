"""The upload page: pictures come in, answers go out, and a visitor sees and removes what he sent."""

from typing import Any

from flask import Blueprint, Response, jsonify, make_response, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from closedloop import prediction, removal
from closedloop import project as projects
from closedloop.errors import BadRequest, ClosedloopError, InferenceAway, UnknownPrediction
from closedloop.prediction import Prediction
from closedloop.project import CLASSIFICATION, SELECTION, Project
from flask_app import bodies, context, rights, sets
from flask_app.texts import error_text

pages = Blueprint("upload", __name__)

MAX_KEY = 200  # characters of an Idempotency-Key
AT_ONCE = 20  # pictures of one form; the page's script sends one at a time
SHOWN = 12  # of a visitor's own last pictures
FEW = 7  # classes among which one chooses from a list; among more, one types


@pages.get("/")
@pages.get("/p/<project_id>/")
def page(project_id: str | None = None) -> str:
    """The page of a project on which one sends pictures, by default of the installation's own."""
    project = _project(project_id)
    rights.visit(project)
    return sets.page(project) if project.kind == SELECTION else _page(project, [])


def _page(project: Project, faults: list[str]) -> str:
    me = rights.visitor(make=True)
    mine = prediction.of_visitor(context.stores(), project.id, me, SHOWN) if me else []
    try:
        said = context.inference().releases()
        notices, answers = said["notices"], _answers(said, project.id)
    except (InferenceAway, KeyError):
        notices, answers = [], False
    return render_template(
        "upload.html",
        project=project,
        notices=notices,
        answers=answers,
        faults=faults,
        mine=[fragment(made, project) for made in mine],
    )


@pages.post("/predict")
@pages.post("/p/<project_id>/predict")
def predict(project_id: str | None = None) -> AnyResponse:
    """Take a picture: 201 with its answer, 202 where the answer comes later. A form without script may send several."""
    project = _project(project_id)
    rights.visit(project)
    project.check_kind(CLASSIFICATION)
    key = request.headers.get("Idempotency-Key")
    if key is not None and not (0 < len(key) <= MAX_KEY and key.isprintable()):
        raise BadRequest(reason=f"an Idempotency-Key has 1 to {MAX_KEY} printable characters")
    files = bodies.files()
    several = context.is_navigation() and not context.wants_json()
    if len(files) > (AT_ONCE if several else 1):
        raise BadRequest(reason=f"send {f'at most {AT_ONCE} pictures' if several else 'one picture'} a request")
    rights.count_upload(len(files))
    me = rights.visitor(make=True)
    made: list[Prediction] = []
    faults: list[str] = []
    for file in files:
        try:
            made.append(
                prediction.receive(context.stores(), context.inference(), project, file.read(), context.now(), key, me)
            )
        except ClosedloopError as error:
            if len(files) == 1 or error.status >= 500:
                raise
            faults.append(f"{file.filename}: {error_text(error.code, str(error), **error.details)}")
            continue
        context.uploads().labels(project.id, made[-1].status).inc()
    if faults:  # the others are kept, and answered
        return Response(_page(project, faults), 422)
    status = 202 if made[0].status == "pending" else 201
    if context.wants_json():
        return make_response(made[0].as_json(), status)
    if len(made) > 1:
        return redirect(url_for(".page", project_id=project.id), 303)
    if context.is_navigation():
        return redirect(url_for(".show", prediction_id=made[0].id), 303)
    return Response(fragment(made[0], project), status)


@pages.get("/predictions/<prediction_id>")
def show(prediction_id: str) -> AnyResponse:
    """One prediction: how a picture that was kept turned out."""
    made, project = visited(prediction_id)
    if "HX-Request" in request.headers:
        if made.status == "pending":
            return Response(status=204)  # nothing is swapped: what a visitor types meanwhile stays
        return Response(fragment(made, project))
    if context.is_navigation() and not context.wants_json():
        return Response(render_template("prediction.html", project=project, fragment=fragment(made, project)))
    return jsonify(made.as_json())


@pages.post("/predictions/<prediction_id>/remove")
def remove(prediction_id: str) -> AnyResponse:
    """A visitor takes back what he sent."""
    _, project = visited(prediction_id)
    me = rights.visitor()
    if me is None:
        raise UnknownPrediction
    removal.take_back(context.stores(), prediction_id, me, context.now())
    if "HX-Request" in request.headers:
        return Response(render_template("_removed.html"))
    if context.is_navigation() and not context.wants_json():
        return redirect(url_for(".page", project_id=project.id), 303)
    return jsonify(ok=True)


def visited(prediction_id: str) -> tuple[Prediction, Project]:
    """A prediction and its project, if who asks may see it; raises UnknownPrediction, SignInNeeded or NotAllowed."""
    made = prediction.get(context.stores(), prediction_id)
    project = projects.get(context.stores(), made.project)
    rights.visit(project)
    return made, project


def fragment(made: Prediction, project: Project, fault: str = "", typed: str = "") -> str:
    """The part of a page that shows one answer and asks whether it is right; `fault` is what is wrong with `typed`."""
    return render_template(
        "_answer.html",
        prediction=made,
        project=project,
        ranking=ranking,
        few=FEW,
        is_mine=is_mine(made),
        fault=fault,
        typed=typed,
    )


def is_mine(made: Prediction) -> bool:
    """Whether who asks sent this picture."""
    me = rights.visitor()
    return me is not None and made.visitor == me


def ranking(made: Prediction) -> list[tuple[str, float]]:
    """The three likeliest classes, where a model answered."""
    if made.label is None:
        return []
    return sorted(made.probabilities.items(), key=lambda pair: -pair[1])[:3]


def _answers(said: dict[str, Any], project_id: str) -> bool:
    """Whether a model answers for the project, by what the inference service says of itself."""
    released = any(entry["project"] == project_id and entry["release"] for entry in said["releases"])
    return released or said["encoder"]["knows_words"]


def _project(project_id: str | None) -> Project:
    return projects.get(context.stores(), project_id or context.settings().closedloop_default_project)
