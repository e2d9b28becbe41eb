"""The dashboard: how good the model is, who waits for what, which releases there were."""

import csv
import datetime as dt
import io
from typing import Any

from flask import Blueprint, Response, jsonify, redirect, render_template, request, url_for
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response as AnyResponse

from closedloop import production, releases, sampling, survey
from closedloop import project as projects
from closedloop.project import CLASSIFICATION, CLASSIFIER, SELECTION, Project
from closedloop.settings import Settings
from closedloop.storage import installation
from flask_app import context, rights

pages = Blueprint("dashboard", __name__)

FEWEST_DAYS = 14  # that are shown of a project, however young
_STANDING = (
    "pictures",
    "sample_share",
    "sample_low",
    "sample_high",
    "sample_answers",
    "weighted_share",
    "weighted_low",
    "weighted_high",
    "weighted_answers",
)
# What can be had as JSON or CSV: its columns, and for standings the name of what they are by.
TABLES: dict[str, tuple[str, ...]] = {
    "releases": ("release", *_STANDING, "offline_share", "offline_low", "offline_high", "state"),
    "weeks": ("week", *_STANDING),
    "classes": ("label", *_STANDING),
    "days": ("day", "pictures", "answers", "flagged", "share_flagged", "flags", "relabels"),
    "queues": ("queue", "waiting", "answered", "median_age"),
}
_SELECTION_TABLES = ("days", "queues")  # nothing is answered about a single picture of a set


@pages.get("/dashboard")
@pages.get("/p/<project_id>/dashboard")
def page(project_id: str | None = None) -> str | Response:
    """What an owner wants to know in ten seconds."""
    project_id = project_id or context.settings().closedloop_default_project
    who = rights.viewer(project_id)
    project = projects.get(context.stores(), project_id)
    taken = survey.latest(context.stores(), project.id)
    if "HX-Request" in request.headers:  # the page that waits for the first count
        return Response(status=204, headers={"HX-Refresh": "true"} if taken else {})
    counted_at, counted = taken or (None, {})
    registered = list(reversed(releases.listing(context.stores(), project.id)))
    if project.kind == SELECTION:
        return _of_selection(project, counted_at, counted, registered, who.may_change(project.id))
    live = next((row for row in registered if row["state"] == "live"), None)
    return render_template(
        "dashboard.html",
        project=project,
        counted_at=counted_at,
        counted=counted,
        tables={name: rows(name, counted, registered) for name in TABLES} if counted else {},
        releases=registered,
        live=live,
        standing=_of(counted, live),
        to_roll_back_to=releases.earlier(context.stores(), project.id, CLASSIFIER),
        may_change=who.may_change(project.id),
        labels=_label_studio(context.settings(), project),
        method=production.METHOD,
        drawn=request.args.get("drawn", type=int),
        active="dashboard",
    )


def _of_selection(
    project: Project,
    counted_at: dt.datetime | None,
    counted: dict[str, Any],
    registered: list[dict[str, Any]],
    may_change: bool,
) -> str:
    """The same of a project whose pictures come in sets: each head's releases by themselves."""
    heads = [(head, [row for row in registered if row["head"] == head]) for head in project.heads]
    return render_template(
        "dashboard_sets.html",
        project=project,
        counted_at=counted_at,
        counted=counted,
        tables={name: rows(name, counted, registered) for name in _SELECTION_TABLES} if counted else {},
        heads=[
            {
                "head": head,
                "releases": of_head,
                "live": next((row for row in of_head if row["state"] == "live"), None),
                "to_roll_back_to": releases.earlier(context.stores(), project.id, head),
            }
            for head, of_head in heads
        ],
        may_change=may_change,
        labels=_label_studio(context.settings(), project),
        active="dashboard",
    )


@pages.get("/p/<project_id>/dashboard/<table>.json")
def as_json(project_id: str, table: str) -> Response:
    """One of the dashboard's tables, as its chart reads it."""
    return jsonify(_rows(project_id, table))


