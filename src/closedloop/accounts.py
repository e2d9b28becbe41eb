"""Who may see and change what: accounts and their roles, sessions, tokens for scripts, invitations.

Passwords are kept as argon2id hashes (RFC 9106); sessions, tokens and invitations are random and kept as digests, so
that whoever reads the records can use none of them.
"""

import datetime as dt
import hashlib
import re
import secrets
import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import argon2

from closedloop.errors import (
    AccountExists,
    InvitationOver,
    NoSuchAccount,
    UnusableEmail,
    WeakPassword,
    WrongPassword,
    WrongSignIn,
)
from closedloop.settings import Settings
from closedloop.storage import Stores, people

OWNER, VIEWER, VISITOR = "owner", "viewer", "visitor"
ROLES = (OWNER, VIEWER)
SESSION = dt.timedelta(hours=12)
INVITATION = dt.timedelta(days=14)
SHORTEST, LONGEST = 12, 200  # characters of a password
TOKEN_PREFIX = "cl_"  # noqa: S105 - lets scanners for lost secrets find them

# OWASP's parameters for argon2id (Password Storage Cheat Sheet, 2024): 19 MiB, 2 passes, 1 lane.
_HASHER = argon2.PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
_HASHING = threading.BoundedSemaphore(2)  # a crowd at the door must not take the pages' memory
# The hash of a random text: who has no account waits as long as who has one.
_NOBODY = "$argon2id$v=19$m=19456,t=2,p=1$q9WtpC7mZHOz/FDlJa55Lw$m3rM7WRDEpKgzR/NbjvpI1nxg3LlKZ6op9ESu5YFx+A"


@dataclass(frozen=True)
class Account:
    """Somebody with a password. `roles` are by project; who is owner `everywhere` needs none."""

    id: str
    email: str
    everywhere: bool
    roles: Mapping[str, str] = field(default_factory=dict)

    def may_see(self, project_id: str) -> bool:
        """Whether it may look at a project's dashboard and pictures."""
        return self.everywhere or project_id in self.roles

    def may_change(self, project_id: str) -> bool:
        """Whether it may change a project, roll back, remove pictures and invite."""
        return self.everywhere or self.roles.get(project_id) == OWNER


@dataclass(frozen=True)
class Token:
    """What is known of a token: its name and age, never itself."""

    digest: str
    name: str
    created_at: dt.datetime


def make(stores: Stores, email: str, password: str, now: dt.datetime, everywhere: bool = False) -> Account:
    """Make an account. Raises UnusableEmail, WeakPassword or AccountExists."""
    row = {
        "id": uuid.uuid4().hex,
        "email": _plain(email),
        "password": _hash(password),
        "everywhere": everywhere,
        "created_at": now,
    }
    with stores.db.write() as tx:
        if not people.add_account(tx, row):
            raise AccountExists(email=row["email"])
    return Account(row["id"], row["email"], everywhere)


def make_first_owner(stores: Stores, settings: Settings, now: dt.datetime) -> str | None:
    """Make the owner that the secrets name where there is no account at all; returns the address if it was made.

    Raises MissingSetting, UnusableEmail or WeakPassword.
    """
    with stores.db.read() as tx:
        if people.any_account(tx):
            return None
    password = settings.require("closedloop_owner_password")
    try:
        return make(stores, settings.closedloop_owner_email, password, now, everywhere=True).email
    except AccountExists:  # another process was first
        return None


def find(stores: Stores, email: str) -> Account:
    """The account of an address; raises NoSuchAccount."""
    with stores.db.read() as tx:
        row = people.account_of(tx, _name(email))
        if row is None:
            raise NoSuchAccount(email=email[:254])
        return _account(tx, row)


def everyone(stores: Stores) -> list[Account]:
    """Every account, by address."""
    with stores.db.read() as tx:
        return [_account(tx, row) for row in people.all_accounts(tx)]


def sign_in(stores: Stores, email: str, password: str, now: dt.datetime) -> str:
    """Begin a session; returns what its cookie holds. Raises WrongSignIn, which does not say what was wrong."""
    with stores.db.read() as tx:
        row = people.account_of(tx, _name(email))
    if not _matches(row["password"] if row else _NOBODY, password) or row is None:
        raise WrongSignIn
    token = secrets.token_urlsafe(32)
    with stores.db.write() as tx:
        if _HASHER.check_needs_rehash(row["password"]):
            people.set_password(tx, row["id"], _hash(password))
        people.add_session(tx, _digest(token), row["id"], now, now + SESSION)
    return token


def signed_in(stores: Stores, session: str, now: dt.datetime) -> Account | None:
    """Who a session belongs to, None where it has ended."""
    with stores.db.read() as tx:
        row = people.account_of_session(tx, _digest(session), now)
        return _account(tx, row) if row else None


def sign_out(stores: Stores, session: str) -> None:
    """End a session, wherever its cookie is."""
    with stores.db.write() as tx:
        people.end_session(tx, _digest(session))


def change_password(stores: Stores, account: Account, former: str, password: str) -> None:
    """Replace a password and sign the account out everywhere. Raises WrongPassword or WeakPassword."""
    with stores.db.read() as tx:
        row = people.account(tx, account.id)
    if row is None or not _matches(row["password"], former):
        raise WrongPassword
    set_password(stores, account, password)


def set_password(stores: Stores, account: Account, password: str) -> None:
    """Replace a password without asking for the former, and sign the account out everywhere. Raises WeakPassword."""
    hashed = _hash(password)
    with stores.db.write() as tx:
        people.set_password(tx, account.id, hashed)
        people.end_sessions(tx, account.id)


