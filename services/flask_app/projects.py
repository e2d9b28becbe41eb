"""Projects: the list, a manifest as a form with every change kept, and who belongs to a project."""

import copy
from typing import Any

import yaml
from flask import Blueprint, Response, redirect, render_template, request, url_for
from pydantic import ValidationError
from werkzeug.wrappers import Response as AnyResponse

from closedloop import accounts
from closedloop import project as projects
from closedloop.accounts import OWNER, ROLES, VIEWER, VISITOR
from closedloop.errors import BadRequest, ClassesChanged, NoSuchAccount, NotAllowed, ProjectExists
from closedloop.project import CLASSIFICATION, SELECTION, Project
from flask_app import context, rights
from flask_app.texts import fault_text, text

pages = Blueprint("projects", __name__)

# Field of the form -> place in the manifest.
FIELDS = {
    "id": ("id",),
    "title": ("title",),
    "classes": ("classes",),
    "access": ("access",),
    "low_confidence": ("thresholds", "low_confidence"),
    "sample_share": ("random_sample", "share"),
    "sample_at_least": ("random_sample", "at_least"),
    "sample_cron": ("random_sample", "cron"),
    "sync_cron": ("sync", "cron"),
    "train_at_least_new": ("train", "at_least_new"),
    "train_cron": ("train", "cron"),
    "gate_policy": ("gate", "policy"),
    "gate_probability": ("gate", "probability_better"),
    "gate_margin": ("gate", "margin"),
    "prompts": ("prompts",),
}
OF_SETS = {
    "id": ("id",),
    "title": ("title",),
    "access": ("access",),
    "ask_random_share": ("ask", "random_share"),
    "ask_least_sure": ("ask", "least_sure"),
    "learn_together": ("learn_together",),
    "sync_cron": ("sync", "cron"),
    "train_at_least_new": ("train", "at_least_new"),
    "train_cron": ("train", "cron"),
    "gate_policy": ("gate", "policy"),
    "gate_probability": ("gate", "probability_better"),
    "gate_margin": ("gate", "margin"),
}
FIELDS_OF = {CLASSIFICATION: FIELDS, SELECTION: OF_SETS}


@pages.get("/projects")
def page() -> str:
    """The projects that one may see."""
    who = rights.account()
    found = [one for one in projects.all_projects(context.stores()) if who.may_see(one.id)]
    return render_template("projects.html", found=found, who=who)


@pages.get("/projects/new")
def new() -> str:
    """The form of a new project."""
    rights.owner_of_everything()
    kind = _kind(request.args.get("kind", CLASSIFICATION))
    return _form(None, kind, _typed(Project.model_construct(id="", title="", classes=(), kind=kind)), {})


@pages.post("/projects/new")
def make() -> AnyResponse | tuple[str, int]:
    """Make a project from the form."""
    who = rights.owner_of_everything()
    kind = _kind(request.form.get("kind", CLASSIFICATION))
    typed = {name: request.form.get(name, "") for name in FIELDS_OF[kind]}
    project, faults = _parsed(typed, {"kind": kind})
    if project and any(one.id == project.id for one in projects.all_projects(context.stores())):
        faults = {"id": str(ProjectExists(project=project.id))}
    if project is None or faults:
        return _form(None, kind, typed, faults), 422
    projects.add(context.stores(), project, context.now(), who.email)
    return redirect(url_for("dashboard.page", project_id=project.id), 303)


@pages.get("/p/<project_id>/settings")
def settings(project_id: str) -> str:
    """A project's manifest as a form, and what was changed in it."""
    rights.viewer(project_id)
    project = projects.get(context.stores(), project_id)
    return _form(project, project.kind, _typed(project), {})


@pages.post("/p/<project_id>/settings")
def change(project_id: str) -> AnyResponse | tuple[str, int]:
    """Change a project's manifest."""
    who = rights.owner(project_id)
    former = projects.get(context.stores(), project_id)
    typed = {**{name: request.form.get(name, "") for name in FIELDS_OF[former.kind]}, "id": project_id}
    project, faults = _parsed(typed, former.model_dump(mode="json"))
    if project and not faults:
        try:
            projects.add(context.stores(), project, context.now(), who.email)
            return redirect(url_for(".settings", project_id=project_id, saved=1), 303)
        except ClassesChanged as error:
            faults = {"classes": str(error)}
    elif lost := set(former.classes) - {line.strip() for line in typed.get("classes", "").splitlines()}:
        faults = {**faults, "classes": text("settings.lost", classes=", ".join(sorted(lost)))}
        faults.pop("prompts", None)  # those of the classes that are missing
    return _form(former, former.kind, typed, faults), 422


@pages.get("/p/<project_id>/manifest.yaml")
def manifest(project_id: str) -> Response:
    """The manifest as a file for `closedloop project add`."""
    rights.viewer(project_id)
    project = projects.get(context.stores(), project_id)
    text = yaml.safe_dump(project.model_dump(mode="json"), allow_unicode=True, sort_keys=False)
    return Response(
        text,
        mimetype="application/yaml",
        headers={"Content-Disposition": f'attachment; filename="{project.id}.yaml"'},
    )


