"""The pictures of a project: the list, one picture's history, the pictures themselves, and exports."""

import contextlib
import csv
import datetime as dt
import io
import re
from collections.abc import Iterator
from typing import Any

import zipstream
from flask import Blueprint, Response, jsonify, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from closedloop import catalogue, history, image, removal, sets
from closedloop import project as projects
from closedloop.crops import Box
from closedloop.errors import StoreAway, UnknownPicture, UnknownSet
from closedloop.project import CLASSIFICATION, SELECTION, Project
from closedloop.storage import Stores, pictures
from flask_app import context, rights
from flask_app.filters import Faults, Query, asked, orders_of, queues_of

pages = Blueprint("images", __name__)

KEPT = "private, max-age=31536000, immutable"  # a picture's name is its digest: it never changes
SETS = 20  # of those that a picture is in, on its page
COLUMNS = ("image_id", "arrived_at", "label", "confidence", "flagged", "user_label", "answer", "disagrees")


@pages.get("/p/<project_id>/images")
def page(project_id: str) -> AnyResponse | tuple[str, int] | str:
    """The list, filtered and sorted, a page at a time."""
    who = rights.viewer(project_id)
    project = projects.get(context.stores(), project_id)
    typed = {name: value for name, value in request.args.items() if value}
    key, backwards = typed.get("after") or typed.get("before"), "before" in typed and "after" not in typed
    try:
        query = asked(project)
        found = catalogue.page(context.stores(), project.id, query.filter(), query.order, key, backwards)
        faults: dict[str, str] = {}
    except Faults as error:
        if context.wants_json():
            raise error.refusal() from None
        found, faults = catalogue.Page(), error.by_field
    if context.wants_json():
        return jsonify(
            ok=True,
            pictures=[_as_json(project, entry) for entry in found.entries],
            after=found.after,
            before=found.before,
        )
    kept = {name: value for name, value in typed.items() if name in Query.model_fields}
    shown = render_template(
        "images.html",
        project=project,
        found=found,
        typed=typed,
        faults=faults,
        kept=kept,
        is_filtered=bool(kept.keys() - {"order", "zone"}),
        orders=orders_of(project),
        queues=queues_of(project),
        may_change=who.may_change(project.id),
        active="images",
    )
    return (shown, 400) if faults else shown


@pages.get("/p/<project_id>/images.csv")
def as_csv(project_id: str) -> Response:
    """The filtered list as CSV."""
    project, entries = _chosen(project_id)
    columns = columns_of(project)

    def lines() -> Iterator[str]:
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(columns)
        for entry in entries:
            writer.writerow(_plain(getattr(entry, name)) for name in columns)
            if text.tell() > 2**15:
                yield text.getvalue()
                text.seek(0)
                text.truncate()
        yield text.getvalue()

    return Response(lines(), mimetype="text/csv", headers=_attached(f"{project.id}-images.csv"))


@pages.get("/p/<project_id>/images.zip")
def as_folder(project_id: str) -> Response:
    """The filtered pictures that have an answer, a folder per class (ImageFolder), as they are read."""
    project, entries = _chosen(project_id)
    project.check_kind(CLASSIFICATION)
    stores = context.stores()
    archive = zipstream.ZipStream(compress_type=zipstream.ZIP_STORED)  # JPEGs do not get smaller
    chunks = _zipped(archive, stores, project, entries)
    return Response(chunks, mimetype="application/zip", headers=_attached(f"{project.id}-images.zip"))


@pages.get("/p/<project_id>/images/<image_id>")
def show(project_id: str, image_id: str) -> AnyResponse | str:
    """One picture with its whole history."""
    who = rights.viewer(project_id)
    project = projects.get(context.stores(), project_id)
    found = history.of(context.stores(), project.id, image_id)
    if context.wants_json():
        return jsonify(ok=True, picture_url=rights.link_to(project.id, image_id), **_history_as_json(found))
    told = _in_sets(found) if project.kind == SELECTION else []
    return render_template(
        "image.html",
        project=project,
        history=found,
        in_sets=told,
        proposed=_proposed(found, told),
        may_change=who.may_change(project.id),
        active="images",
    )


@pages.post("/p/<project_id>/images/<image_id>/remove")
def remove(project_id: str, image_id: str) -> AnyResponse:
    """An owner removes a picture with everything that was derived from it."""
    who = rights.owner(project_id)
    removal.remove(context.stores(), project_id, image_id, who.email, context.now())
    if context.wants_json():
        return jsonify(ok=True)
    return redirect(url_for(".removed", project_id=project_id), 303)


@pages.get("/p/<project_id>/removed")
def removed(project_id: str) -> str:
    """The pictures that were removed, and the releases that had learnt from them."""
    rights.viewer(project_id)
    project = projects.get(context.stores(), project_id)
    tombstones = removal.listing(context.stores(), project.id)
    return render_template("removed.html", project=project, tombstones=tombstones, active="images")


@pages.get("/p/<project_id>/images/<image_id>/picture")
def picture(project_id: str, image_id: str) -> Response:
    """The picture itself, for whoever has a right to it."""
    rights.picture(project_id, image_id)
    return _jpeg(_stored(context.stores(), project_id, image_id))


