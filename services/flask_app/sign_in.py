"""Signing in and out, one's own account and tokens, and following an invitation."""

from urllib.parse import urlsplit

from flask import Blueprint, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from closedloop import accounts
from closedloop import project as projects
from closedloop.accounts import VISITOR
from closedloop.errors import BadRequest, ClosedloopError, WrongSignIn
from flask_app import context, rights
from flask_app.texts import text

pages = Blueprint("sign_in", __name__)


@pages.get("/sign-in")
def page() -> AnyResponse | str:
    """The form to sign in with; who is signed in already goes on."""
    if rights.signed_in():
        return redirect(_next(), 303)
    return render_template("sign_in.html", next=_next(), email="", fault="", closed="closed" in request.args)


@pages.post("/sign-in")
def sign_in() -> AnyResponse | tuple[str, int]:
    """Begin a session, and go on to where one wanted to go."""
    email, password = request.form.get("email", ""), request.form.get("password", "")
    try:
        rights.count_sign_in(email)
        secret = accounts.sign_in(context.stores(), email, password, context.now())
    except ClosedloopError as error:
        if error.status >= 500 or context.wants_json():
            raise
        shown = render_template("sign_in.html", next=_next(), email=email[:254], fault=str(error))
        return shown, error.status if not isinstance(error, WrongSignIn) else 401
    rights.begin(secret)
    return redirect(_next(), 303)


@pages.post("/sign-out")
def sign_out() -> AnyResponse:
    """End the session."""
    rights.end()
    return redirect("/", 303)


@pages.get("/account")
def account() -> str:
    """One's own account: password and tokens."""
    return _account()


@pages.post("/account/password")
def change_password() -> AnyResponse | tuple[str, int]:
    """Replace one's password; every session of the account ends."""
    who = rights.account()
    try:
        accounts.change_password(
            context.stores(), who, request.form.get("former", ""), request.form.get("password", "")
        )
    except ClosedloopError as error:
        if error.status >= 500:
            raise
        return _account(password_fault=str(error)), error.status
    rights.end()
    return redirect(url_for(".page", next=url_for(".account")), 303)


@pages.post("/account/tokens")
def make_token() -> str:
    """Make a token and show it, this once."""
    who = rights.account()
    name = request.form.get("name", "").strip() or text("account.unnamed")
    return _account(made=accounts.make_token(context.stores(), who, name, context.now()))


@pages.post("/account/tokens/remove")
def remove_token() -> AnyResponse:
    """Make one of one's tokens worthless."""
    accounts.remove_token(context.stores(), rights.account(), request.form.get("digest", ""))
    return redirect(url_for(".account"), 303)


@pages.get("/invitations/<token>")
def invitation(token: str) -> AnyResponse | str:
    """Follow an invitation: a visitor goes on to the upload page, anyone else signs in or makes an account."""
    asked = accounts.invitation(context.stores(), token, context.now())
    project = projects.get(context.stores(), asked.project_id)
    if asked.role == VISITOR:
        rights.remember_invitation(asked.digest)
        return redirect(url_for("upload.page", project_id=project.id), 303)
    return render_template("invitation.html", project=project, asked=asked, token=token, email="", fault="")


@pages.post("/invitations/<token>")
def join(token: str) -> AnyResponse | tuple[str, int]:
    """Use an invitation up, as the account that is signed in or a new one."""
    asked = accounts.invitation(context.stores(), token, context.now())
    if asked.role == VISITOR:
        raise BadRequest(reason="this invitation is for visitors, who need no account")
    project = projects.get(context.stores(), asked.project_id)
    who = rights.signed_in()
    email = request.form.get("email", "")
    if who is None:
        password = request.form.get("password", "")
        try:
            rights.count_sign_in(email)
            who = accounts.make(context.stores(), email, password, context.now())
            secret = accounts.sign_in(context.stores(), email, password, context.now())
        except ClosedloopError as error:
            if error.status >= 500:
                raise
            shown = render_template(
                "invitation.html", project=project, asked=asked, token=token, email=email[:254], fault=str(error)
            )
            return shown, error.status
        rights.begin(secret)
    accounts.join(context.stores(), who, token, context.now())
    return redirect(url_for("dashboard.page", project_id=project.id), 303)


def _account(made: str = "", password_fault: str = "") -> str:
    who = rights.account()
    tokens = accounts.tokens(context.stores(), who)
    return render_template("account.html", who=who, tokens=tokens, made=made, password_fault=password_fault)


def _next() -> str:
    """Where one wanted to go: a path of this site, nothing else."""
    wanted = request.values.get("next", "/")
    try:
        parts = urlsplit(wanted)
    except ValueError:
        return "/"
    inside = wanted.startswith("/") and not wanted.startswith(("//", "/\\")) and not parts.netloc and not parts.scheme
    return wanted if inside and wanted.isprintable() else "/"