@pages.get("/p/<project_id>/people")
def people(project_id: str) -> str:
    """Who belongs to a project, and who is invited."""
    return _people(project_id)


@pages.post("/p/<project_id>/people/invite")
def invite(project_id: str) -> str:
    """Make an invitation and show its link, this once."""
    who = rights.owner(project_id)
    role = request.form.get("role", "")
    if role not in (*ROLES, VISITOR):
        raise BadRequest(reason=f"a role is {OWNER}, {VIEWER} or {VISITOR}")
    project = projects.get(context.stores(), project_id)
    token = accounts.invite(context.stores(), project.id, role, who.email, context.now())
    return _people(project_id, url_for("sign_in.invitation", token=token, _external=True))


@pages.post("/p/<project_id>/people/uninvite")
def uninvite(project_id: str) -> AnyResponse:
    """Take an invitation back."""
    rights.owner(project_id)
    accounts.uninvite(context.stores(), project_id, request.form.get("digest", ""))
    return redirect(url_for(".people", project_id=project_id), 303)


@pages.post("/p/<project_id>/people/role")
def role(project_id: str) -> AnyResponse:
    """Change what somebody may do in a project, or nothing any more."""
    who = rights.owner(project_id)
    wanted = request.form.get("role", "")
    if wanted not in (*ROLES, ""):
        raise BadRequest(reason=f"a role is {OWNER} or {VIEWER}")
    account = accounts.find(context.stores(), request.form.get("email", ""))
    if not account.may_see(project_id):  # nobody learns here who has an account
        raise NoSuchAccount(email=account.email)
    if account.everywhere or account.id == who.id:
        raise NotAllowed
    accounts.set_role(context.stores(), account, project_id, wanted or None, context.now())
    return redirect(url_for(".people", project_id=project_id), 303)


def _people(project_id: str, link: str = "") -> str:
    who = rights.viewer(project_id)
    project = projects.get(context.stores(), project_id)
    return render_template(
        "people.html",
        project=project,
        who=who,
        members=accounts.members(context.stores(), project.id),
        invitations=accounts.invitations(context.stores(), project.id, context.now()),
        may_change=who.may_change(project.id),
        link=link,
        roles=ROLES,
        active="people",
    )


def _form(project: Project | None, kind: str, typed: dict[str, str], faults: dict[str, str]) -> str:
    who = rights.account()
    return render_template(
        "settings.html",
        project=project,
        kind=kind,
        kinds=tuple(FIELDS_OF),
        typed=typed,
        faults=faults,
        changes=projects.changes(context.stores(), project.id) if project else [],
        may_change=who.may_change(project.id) if project else who.everywhere,
        saved="saved" in request.args,
        active="settings",
    )


def _typed(project: Project) -> dict[str, str]:
    """The form's fields as they are filled in for a project."""
    manifest = project.model_dump(mode="json")
    typed = {}
    for name, path in FIELDS_OF[project.kind].items():
        value: Any = manifest
        for step in path:
            value = value[step]
        typed[name] = str(value)
    if project.kind != CLASSIFICATION:
        return typed
    typed["classes"] = "\n".join(project.classes)
    prompts = {name: list(texts) for name, texts in project.prompts.items()}
    typed["prompts"] = yaml.safe_dump(prompts, allow_unicode=True, sort_keys=False) if prompts else ""
    return typed


def _kind(kind: str) -> str:
    if kind not in FIELDS_OF:
        raise BadRequest(reason=f"the kind of a project is {' or '.join(FIELDS_OF)}")
    return kind


def _parsed(typed: dict[str, str], former: dict[str, Any]) -> tuple[Project | None, dict[str, str]]:
    """The project that the form describes, or what is wrong with it by field.

    What the form does not show stays as it is in the `former` manifest, which names the kind.
    """
    manifest = copy.deepcopy(former)
    faults: dict[str, str] = {}
    for name, path in FIELDS_OF[former["kind"]].items():
        value: Any = typed[name].strip()
        if name == "learn_together":
            value = value or False  # an empty box is not sent
        elif name == "classes":
            value = [line.strip() for line in typed[name].splitlines() if line.strip()]
        elif name == "prompts":
            try:
                value = yaml.safe_load(typed[name] or "{}")
            except (yaml.YAMLError, RecursionError, ValueError) as error:
                faults[name] = f"this is not YAML: {getattr(error, 'problem', None) or str(error)[:200]}"
                continue
        at = manifest
        for step in path[:-1]:
            at = at.setdefault(step, {})
        at[path[-1]] = value
    try:
        project = Project.model_validate(manifest)
    except ValidationError as error:
        for fault in error.errors():
            field = _field(fault["loc"], fault["msg"])
            faults.setdefault(field, fault_text(fault))
        return None, faults
    return project, faults


def _field(loc: tuple[str | int, ...], message: str) -> str:
    """The field of the form that a fault of the manifest belongs to."""
    for name, path in {**OF_SETS, **FIELDS}.items():
        if loc[: len(path)] == path:
            return name
    return "prompts" if "prompts" in message else "title"
