"""One release: what it learnt from, how it was judged, and whether it stays; and the way back to an earlier one."""

import json

from flask import Blueprint, Response, jsonify, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from closedloop import project as projects
from closedloop import releases
from closedloop.errors import BadRequest
from closedloop.project import CLASSIFIER
from flask_app import context, rights

pages = Blueprint("releases", __name__)


@pages.get("/p/<project_id>/releases/<head>/<release_id>")
def page(project_id: str, head: str, release_id: str) -> AnyResponse | str:
    """A release's card, for a person; as JSON the card itself."""
    who = rights.viewer(project_id)
    project = projects.get(context.stores(), project_id)
    found = releases.find(context.stores(), release_id, project.id, head)
    if context.wants_json():
        return jsonify(ok=True, state=found["state"], card=found["card"])
    every = {row["release"]: row for row in releases.listing(context.stores(), project.id) if row["head"] == head}
    return render_template(
        "release.html",
        project=project,
        release=every[found["id"]],
        card=found["card"],
        live=next((row for row in every.values() if row["state"] == "live"), None),
        pinned=next((row["release"] for row in every.values() if row["pinned"]), None),
        may_change=who.may_change(project.id),
        active="dashboard",
    )


@pages.get("/p/<project_id>/releases/<head>/<release_id>/card.json")
def card(project_id: str, head: str, release_id: str) -> Response:
    """The card as it lies in the store."""
    rights.viewer(project_id)
    project = projects.get(context.stores(), project_id)
    found = releases.find(context.stores(), release_id, project.id, head)
    text = json.dumps(found["card"], indent=2, ensure_ascii=False) + "\n"
    name = f"{project.id}-{head}-{found['id']}.json"
    return Response(
        text, mimetype="application/json", headers={"Content-Disposition": f'attachment; filename="{name}"'}
    )


@pages.post("/p/<project_id>/pin")
def pin(project_id: str) -> AnyResponse:
    """Keep a release live, or (with no `release`) let candidates take the live one's place again."""
    who = rights.owner(project_id)
    project = projects.get(context.stores(), project_id)
    head, wanted = request.form.get("head", CLASSIFIER), request.form.get("release")
    shown = request.form.get("shown") or wanted
    if not shown:
        raise BadRequest(reason="`release` or `shown` must name a release")
    if wanted:
        releases.pin(context.stores(), project.id, head, wanted, who.email, context.now())
    else:
        releases.unpin(context.stores(), project.id, head)
    if context.wants_json():
        return jsonify(ok=True, pinned=wanted)
    return redirect(url_for(".page", project_id=project.id, head=head, release_id=shown), 303)


@pages.post("/p/<project_id>/rollback")
def roll_back(project_id: str) -> AnyResponse:
    """Put the earlier release back."""
    rights.owner(project_id)
    project = projects.get(context.stores(), project_id)
    head = request.form.get("head", CLASSIFIER)
    shown = request.form.get("live")  # what the page showed: sent twice, it goes back once
    gone, back = releases.rollback(context.stores(), project.id, head, context.now(), shown)
    if context.wants_json():
        return jsonify(ok=True, retired=gone, live=back)
    return redirect(url_for("dashboard.page", project_id=project.id, _anchor="releases"), 303)
