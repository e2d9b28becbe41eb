"""Who asks, and what he may do: accounts by session or token, visitors by cookie, invitations, links to pictures.

A form's token (CSRF) is asked for wherever a cookie lends a request the rights of an account; uploads and feedback of
public projects need no session and take none.
"""

import hashlib
import secrets
from dataclasses import dataclass
from typing import Any

import flask_login
from flask import Flask, request, session, url_for
from flask.sessions import SecureCookieSessionInterface
from flask_wtf.csrf import CSRFError, CSRFProtect
from itsdangerous import BadSignature, TimestampSigner

from closedloop import accounts, rates, sets
from closedloop.accounts import VISITOR, Account
from closedloop.errors import (
    ClosedloopError,
    FormOutdated,
    InvitationOver,
    LinkOver,
    NotAllowed,
    ProjectClosed,
    SignInNeeded,
    UnknownPicture,
)
from closedloop.project import Project
from closedloop.rates import Limit
from closedloop.settings import Settings
from closedloop.storage import pictures
from flask_app import context

LINK_SECONDS = 300  # that a link to a picture holds
YEAR = 365 * 24 * 3600
# Attempts to sign in: of an address, of an address at one account, at one account from anywhere. The last is wide,
# so that nobody can keep an owner out by guessing.
OF_ADDRESS, OF_ADDRESS_AT_ACCOUNT, AT_ACCOUNT = Limit(30, 300), Limit(10, 300), Limit(300, 300)
_OPEN = {  # what scripts use without a session: knowing an answer's id is the right to answer back
    "upload.predict",
    "sets.send",
    "feedback.flag",
    "feedback.label",
    "feedback.undo_flag",
    "feedback.undo_label",
}
_csrf = CSRFProtect()
_logins = flask_login.LoginManager()


@dataclass(frozen=True)
class _SignedIn:
    """An account as flask-login wants it: its id is the session's secret, so that signing out ends it everywhere."""

    account: Account
    secret: str
    is_authenticated: bool = True
    is_active: bool = True
    is_anonymous: bool = False

    def get_id(self) -> str:
        return self.secret


def register(app: Flask, settings: Settings) -> None:
    """Sessions, accounts and form tokens for the application."""
    app.config.update(
        SECRET_KEY=settings.require("closedloop_session_key"),
        SESSION_COOKIE_NAME="closedloop",
        SESSION_COOKIE_SAMESITE="Lax",
        PERMANENT_SESSION_LIFETIME=YEAR,
        SESSION_REFRESH_EACH_REQUEST=False,  # a cookie that changes each second would undo every cache
        WTF_CSRF_CHECK_DEFAULT=False,
        WTF_CSRF_TIME_LIMIT=None,  # a form holds as long as the cookie
    )
    app.session_interface = _CookieByScheme()
    _csrf.init_app(app)
    _logins.session_protection = ""  # sessions lie in the records and end there
    _logins.init_app(app)

    @app.before_request
    def check_form() -> None:
        if request.method != "POST" or request.endpoint is None or _by_token():
            return
        if request.endpoint not in _OPEN or signed_in() is not None:
            try:
                _csrf.protect()
            except CSRFError:
                raise FormOutdated from None


@_logins.user_loader
def _of_session(secret: str) -> _SignedIn | None:
    account = accounts.signed_in(context.stores(), secret, context.now())
    return _SignedIn(account, secret) if account else None


@_logins.request_loader
def _of_token(_request: Any) -> _SignedIn | None:
    token = _by_token()
    account = accounts.by_token(context.stores(), token) if token else None
    return _SignedIn(account, "") if account else None


def _by_token() -> str | None:
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" and token.startswith(accounts.TOKEN_PREFIX) else None


class _CookieByScheme(SecureCookieSessionInterface):
    """Cookies that travel by https only, where the page came by https."""

    def get_cookie_secure(self, app: Flask) -> bool:
        return request.is_secure


def has_session() -> bool:
    """Whether the browser says that it is signed in; it need not be so any more."""
    return "_user_id" in session


def signed_in() -> Account | None:
    """The account that asks, by its session or its token."""
    who: Any = flask_login.current_user
    return who.account if who.is_authenticated else None


def signed_in_if_known() -> Account | None:
    """The account that asks, for what every page shows: an error page must come with the records away, too."""
    try:
        return signed_in()
    except ClosedloopError:
        return None


def begin(secret: str) -> None:
    """Let this browser be signed in by a session; the form tokens of before are worth nothing any more."""
    visitor, invitations = session.get("visitor"), session.get("invitations")
    session.clear()
    session.permanent = True
    session.update({name: value for name, value in (("visitor", visitor), ("invitations", invitations)) if value})
    flask_login.login_user(_SignedIn(Account("", "", False), secret))