def remove(stores: Stores, account: Account) -> None:
    """Remove an account with everything that it may do."""
    with stores.db.write() as tx:
        people.remove_account(tx, account.id)


def set_role(stores: Stores, account: Account, project_id: str, role: str | None, now: dt.datetime) -> None:
    """Give an account a role in a project, or take it away."""
    with stores.db.write() as tx:
        people.set_role(tx, project_id, account.id, role, now)


def make_token(stores: Stores, account: Account, name: str, now: dt.datetime) -> str:
    """A token with which a script may do what the account may; it is shown this once."""
    token = TOKEN_PREFIX + secrets.token_urlsafe(32)
    with stores.db.write() as tx:
        people.add_token(
            tx, {"digest": _digest(token), "account_id": account.id, "name": name[:100], "created_at": now}
        )
    return token


def tokens(stores: Stores, account: Account) -> list[Token]:
    """An account's tokens, oldest first."""
    with stores.db.read() as tx:
        rows = people.tokens_of(tx, account.id)
    return [Token(row["digest"], row["name"], row["created_at"]) for row in rows]


def remove_token(stores: Stores, account: Account, digest: str) -> None:
    """Make one of an account's tokens worthless; nothing happens where it has none of this digest."""
    with stores.db.write() as tx:
        people.remove_token(tx, account.id, digest)


def by_token(stores: Stores, token: str) -> Account | None:
    """Whose token this is."""
    with stores.db.read() as tx:
        row = people.account_of_token(tx, _digest(token))
        return _account(tx, row) if row else None


def invite(stores: Stores, project_id: str, role: str, by: str, now: dt.datetime) -> str:
    """An invitation into a project: for visitors as often as they like, for a viewer or owner once."""
    token = secrets.token_urlsafe(24)
    row = {"digest": _digest(token), "project_id": project_id, "role": role, "by": by, "created_at": now}
    with stores.db.write() as tx:
        people.add_invitation(tx, {**row, "expires_at": now + INVITATION})
    return token


@dataclass(frozen=True)
class Invitation:
    """What an invitation lets its bearer be; `digest` is its name in the records."""

    digest: str
    project_id: str
    role: str


def invitation(stores: Stores, token: str, now: dt.datetime) -> Invitation:
    """The invitation behind a link; raises InvitationOver."""
    return invitation_of(stores, _digest(token), now)


def invitation_of(stores: Stores, digest: str, now: dt.datetime) -> Invitation:
    """The invitation of this name; raises InvitationOver where it has ended or was taken back."""
    with stores.db.read() as tx:
        row = people.invitation(tx, digest, now)
    if row is None:
        raise InvitationOver
    return Invitation(row["digest"], row["project_id"], row["role"])


def join(stores: Stores, account: Account, token: str, now: dt.datetime) -> Invitation:
    """Use an invitation up; raises InvitationOver, where two came with it at once too.

    Who is an owner already does not become a viewer by it.
    """
    asked = invitation(stores, token, now)
    with stores.db.write() as tx:
        if not people.remove_invitation(tx, asked.project_id, asked.digest):
            raise InvitationOver
        if people.roles_of(tx, account.id).get(asked.project_id) != OWNER:
            people.set_role(tx, asked.project_id, account.id, asked.role, now)
    return asked


@dataclass(frozen=True)
class Member:
    """Somebody who belongs to a project."""

    email: str
    role: str
    everywhere: bool


def members(stores: Stores, project_id: str) -> list[Member]:
    """Who belongs to a project, those who own everything first."""
    with stores.db.read() as tx:
        return [Member(row["email"], row["role"], row["everywhere"]) for row in people.members(tx, project_id)]


@dataclass(frozen=True)
class Open:
    """An invitation that still holds, as its project's owner sees it."""

    digest: str
    role: str
    by: str
    expires_at: dt.datetime


def invitations(stores: Stores, project_id: str, now: dt.datetime) -> list[Open]:
    """The invitations into a project that still hold, oldest first."""
    with stores.db.read() as tx:
        rows = people.invitations_of(tx, project_id, now)
    return [Open(row["digest"], row["role"], row["by"], row["expires_at"]) for row in rows]


def uninvite(stores: Stores, project_id: str, digest: str) -> None:
    """Take an invitation back."""
    with stores.db.write() as tx:
        people.remove_invitation(tx, project_id, digest)


def _account(tx: Any, row: Any) -> Account:
    return Account(row["id"], row["email"], row["everywhere"], people.roles_of(tx, row["id"]))


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()


def _name(email: str) -> str:
    """An address as it is kept; Postgres refuses to look for a NUL."""
    return email.strip().lower().replace("\0", "?")


def _plain(email: str) -> str:
    email = _name(email)
    if len(email) > 254 or not re.fullmatch(r"[^@\s\x00-\x1f]+@[^@\s\x00-\x1f]+", email):
        raise UnusableEmail(email=email[:254])
    return email


def _hash(password: str) -> str:
    if not SHORTEST <= len(password) <= LONGEST:
        raise WeakPassword(shortest=SHORTEST, longest=LONGEST)
    with _HASHING:
        return _HASHER.hash(password)


def _matches(hashed: str, password: str) -> bool:
    if len(password) > LONGEST:
        return False
    try:
        with _HASHING:
            return _HASHER.verify(hashed, password)
    except argon2.exceptions.VerificationError:
        return False