@pages.get("/p/<project_id>/images/<image_id>/thumbnail")
def thumbnail(project_id: str, image_id: str) -> Response:
    """A small copy, made when it is first looked at and kept."""
    rights.picture(project_id, image_id)
    stores, key = context.stores(), removal.thumbnail_key(project_id, image_id)
    row = _there(stores, project_id, image_id)
    try:
        small = stores.objects.get(key)
    except FileNotFoundError:
        small = image.thumbnail(_stored(stores, project_id, image_id))
        stores.objects.put(key, small)
        removal.look_again(stores, project_id, image_id, row["key"], context.now())
    return _jpeg(small)


def _there(stores: Stores, project_id: str, image_id: str) -> Any:
    """The record of a picture that is there; raises UnknownPicture."""
    with stores.db.read() as tx:
        row = pictures.image(tx, project_id, image_id)
    if row is None or row["removed_at"] is not None:
        raise UnknownPicture
    return row


def _stored(stores: Stores, project_id: str, image_id: str) -> bytes:
    row = _there(stores, project_id, image_id)
    try:
        return stores.objects.get(row["key"])
    except (FileNotFoundError, StoreAway):  # it may have moved to its class a moment ago, which a store need not tell
        with stores.db.read() as tx:
            again = pictures.image(tx, project_id, image_id)
        if again is None or again["removed_at"] is not None:
            raise UnknownPicture from None
        if again["key"] == row["key"]:
            raise
        return stores.objects.get(again["key"])


def _jpeg(data: bytes) -> Response:
    return Response(data, mimetype="image/jpeg", headers={"Cache-Control": KEPT})


def _chosen(project_id: str) -> tuple[Project, Iterator[catalogue.Entry]]:
    rights.viewer(project_id)
    project = projects.get(context.stores(), project_id)
    try:
        query = asked(project)
    except Faults as error:
        raise error.refusal() from None
    return project, catalogue.every(context.stores(), project.id, query.filter(), query.order)


def _zipped(
    archive: zipstream.ZipStream, stores: Stores, project: Project, entries: Iterator[catalogue.Entry]
) -> Iterator[bytes]:
    for entry in entries:
        if entry.answer is None:
            continue
        try:
            jpeg = _stored(stores, project.id, entry.image_id)
        except (UnknownPicture, FileNotFoundError):  # removed since the list was read
            continue
        archive.add(jpeg, f"{_folder(entry.answer)}/{entry.image_id}.jpg")
        yield from archive.all_files()
    yield from archive.finalize()


def _folder(label: str) -> str:
    """The folder of a class: its name, with what no file system takes as %XX, so that two classes have two folders."""
    return re.sub(r'[/\\:*?"<>|%]|^\.', lambda found: f"%{ord(found[0]):02X}", label)


def _attached(name: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{name}"'}


def _plain(value: Any) -> Any:
    if isinstance(value, dt.datetime):
        return value.isoformat()
    if isinstance(value, bool):
        return int(value)
    return "" if value is None else value


def columns_of(project: Project) -> tuple[str, ...]:
    """What the list says of a picture: nothing is answered about a single picture of a set."""
    return COLUMNS if project.kind == CLASSIFICATION else ("image_id", "arrived_at")


def _as_json(project: Project, entry: catalogue.Entry) -> dict[str, Any]:
    said = {name: getattr(entry, name) for name in columns_of(project)}
    said["arrived_at"] = entry.arrived_at.isoformat()
    return {**said, "url": url_for(".show", project_id=project.id, image_id=entry.image_id)}


def _in_sets(found: history.History) -> list[tuple[sets.PictureSet, str | None]]:
    """The first of the sets that a picture is in, each with the picture that people chose."""
    told = []
    for id_ in found.sets[:SETS]:
        with contextlib.suppress(UnknownSet):  # removed at this moment
            told.append(
                (sets.get(context.stores(), id_), history.picked(context.stores(), found.picture["project_id"], id_))
            )
    return told


def _proposed(found: history.History, told: list[tuple[sets.PictureSet, str | None]]) -> sets.Crop | None:
    """The part of a picture that a release would keep, where it is the best of a set."""
    return next((one.crop for one, _ in told if one.best == found.picture["id"] and one.crop), None)


def _history_as_json(found: history.History) -> dict[str, Any]:
    def told(value: Any) -> Any:
        if isinstance(value, dt.datetime):
            return value.isoformat()
        if isinstance(value, list):
            return [told(one) for one in value]
        if isinstance(value, Box):
            return {name: getattr(value, name) for name in ("x1", "y1", "x2", "y2")}
        if hasattr(value, "keys"):
            hidden = ("visitor", "idempotency_key")
            return {name: told(value[name]) for name in value.keys() if name not in hidden}  # noqa: SIM118
        return value

    names = ("picture", "predictions", "feedback", "tasks", "imported", "answer", "sets", "crop", "datasets")
    return {name: told(getattr(found, name)) for name in names}
