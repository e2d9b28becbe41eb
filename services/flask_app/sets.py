"""The page of a selection: sets of pictures come in, the best of each goes out with a crop of it."""

from collections.abc import Sequence
from typing import Any

from flask import Blueprint, Response, jsonify, make_response, redirect, render_template, request, url_for
from werkzeug.datastructures import FileStorage
from werkzeug.wrappers import Response as AnyResponse

from closedloop import history, removal, sets
from closedloop import project as projects
from closedloop.errors import InferenceAway, NotAllowed, PictureOfSet, SamePictureTwice, UnknownSet
from closedloop.image import MAX_BYTES
from closedloop.project import RANKER, SELECTION, Project
from closedloop.sets import LEAST, MOST, PictureSet
from flask_app import bodies, context, errors, rights

pages = Blueprint("sets", __name__)

SHOWN = 6  # of a visitor's own last sets


class _Unread(Sequence[bytes]):
    """The files of a set, each read when its turn comes, and no more of it than a picture may have."""

    def __init__(self, files: Sequence[FileStorage]) -> None:
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, at: Any) -> Any:
        file = self._files[at]
        file.stream.seek(0)
        return file.stream.read(MAX_BYTES + 1)


def page(project: Project) -> str:
    """The page of a selection, on which one chooses pictures and sees what became of one's sets."""
    me = rights.visitor(make=True)
    mine = sets.of_visitor(context.stores(), project.id, me, SHOWN) if me else []
    notices, answers = _inference(project.id)
    return render_template(
        "sets.html",
        project=project,
        notices=notices,
        answers=answers,
        mine=[fragment(of_set, project) for of_set in mine],
        least=LEAST,
        most=MOST,
        max_bytes=MAX_BYTES,
    )


@pages.post("/p/<project_id>/sets")
def send(project_id: str) -> AnyResponse:
    """Take the pictures of a set: 201 with what is suggested, 202 where that comes later."""
    project = projects.get(context.stores(), project_id)
    rights.visit(project)
    project.check_kind(SELECTION)
    files = bodies.files()
    sets.check_size(len(files))
    rights.count_upload(len(files))
    me = rights.visitor(make=True)
    try:
        made = sets.receive(context.stores(), context.inference(), project, _Unread(files), context.now(), me)
    except (PictureOfSet, SamePictureTwice) as error:
        if "HX-Request" not in request.headers or error.status >= 500:
            raise
        return Response(
            render_template("_error.html", error=errors.shown(error), pictures=_at_fault(error)), error.status
        )
    context.uploads().labels(project.id, made.status).inc(len(files))
    status = 202 if made.status == "pending" else 201
    if context.wants_json():
        return make_response(made.as_json(), status)
    if context.is_navigation():
        return redirect(url_for(".show", set_id=made.id), 303)
    return Response(fragment(made, project), status)


@pages.get("/sets/<set_id>")
def show(set_id: str) -> AnyResponse:
    """One set: what is suggested, or that nothing is yet."""
    of_set, project = visited(set_id)
    if "HX-Request" in request.headers:
        return Response(status=204) if of_set.status == "pending" else Response(fragment(of_set, project))
    if context.is_navigation() and not context.wants_json():
        return Response(render_template("prediction.html", project=project, fragment=fragment(of_set, project)))
    return jsonify(of_set.as_json())


@pages.post("/sets/<set_id>/remove")
def remove(set_id: str) -> AnyResponse:
    """A visitor takes back the set that he sent, or an owner removes it."""
    of_set, project = visited(set_id)
    who = rights.signed_in()
    if is_mine(of_set):
        removal.remove_set(context.stores(), set_id, removal.VISITOR, context.now(), rights.visitor())
    elif who and who.may_change(project.id):
        removal.remove_set(context.stores(), set_id, who.email, context.now())
    elif who and who.may_see(project.id):
        raise NotAllowed
    else:
        raise UnknownSet
    if "HX-Request" in request.headers:
        return Response(render_template("_removed.html"))
    if context.is_navigation() and not context.wants_json():
        return redirect(url_for("upload.page", project_id=project.id), 303)
    return jsonify(ok=True)


def visited(set_id: str) -> tuple[PictureSet, Project]:
    """A set and its project, if who asks may see it; raises UnknownSet, SignInNeeded or NotAllowed."""
    of_set = sets.get(context.stores(), set_id)
    project = projects.get(context.stores(), of_set.project)
    rights.visit(project)
    return of_set, project


def is_mine(of_set: PictureSet) -> bool:
    """Whether who asks sent this set."""
    me = rights.visitor()
    return me is not None and sets.is_sent_by(context.stores(), of_set, me)


def fragment(of_set: PictureSet, project: Project) -> str:
    """The part of a page that shows one set; its pictures are shown to who sent it and to members."""
    who, mine = rights.signed_in(), is_mine(of_set)
    member = who is not None and who.may_see(project.id)
    return render_template(
        "_set.html",
        of_set=of_set,
        project=project,
        sizes=sets.sizes(context.stores(), of_set),
        places=places(of_set),
        seen=mine or member,
        picked=history.picked(context.stores(), project.id, of_set.id) if member else None,
        may_remove=mine or (who is not None and who.may_change(project.id)),
    )


def places(of_set: PictureSet) -> dict[str, int]:
    """Picture -> its place in the order of the scores, from 1; nothing where no release has scored them."""
    if of_set.best is None or not of_set.scores:
        return {}
    in_order = sorted(of_set.scores, key=lambda image_id: (image_id != of_set.best, -(of_set.scores or {})[image_id]))
    return {image_id: place for place, image_id in enumerate(in_order, start=1)}


def _at_fault(error: PictureOfSet | SamePictureTwice) -> str:
    """The numbers of the pictures that an error is about, for the page's script."""
    return " ".join(str(error.details[name]) for name in ("number", "first", "second") if name in error.details)


def _inference(project_id: str) -> tuple[list[str], bool]:
    """What the inference service wants people to know, and whether a ranker answers for the project."""
    try:
        said = context.inference().releases()
        answers = any(
            entry["project"] == project_id and entry["release"] and entry.get("head", RANKER) == RANKER
            for entry in said["releases"]
        )
        return said["notices"], answers
    except (InferenceAway, KeyError):
        return [], False