def end() -> None:
    """Sign this browser out, and end its session."""
    who: Any = flask_login.current_user
    if who.is_authenticated and who.secret:
        accounts.sign_out(context.stores(), who.secret)
    flask_login.logout_user()
    session.pop("csrf_token", None)


def account() -> Account:
    """The account that asks; raises SignInNeeded."""
    who = signed_in()
    if who is None:
        raise SignInNeeded
    return who


def viewer(project_id: str) -> Account:
    """The account that asks, if it may look at the project; raises SignInNeeded or NotAllowed."""
    who = account()
    if not who.may_see(project_id):
        raise NotAllowed
    return who


def owner(project_id: str) -> Account:
    """The account that asks, if it may change the project; raises SignInNeeded or NotAllowed."""
    who = account()
    if not who.may_change(project_id):
        raise NotAllowed
    return who


def owner_of_everything() -> Account:
    """The account that asks, if it owns the installation; raises SignInNeeded or NotAllowed."""
    who = account()
    if not who.everywhere:
        raise NotAllowed
    return who


def visit(project: Project) -> None:
    """Let pass whoever may send pictures to a project and answer back. Raises SignInNeeded or NotAllowed."""
    if project.access == "public":
        return
    who = signed_in()
    if who and who.may_see(project.id):
        return
    for digest in session.get("invitations", ()):
        try:
            asked = accounts.invitation_of(context.stores(), digest, context.now())
        except InvitationOver:
            continue
        if (asked.project_id, asked.role) == (project.id, VISITOR):
            return
    if who:
        raise NotAllowed
    raise ProjectClosed


def remember_invitation(digest: str) -> None:
    """Let this browser visit the project of an invitation from now on."""
    session.permanent = True
    kept = [one for one in session.get("invitations", ()) if one != digest]
    session["invitations"] = [*kept, digest][-10:]


def visitor(make: bool = False) -> str | None:
    """The name under which what this browser sends is kept; made and put into its cookie on demand."""
    known = session.get("visitor")
    if known is None:
        if not make or _by_token():
            return None
        known = session["visitor"] = secrets.token_urlsafe(18)
        session.permanent = True
    return hashlib.sha256(str(known).encode()).hexdigest()[:32]


def picture(project_id: str, image_id: str) -> None:
    """Let pass whoever has a right to a picture: a member, the visitor who sent it, a link that holds.

    Raises UnknownPicture or LinkOver.
    """
    link = request.args.get("link")
    if link is not None:
        try:
            named = _signer().unsign(link, max_age=LINK_SECONDS).decode()
        except (BadSignature, UnicodeDecodeError):
            raise LinkOver from None
        if named != f"{project_id}/{image_id}":
            raise LinkOver
        return
    who, me = signed_in(), visitor()
    if who and who.may_see(project_id):
        return
    if me:
        with context.stores().db.read() as tx:
            if pictures.sent_by(tx, project_id, image_id, me):
                return
        if sets.has_sent(context.stores(), project_id, image_id, me):
            return
    raise UnknownPicture


def link_to(project_id: str, image_id: str) -> str:
    """A link to a picture that whoever has it may follow for five minutes."""
    link = pass_to(project_id, image_id)
    return url_for("images.picture", project_id=project_id, image_id=image_id, link=link, _external=True)


def pass_to(project_id: str, image_id: str) -> str:
    """What a link to a picture, or to its small copy, has in its address to hold for five minutes."""
    return _signer().sign(f"{project_id}/{image_id}").decode()


def _signer() -> TimestampSigner:
    return TimestampSigner(context.settings().require("closedloop_session_key"), salt="picture")


def count_sign_in(email: str) -> None:
    """Count an attempt to sign in; raises TooManyRequests."""
    address = request.remote_addr or ""
    name = hashlib.sha256(email.strip().lower().encode(errors="replace")).hexdigest()[:32]
    rates.take(context.stores(), f"sign-in:{address}", OF_ADDRESS, context.now())
    rates.take(context.stores(), f"sign-in:{address}:{name}", OF_ADDRESS_AT_ACCOUNT, context.now())
    rates.take(context.stores(), f"sign-in:{name}", AT_ACCOUNT, context.now())


def count_upload(pictures: int = 1) -> None:
    """Count pictures that a visitor sends, where the settings limit them; raises TooManyRequests.

    A set of more pictures than the limit counts as many as that, else it could never be sent.
    """
    a_minute = context.settings().closedloop_uploads_per_minute
    if not a_minute or signed_in():
        return
    address = request.remote_addr or ""
    count = min(pictures, a_minute)
    if me := visitor():
        rates.take(context.stores(), f"upload:{me}", Limit(a_minute, 60), context.now(), count)
        rates.take(context.stores(), f"upload-from:{address}", Limit(10 * a_minute, 60), context.now(), count)
    else:
        rates.take(context.stores(), f"upload:{address}", Limit(a_minute, 60), context.now(), count)