@pages.get("/p/<project_id>/dashboard/<table>.csv")
def as_csv(project_id: str, table: str) -> Response:
    """One of the dashboard's tables, for a spreadsheet."""
    found = _rows(project_id, table)
    text = io.StringIO()
    writer = csv.DictWriter(text, TABLES[table])
    writer.writeheader()
    writer.writerows(found)
    name = f"{project_id}-{table}.csv"
    return Response(
        text.getvalue(), mimetype="text/csv", headers={"Content-Disposition": f'attachment; filename="{name}"'}
    )


@pages.post("/p/<project_id>/sample")
def draw(project_id: str) -> AnyResponse:
    """Draw a random sample now, besides those that are drawn by the project's schedule."""
    rights.owner(project_id)
    project = projects.get(context.stores(), project_id)
    project.check_kind(CLASSIFICATION)
    sample = sampling.draw_sample(context.stores(), project, context.now())
    if context.wants_json():
        return jsonify(ok=True, frame=sample.frame, drawn=sample.drawn, probability=sample.probability)
    return redirect(url_for(".page", project_id=project.id, drawn=sample.drawn), 303)


def rows(table: str, counted: dict[str, Any], registered: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of a table, flat, with the columns of TABLES."""
    if table == "days":
        days = counted[table]
        begun = next((at for at, day in enumerate(days) if any(day[name] for name in day if name != "day")), len(days))
        return [
            {**day, "share_flagged": day["flagged"] / day["answers"] if day["answers"] else None}
            for day in days[max(0, min(begun, len(days) - FEWEST_DAYS)) :]  # a young project has no past to show
        ]
    if table == "queues":
        return counted[table]
    found = [_flat(row) for row in counted[table]]
    if table == "releases":
        offline = {row["release"]: row for row in registered}
        found = [{**row, **_offline(offline.get(row["release"]))} for row in found]
    return found


def _rows(project_id: str, table: str) -> list[dict[str, Any]]:
    rights.viewer(project_id)
    project = projects.get(context.stores(), project_id)
    if table not in (TABLES if project.kind == CLASSIFICATION else _SELECTION_TABLES):
        raise NotFound
    taken = survey.latest(context.stores(), project.id)
    registered = releases.listing(context.stores(), project.id) if table == "releases" else []
    return rows(table, taken[1], registered) if taken else []


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    flat = {name: value for name, value in row.items() if name not in ("sample", "weighted")}
    for kind in ("sample", "weighted"):
        of = row[kind] or {}
        flat |= {f"{kind}_{name}": of.get(name) for name in ("share", "low", "high", "answers")}
    return flat


def _offline(release: dict[str, Any] | None) -> dict[str, Any]:
    if release is None:
        return dict.fromkeys(("offline_share", "offline_low", "offline_high", "state"))
    low, high = release["accuracy_95"]
    return {"offline_share": release["accuracy"], "offline_low": low, "offline_high": high, "state": release["state"]}


def _of(counted: dict[str, Any], live: dict[str, Any] | None) -> dict[str, Any] | None:
    """The standing of the live release; None while it has answered nobody."""
    found = (row for row in counted.get("releases", ()) if live and row["release"] == live["release"])
    return next(found, None)


def _label_studio(settings: Settings, project: Project) -> dict[str, str]:
    """Queue -> address of its Label Studio project in the browser, where it is made."""
    own = f"{request.scheme}://{request.host.rsplit(':', 1)[0]}:{settings.closedloop_label_studio_port}"
    base = (settings.label_studio_origins.split(",")[0].strip() or own).rstrip("/")
    with context.stores().db.read() as tx:
        made = {queue: installation.label_studio_project(tx, project.id, queue) for queue in project.queues}
    return {queue: f"{base}/projects/{row['ls_project']}/data" for queue, row in made.items() if row}


def age(seconds: float | None) -> str:
    """A time span in the unit that a person would choose."""
    if seconds is None:
        return "–"
    span = dt.timedelta(seconds=seconds)
    for unit, length in (("d", dt.timedelta(days=1)), ("h", dt.timedelta(hours=1)), ("min", dt.timedelta(minutes=1))):
        if span >= length:
            return f"{span / length:.0f} {unit}"
    return f"{seconds:.0f} s"
